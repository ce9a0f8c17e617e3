# SPDX-License-Identifier: Apache-2.0
"""Small English stories of one small world, and talks about them. Every sentence was written for this file.

A story has one animal with a name, a home, a wish, a trouble on the way, and a friend who helps. The same facts come back
through the whole story, and the talks ask for them, so that a model has to keep track of who, what and where.
"""
import random

ANIMALS = {  # kind: (article, homes, a habit)
    "fox": ("a", ["under an old oak", "at the edge of the forest", "behind the red barn"], "loved to run through tall grass"),
    "rabbit": ("a", ["in a burrow on the hill", "under an old oak", "next to the garden wall"], "loved to jump over puddles"),
    "bear": ("a", ["in a cave by the river", "at the edge of the forest", "on the far side of the hill"], "loved to sleep in the sun"),
    "owl": ("an", ["in a hollow tree", "in the tower of the mill", "in the roof of the red barn"], "loved to count the stars"),
    "mouse": ("a", ["in the wall of the mill", "under the kitchen floor", "in a hole by the well"], "loved to sing in the morning"),
    "frog": ("a", ["by the green pond", "under the wooden bridge", "in the reeds by the river"], "loved to swim in the rain"),
    "hedgehog": ("a", ["under a pile of leaves", "next to the garden wall", "beneath the apple tree"], "loved to walk at night"),
    "duck": ("a", ["by the green pond", "on a small island", "in the reeds by the river"], "loved to dive for shiny stones"),
    "squirrel": ("a", ["in a hollow tree", "high in the apple tree", "at the top of a tall pine"], "loved to climb very high"),
    "badger": ("a", ["in a deep den", "under the wooden bridge", "on the far side of the hill"], "loved to dig in soft earth"),
    "otter": ("an", ["in a cave by the river", "on a small island", "beneath the waterfall"], "loved to slide down the bank"),
    "crow": ("a", ["at the top of a tall pine", "in the tower of the mill", "on the roof of the red barn"], "loved to collect buttons"),
}
NAMES = {"he": ["Pip", "Tom", "Otto", "Finn", "Max", "Ben", "Leo", "Hugo", "Sam", "Gus"],
         "she": ["Mia", "Lily", "Rosa", "Ella", "Nora", "Ivy", "Ada", "Tess", "Ruby", "Wren"]}
FORMS = {"he": ("he", "him", "his"), "she": ("she", "her", "her")}
WISHES = {  # thing: (article, where it is, why it is wanted)
    "lantern": ("a", "at the old mill", "because the nights were so dark"),
    "kite": ("a", "on the windy hill", "because the sky looked so wide"),
    "blanket": ("a", "at the market", "because winter was coming"),
    "drum": ("a", "in the red barn", "because the evenings were too quiet"),
    "pear": ("a", "in the far orchard", "because pears taste like summer"),
    "map": ("a", "in the tower of the castle", "because the world was so big"),
    "boat": ("a", "at the lake", "because the other shore looked so green"),
    "bell": ("a", "behind the chapel", "because a bell can call all friends at once"),
    "feather": ("a", "on the high cliff", "because feathers remember how to fly"),
    "honey cake": ("a", "in the bakery by the bridge", "because it smelled so sweet"),
    "blue stone": ("a", "at the bottom of the stream", "because it shone like a star"),
    "scarf": ("a", "at the market", "because the wind was cold"),
}
WEATHER = ["One sunny morning", "On a rainy day", "One windy afternoon", "On a cold and clear morning", "One foggy morning",
           "Late in the summer", "On the first day of spring", "One snowy evening"]
