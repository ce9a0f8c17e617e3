# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/text: a small tokenizer in Gemma 4's form, and the reference's results for thousands of texts.

    python3 tests/reference/make_text_golden.py --template CHAT_TEMPLATE.jinja [--out tests/data/text]

CHAT_TEMPLATE.jinja is chat_template.jinja of a Gemma 4 instruction-tuned checkpoint; only what it renders is stored.

Made with tokenizers 0.23.3, transformers 5.23.0, jinja2 as transformers needs it, Python 3.11. Seeded: the same
versions give the same files.
"""

import argparse
import itertools
import json
import pathlib
import random
import tempfile

import tokenizers
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SEED = 20260
SPACE = "\u2581"
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>"]
PLAIN_ADDED = ["<unused0>", "<unused1>", "<unused10>", "<table>", "</table>"]

ALPHABETS = {
    "latin": "etaoinshrdlucmfwypvbgk",
    "accents": "éèüöäñçßåøæœłşžõ",
    "cyrillic": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэф",
    "greek": "αοιετσνηυρπκμλωδγχθφβξζψ",
    "han": "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里",
    "kana": "のにはをたがでてとしれさあいうえおカタナンスルト",
    "hangul": "이다는을의에가고하지한도를은로사기",
    "arabic": "االيلمنرتبعدسكقفهو",
    "hebrew": "יוהלאתרמבשנדקחפ",
    "devanagari": "कारनसतमयहलवपदिीेोंैु्",
    "thai": "านรกเอมวงยลทดสตะปบคหแจพชขใไโ่้ัิีุ",
}
EMOJI = ["😀", "👍", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "❤️", "🤷🏿‍♀️", "1️⃣", "🫠", "🧑‍🚀"]
COMBINING = ["e\u0301", "n\u0303", "a\u0308\u0323", "Z\u0351\u036b\u0343", "\u0e01\u0e49\u0e33", "\u1112\u1161\u11ab"]
COMBINING += ["\u0301"]
WHITESPACE = [" ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\u00a0", "\u1680", "\u2003", "\u200b", "\u2028", "\u202f"]
WHITESPACE += ["\u3000", "\ufeff", "\x85", "\x1c"]
CODE = [
    "for (int i = 0; i < n; ++i) {\n    sum += a[i] * b[i];\n}\n",
    "def f(x):\n\treturn x ** 2  # square\n\n\nprint(f(3))\n",
    '{"key": [1, 2.5, null, true], "path": "C:\\\\dir\\\\file"}',
    "SELECT * FROM t WHERE id >= 10 AND name LIKE '%x%';",
    "<html><body>\n  <table><tr><td>1</td></tr></table>\n</body></html>",
    "$ git commit -m \"fix: off-by-one\" && make -j4 | tee log.txt",
    "\\frac{a}{b} = \\sum_{i=1}^{n} x_i^2",
]


def words_of(rng, alphabet, count):
    letters = list(alphabet)
    weights = [1 / (i + 1) for i in range(len(letters))]
    return ["".join(rng.choices(letters, weights, k=rng.randint(1, 8))) for _ in range(count)]


def training_text(rng):
    """Lines of made-up words with Zipf frequencies, so that real merges arise in every script."""
    lines = []
    for name, alphabet in ALPHABETS.items():
        lexicon = words_of(rng, alphabet, 150)
        weights = [1 / (i + 1) for i in range(len(lexicon))]
        for _ in range(220 if name == "latin" else 90):
            line = rng.choices(lexicon, weights, k=rng.randint(3, 14))
            joiner = "" if name in ("han", "kana", "thai") else " "
            lines.append(joiner.join(line) + rng.choice([".", "!", "?", ",", "", " 12", " 2024", ":"]))
    english = "The sky is blue because the air scatters short waves of light more than long ones. " * 3
    lines += [english, english.upper()] * 5 + CODE * 5
    return lines


def train(rng):
    """A vocabulary and merges laid out as in Gemma: specials, bytes, newline runs, space runs, then learnt pieces."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", SPACE)
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Split(SPACE, "merged_with_next")]
    )
    learner.train_from_iterator(training_text(rng), trainers.BpeTrainer(vocab_size=1150, show_progress=False))
    learnt = sorted(learner.get_vocab().items(), key=lambda item: item[1])

    pieces = list(SPECIAL) + PLAIN_ADDED
    pieces += [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += ["\n" * n for n in range(1, 9)] + ["\t" * n for n in range(1, 4)] + [SPACE * n for n in range(1, 17)]
    known = set(pieces)
    for piece, _ in learnt:
        if piece not in known:
            known.add(piece)
            pieces.append(piece)
    vocab = {piece: i for i, piece in enumerate(pieces)}

    # Gemma's file lists every pair of pieces that forms a piece, ordered by the piece formed.
    merges = []
    for piece in pieces[len(SPECIAL) + len(PLAIN_ADDED) + 256 :]:
        pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        pairs = [(a, b) for a, b in pairs if a in vocab and b in vocab]
        merges += sorted(pairs, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    return vocab, merges


def gemma_pipeline(vocab, merges):
    """The pipeline of transformers/models/gemma/tokenization_gemma.py, with Gemma's added tokens and <bos>."""
    model = models.BPE(vocab=vocab, merges=merges, fuse_unk=True, unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", vocab["<bos>"])]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    plain = PLAIN_ADDED + ["\n" * n for n in range(1, 9)] + [SPACE * n for n in range(2, 17)]
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in plain])
    return tokenizer


def random_character(rng):
    while True:
        code = rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x10000), rng.randrange(0x110000)])
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def texts(rng):
    """Thousands of texts, every kind that has broken a tokenizer."""
    yield from ["", " ", "  ", "\n", "\n\n", "\x00", "a", SPACE, SPACE * 3, " " + SPACE + " "]
    yield from ["\x00\x01\x7f\x1b[0m", "\ufffd", "\U0010ffff"]
    yield from ["Hello world", " Hello  world ", "Why is the sky blue?", "3.14159, 1e-5 and 0x1F"]
    yield from ["١٢٣ १२३ ４５６", "it's we'll"]
    yield from CODE + EMOJI + COMBINING + WHITESPACE
    yield from (" " * n for n in range(1, 40))
    yield from ("\n" * n for n in range(1, 40))
    yield from ("\t" * n for n in range(1, 8))
    yield from ("x" + " " * n + "y" + "\n" * n + "z" for n in range(1, 20))
    yield from (SPACE * n + " " * n for n in range(1, 20))
    yield from (f"<0x{byte:02X}>" for byte in range(0, 256, 17))
    for special in SPECIAL + PLAIN_ADDED:
        half = special[: len(special) // 2]
        yield from [special, f"a{special}b", f" {special} ", f"\n{special}\n", special * 3]
        yield from [special[:-1], special[1:], special.upper(), half + special, special + half, special + "<unused1>0>"]
    for a, b in itertools.product(["<|turn>", "<turn|>", "<|channel>", "<unused1>"], repeat=2):
        yield a + b
        yield f"{a}user\nhi {b}\n"
    lexicons = {name: words_of(rng, alphabet, 60) for name, alphabet in ALPHABETS.items()}
    for name, lexicon in lexicons.items():
        for _ in range(90):
            joiner = rng.choice(["", " ", " ", "  ", "\n", ", "])
            yield joiner.join(rng.choices(lexicon, k=rng.randint(1, 7)))
    everything = list(itertools.chain(*lexicons.values()))
    parts = everything + 20 * (EMOJI + COMBINING + SPECIAL + WHITESPACE) + 5 * PLAIN_ADDED
    parts += [str(n) for n in range(0, 3000, 37)]
    for _ in range(900):
        yield rng.choice(["", " "]).join(rng.choice(parts) for _ in range(rng.randint(1, 8)))
    for _ in range(350):
        yield "".join(random_character(rng) for _ in range(rng.randint(1, 8)))
    for _ in range(250):
        spaces = WHITESPACE[:5] + [" ", "\n", "\t", SPACE, "a", "the"]
        yield "".join(rng.choice(spaces) for _ in range(rng.randint(1, 14)))
    for _ in range(250):
        yield "".join(rng.choice("<|>turnchael/0xF ") for _ in range(rng.randint(1, 16)))
    for _ in range(250):
        yield "".join(rng.choice(list("the sky is blue")) for _ in range(rng.randint(1, 40)))


def encode(tokenizer, text, parse_special=True):
    tokenizer.encode_special_tokens = not parse_special
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    return ids


def text_case(tokenizer, text):
    """Keys left out: `plain` (specials not parsed) when it is `ids`; `decoded` (specials kept) when it is the text;
    `skipped` (specials left out) when it is `decoded`."""
    case = {"text": text, "ids": encode(tokenizer, text)}
    plain = encode(tokenizer, text, parse_special=False)
    if plain != case["ids"]:
        case["plain"] = plain
    decoded = tokenizer.decode(case["ids"], skip_special_tokens=False)
    skipped = tokenizer.decode(case["ids"], skip_special_tokens=True)
    if decoded != text:
        case["decoded"] = decoded
    if skipped != decoded:
        case["skipped"] = skipped
    return case


def decode_case(tokenizer, ids):
    return {
        "ids": ids,
        "decoded": tokenizer.decode(ids, skip_special_tokens=False),
        "skipped": tokenizer.decode(ids, skip_special_tokens=True),
    }


def id_sequences(rng, tokenizer):
    size = tokenizer.get_vocab_size()
    byte = {value: tokenizer.token_to_id(f"<0x{value:02X}>") for value in range(256)}
    for _ in range(200):
        yield [rng.randrange(size) for _ in range(rng.randint(1, 10))]
    for _ in range(200):  # byte runs: whole characters, cut ones, with and without other pieces between
        ids = []
        for _ in range(rng.randint(1, 4)):
            raw = list(rng.choice(EMOJI + ["€", "é", "\x00", "漢"]).encode())
            if rng.random() < 0.4:
                raw = raw[: rng.randint(1, len(raw))]
            ids += [byte[b] for b in raw]
            if rng.random() < 0.5:
                ids.append(rng.randrange(size))
        yield ids
    yield from ([byte[rng.randrange(256)] for _ in range(rng.randint(1, 6))] for _ in range(100))


def small_tokenizers(vocab, merges):
    """Tokenizers with the other components that are supported, as (name, tokenizer)."""
    keep = {piece: i for piece, i in vocab.items() if i < 420}
    few = [(a, b) for a, b in merges if a in keep and b in keep and a + b in keep]
    no_bytes = {piece: i for piece, i in keep.items() if not piece.startswith("<0x")}

    def model(pieces, **options):
        return Tokenizer(models.BPE(vocab=pieces, merges=few, **options))

    llama = model(keep, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    llama.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    llama.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    llama.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", keep["<bos>"]), ("<eos>", keep["<eos>"])]
    )
    llama.add_special_tokens(["<bos>", "<eos>", "<unk>", AddedToken("<a b>", special=True, normalized=True)])
    llama.add_tokens([AddedToken("sky", normalized=True), AddedToken("line", normalized=False)])
    yield "llama", llama

    for name, fuse, whole in [("unk", False, False), ("fuse_unk", True, False), ("ignore_merges", True, True)]:
        tokenizer = model(no_bytes, unk_token="<unk>", fuse_unk=fuse, ignore_merges=whole)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
        yield name, tokenizer
    yield "no_unk", model(no_bytes)

    for behavior in ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]:
        for invert in [False, True]:
            tokenizer = model(keep, unk_token="<unk>", byte_fallback=True)
            tokenizer.normalizer = normalizers.Replace(" ", SPACE)
            tokenizer.pre_tokenizer = pre_tokenizers.Split(SPACE, behavior, invert)
            tokenizer.decoder = decoders.ByteFallback()
            yield f"split_{behavior}{'_invert' if invert else ''}", tokenizer

    added = model(keep, unk_token="<unk>", byte_fallback=True)
    added.normalizer = normalizers.Replace(" ", SPACE)
    added.decoder = decoders.Sequence(
        [decoders.Strip(SPACE, 2, 0), decoders.ByteFallback(), decoders.Replace("e", "E")]
    )
    added.add_special_tokens(
        [AddedToken("<|turn>", lstrip=True, normalized=False), AddedToken("<turn|>", rstrip=True, normalized=False)]
    )
    added.add_tokens(
        [
            AddedToken("<table>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("a b", normalized=True),
            AddedToken(SPACE + "c", normalized=True),
            AddedToken("sky", normalized=False),
            AddedToken("skyline", normalized=True, lstrip=True),
            AddedToken("\n", normalized=False),
        ]
    )
    yield "added", added

    # Ordinary merges build the names of tokens that are special, that only look for themselves, and that do neither.
    pieces, chain = dict(keep), []
    for name in ["<eos>", "<|turn>", "<turn|>"]:
        for end in range(2, len(name) + 1):
            pieces.setdefault(name[:end], len(pieces))
            chain.append((name[: end - 1], name[end - 1]))
    built = Tokenizer(models.BPE(vocab=pieces, merges=few + chain, unk_token="<unk>", byte_fallback=True))
    built.normalizer = normalizers.Replace(" ", SPACE)
    built.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    built.add_special_tokens([AddedToken("<|turn>", normalized=False)])
    built.add_tokens([AddedToken("<turn|>", normalized=False)])
    yield "built", built


SMALL_TEXTS = [
    *["", " ", "a b", " a  b ", "the  sky is", "the", "   ", "漢字 and é漢", "漢", "é é"],
    *["<|turn> the <turn|> \n the", "x <table> \n\u3000 y", " <turn|>  <turn|> a", "<table> <table>"],
    *["a <|turn>\n<|turn>", "<turn|>\n\n a", "a bc a b c a  c sky skyline \t skyline"],
    *["<a b>", "a <a b> sky line sky", "sky <eos>sky"],
]
SMALL_PARTS = ["the ", " ", "a", " b", " c", "sky", "line", "<|turn>", "<turn|>", "<table>", "\n", "漢", "é", SPACE, "<eos>"]


def small_texts(rng):
    yield from SMALL_TEXTS
    for _ in range(45):
        yield "".join(rng.choice(SMALL_PARTS) for _ in range(rng.randint(1, 10)))


CONTENTS = ["Hello", "  Why is the sky blue? \n", "", "\n\t x\u00a0\u2003", "\x1c\x1fa\x85\u3000", "two\n\nlines"]
CONTENTS += ["<|turn>user\nhi<turn|>", "日本語 😀", "\u200bx\ufeff"]
REPLIES = [
    "Because.",
    " padded \n",
    "<|channel>thought\nHm, let me see.\n<channel|>The answer is 4.",
    "<|channel>thought\n<channel|>ok",
    "before<|channel>thought\na<channel|> middle <|channel>b<channel|> after ",
    "<|channel>never closed",
    "closed only<channel|> rest",
    "<channel|>",
    "a<|channel>b<|channel>c<channel|>d",
    "",
]


def conversations(rng):
    for content in CONTENTS:
        yield [("user", content)]
        yield [("system", content), ("user", "hi")]
    for reply in REPLIES:
        yield [("user", "q"), ("model", reply)]
        yield [("user", "q"), ("model", reply), ("user", "and then?")]
        yield [("user", "q"), ("model", reply), ("model", " more "), ("user", "go on")]
    yield [("system", "only this")]
    yield [("model", "first")]
    yield [("user", "a"), ("system", " late "), ("user", "b")]
    for _ in range(60):
        turns = []
        for i in range(rng.randint(1, 7)):
            role = rng.choice(["user", "model"] if i else ["system", "user", "user", "model"])
            turns.append((role, rng.choice(REPLIES if role == "model" else CONTENTS)))
        yield turns


def check_transformers_class(vocab, merges, cases):
    """transformers' own Gemma tokenizer builds the pipeline above; only the added tokens come from the checkpoint."""
    theirs = transformers.GemmaTokenizer(vocab=vocab, merges=merges).backend_tokenizer
    ours = json.loads(gemma_pipeline(vocab, merges).to_str())
    for part in ["normalizer", "pre_tokenizer", "decoder", "model"]:
        assert json.loads(theirs.to_str())[part] == ours[part], part
    plain = [case for case in cases if not any(t in case["text"] for t in ["<", "\n", SPACE * 2])]
    assert all(theirs.encode(case["text"], add_special_tokens=False).ids == case["ids"] for case in plain)
    print(f"GemmaTokenizer of transformers gives the same ids for {len(plain)} texts without added tokens")


def chat_cases(rng, tokenizer, template):
    """The reference calls the model's role `assistant`."""
    chat = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")
    open_prompt = "{%- if not enable_thinking | default(false) -%}"
    assert open_prompt in template
    # The form without the empty thought channel: the same template, that one branch never taken.
    variants = {True: template, False: template.replace(open_prompt, "{%- if false -%}")}
    for turns in conversations(rng):
        messages = [{"role": "assistant" if role == "model" else role, "content": content} for role, content in turns]
        for thinking, empty_channel in [(False, True), (False, False), (True, True)]:
            case = {"messages": turns, "thinking": thinking, "empty_thought_channel": empty_channel}
            for key, prompt in [("text", False), ("prompt", True)]:
                case[key] = chat.apply_chat_template(
                    messages,
                    chat_template=variants[empty_channel],
                    tokenize=False,
                    add_generation_prompt=prompt,
                    enable_thinking=thinking,
                )
            case["ids"] = tokenizer.encode(case["prompt"], add_special_tokens=False).ids
            yield case


def write_lines(path, items):
    items = list(items)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for item in items:
            file.write(json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(f"{path}: {len(items)} cases, {path.stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--template", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "data" / "text")
    arguments = parser.parse_args()
    print(f"tokenizers {tokenizers.__version__}, transformers {transformers.__version__}")
    arguments.out.mkdir(parents=True, exist_ok=True)

    vocab, merges = train(random.Random(SEED))
    tokenizer = gemma_pipeline(vocab, merges)
    # One line per file: half the size of the indented form.
    path = arguments.out / "tokenizer.json"
    path.write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
    print(f"{path}: {len(vocab)} pieces, {len(merges)} merges, {path.stat().st_size} bytes")

    cases = []
    for text in dict.fromkeys(texts(random.Random(SEED + 1))):
        cases.append(text_case(tokenizer, text))
        assert tokenizer.encode(text).ids == [vocab["<bos>"]] + cases[-1]["ids"]
    write_lines(arguments.out / "tokenizer_cases.jsonl", cases)
    sequences = id_sequences(random.Random(SEED + 2), tokenizer)
    write_lines(arguments.out / "decode_cases.jsonl", (decode_case(tokenizer, ids) for ids in sequences))

    check_transformers_class(vocab, merges, cases)

    # The second way a checkpoint's file is written: through transformers. Its texts must give the same ids.
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>"
    )
    with tempfile.TemporaryDirectory() as folder:
        wrapped.save_pretrained(folder)
        saved = (pathlib.Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
    again = Tokenizer.from_str(saved)
    assert all(again.encode(case["text"], add_special_tokens=False).ids == case["ids"] for case in cases)
    path = arguments.out / "tokenizer_saved.json"
    path.write_text(saved, encoding="utf-8")
    print(f"{path}: the same, saved by transformers, {path.stat().st_size} bytes")

    small = []
    for name, other in small_tokenizers(vocab, merges):
        texts_of_it = dict.fromkeys(small_texts(random.Random(SEED + 3)))
        runs = [dict(text_case(other, text), full=other.encode(text).ids) for text in texts_of_it]
        small.append({"name": name, "tokenizer": json.loads(other.to_str()), "cases": runs})
    write_lines(arguments.out / "component_cases.jsonl", small)

    template = arguments.template.read_text(encoding="utf-8")
    write_lines(arguments.out / "chat_cases.jsonl", chat_cases(random.Random(SEED + 4), tokenizer, template))


if __name__ == "__main__":
    main()