TROUBLES = [  # (what happens, how a friend helps), {s} subject, {o} object, {p} possessive
    ("But the bridge was broken, and the water ran fast.", "{F} pushed a long log over the water, and together they crossed it step by step."),
    ("But soon the path split in two, and {n} did not know which way to go.", "{F} knew the forest well and showed {o} the right path."),
    ("But a big stone lay across the path, and it was much too heavy.", "{F} and {n} pushed together, and at last the stone rolled away."),
    ("But then {s} stepped on a thorn and could not walk.", "{F} pulled out the thorn very gently and tied a soft leaf around {p} foot."),
    ("But it grew dark, and {n} was afraid of the shadows.", "{F} walked beside {o} and told {o} that shadows are only the night's way of resting."),
    ("But a proud goose stood in the way and would not let {o} pass.", "{F} asked the goose for a song, and while the goose sang, they slipped past."),
    ("But the gate was locked, and there was no key.", "{F} was small and quick, found the key under a pot, and opened the gate."),
    ("But a storm came up, and the rain fell like a curtain.", "{F} held a big leaf over both of them until the storm had passed."),
]
TALK = [("\"Do not worry,\" said {f}. \"I will help you.\"", "\"Thank you,\" said {n}. \"I was a little afraid.\""),
        ("\"Why are you so sad?\" asked {f}.", "{n} told {fo} everything."),
        ("\"You look lost,\" said {f}.", "\"I am,\" said {n}. \"Can you help me?\""),
        ("\"Two can do more than one,\" said {f}.", "\"Then let us try together,\" said {n}.")]
ENDINGS = ["{n} gave {f} half of {p} supper, and from that day on they were the best of friends.",
           "In the evening they sat side by side and watched the moon rise over the hill.",
           "And when {n} fell asleep that night, the {t} lay right beside {o}.",
           "{n} smiled, because now {s} had a {t} and a friend, and the friend was the better of the two.",
           "Since then {n} and {f} have shared the {t}, one day here and one day there."]
LESSONS = ["So {n} learned that asking for help is brave.", "So {n} learned that a friend makes every road shorter.",
           "So {n} learned that small paws can do big things.", "So {n} learned that good things need a little patience."]


class Story:
    """The facts of one story, drawn at random but for those that are given."""

    def __init__(self, rng, kind=None, name=None, thing=None):
        self.rng = rng
        self.kind = kind or rng.choice(sorted(ANIMALS))
        self.pronoun = next((p for p, names in NAMES.items() if name in names), rng.choice(["he", "she"]))
        self.name = name or rng.choice(NAMES[self.pronoun])
        self.thing = thing or rng.choice(sorted(WISHES))
        self.home = rng.choice(ANIMALS[self.kind][1])
        self.friend_kind = rng.choice([k for k in sorted(ANIMALS) if k != self.kind])
        self.friend_pronoun = rng.choice(["he", "she"])
        self.friend = rng.choice([n for n in NAMES[self.friend_pronoun] if n != self.name])

    def text(self):
        rng = self.rng
        s, o, p = FORMS[self.pronoun]
        article, where, why = WISHES[self.thing]
        kind_article, _, habit = ANIMALS[self.kind]
        friend_article = ANIMALS[self.friend_kind][0]
        words = {"n": self.name, "s": s, "o": o, "p": p, "f": self.friend, "F": self.friend, "fo": FORMS[self.friend_pronoun][1], "t": self.thing}
        trouble, help_ = rng.choice(TROUBLES)
        question, reply = rng.choice(TALK)
        start = rng.choice([
            f"Once there was {kind_article} {self.kind} named {self.name} who lived {self.home}. {s.capitalize()} {habit}.",
            f"{self.name} was a little {self.kind}. {s.capitalize()} lived {self.home} and {habit}.",
            f"There once lived a young {self.kind} {self.home}. {p.capitalize()} name was {self.name}, and {s} {habit}."])
        wish = rng.choice([
            f"More than anything, {self.name} wanted {article} {self.thing}, {why}.",
            f"There was only one thing {s} wished for: {article} {self.thing}, {why}.",
            f"Every night {self.name} dreamed of {article} {self.thing}, {why}."])
        leave = rng.choice([
            f"{rng.choice(WEATHER)} {s} set out to find one {where}.",
            f"{rng.choice(WEATHER)} {self.name} packed a little bag and walked off to look for one {where}.",
            f"{rng.choice(WEATHER)} {s} heard that there was one {where}, and off {s} went."])
        meet = rng.choice([
            f"Then {friend_article} {self.friend_kind} named {self.friend} came by.",
            f"Just then {self.name} met {friend_article} {self.friend_kind} whose name was {self.friend}.",
            f"Luckily a kind {self.friend_kind} named {self.friend} was not far away."])
        found = rng.choice([
            f"And there, {where}, they found the {self.thing}.",
            f"Soon they came to the place, and {where} they saw it: the {self.thing}!",
            f"After a short walk they found the {self.thing} {where}."])
        parts = [start, wish, leave, trouble, meet, question, reply, help_, found, rng.choice(ENDINGS)]
        if rng.random() < 0.5:
            parts.append(rng.choice(LESSONS))
        return " ".join(part.format(**words) for part in parts)

    def question(self):
        """A question about the story, and its answer."""
        article, where, why = WISHES[self.thing]
        s = FORMS[self.pronoun][0]
        return self.rng.choice([
            (f"Where did {self.name} live?", f"{self.name} lived {self.home}."),
            (f"What did {self.name} want?", f"{self.name} wanted {article} {self.thing}, {why}."),
            (f"Who helped {self.name}?", f"{self.friend} the {self.friend_kind} helped {FORMS[self.pronoun][1]}."),
            (f"Where was the {self.thing}?", f"The {self.thing} was {where}."),
            (f"What kind of animal was {self.name}?", f"{self.name} was {ANIMALS[self.kind][0]} {self.kind}, and {s} lived {self.home}."),
            (f"What kind of animal was {self.friend}?", f"{self.friend} was {ANIMALS[self.friend_kind][0]} {self.friend_kind}."),
        ])


GREETINGS = [("Hello!", "Hello! Shall I tell you a story? I know many animals."),
             ("Hi there.", "Hello, dear friend. Which animal would you like to hear about?"),
             ("Who are you?", "I am a very small storyteller. I know twelve animals and all the paths between the mill and the river."),
             ("What can you do?", "I can tell you stories about small animals, and answer a question about them."),
             ("Thank you!", "You are welcome. Come back when you want another story."),
             ("Good night.", "Good night. May you dream of green ponds and tall pines.")]
SYSTEMS = ["You are a storyteller.", "You tell short stories for children.", "You are a kind old storyteller by the fire."]


def request(rng):
    """What a user may ask for, and the story it must become."""
    kind, thing = rng.choice(sorted(ANIMALS)), rng.choice(sorted(WISHES))
    name = rng.choice(NAMES["he"] + NAMES["she"])
    a, at = ANIMALS[kind][0], WISHES[thing][0]
    please = rng.choice(["Tell me a story about", "Please tell me a story about", "Can you tell me a story about", "I would like a story about",
                         "Write a short story about", "Tell me about"])
    end = "?" if please.startswith("Can") else "."
    return rng.choice([
        (f"{please} {a} {kind} named {name}{end}", Story(rng, kind, name)),
        (f"{please} {a} {kind} named {name}{end}", Story(rng, kind, name)),
        (f"{please} {a} {kind}{end}", Story(rng, kind)),
        (f"{please} {a} {kind} who wants {at} {thing}{end}", Story(rng, kind, None, thing)),
        (f"{please} {a} {kind} named {name} who wants {at} {thing}{end}", Story(rng, kind, name, thing)),
        (f"{please} {at} {thing}{end}", Story(rng, None, None, thing)),
        ("Tell me a story.", Story(rng)),
    ])


def chat(rng):
    """A talk in Gemma 4's chat format, without <bos>."""
    turns = []
    if rng.random() < 0.15:
        turns.append(("system", rng.choice(SYSTEMS)))
    if rng.random() < 0.15:
        greeting, answer = rng.choice(GREETINGS)
        turns += [("user", greeting), ("model", answer)]
    question, story = request(rng)
    turns += [("user", question), ("model", story.text())]
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        question, answer = story.question()
        turns += [("user", question), ("model", answer)]
    return "".join(f"<|turn>{role}\n{text}<turn|>\n" for role, text in turns)


def document(rng):
    """One training text, without <bos>: a talk, or a story alone."""
    return chat(rng) if rng.random() < 0.7 else Story(rng).text() + "<eos>"


def documents(count, seed):
    rng = random.Random(seed)
    return [document(rng) for _ in range(count)]


if __name__ == "__main__":
    for text in documents(8, 1):
        print(text, "\n---")
