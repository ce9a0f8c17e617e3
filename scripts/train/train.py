#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the small model in examples/models/storyteller from nothing, and the same model without PLE beside it.

  pip install -r requirements.txt
  python3 train.py --out ../../examples/models/storyteller          # everything, from scratch
  python3 train.py --out /tmp/x --steps 100                         # a quick look

The text comes from story_grammar.py. Everything is seeded; the numbers in training.json and README.md are written here.
"""
import argparse
import json
import math
import multiprocessing
import pathlib
import random
import time

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Gemma4ForCausalLM, Gemma4TextConfig, GenerationConfig, PreTrainedTokenizerFast

import story_grammar

VOCAB, CONTEXT, BATCH, SEED = 1024, 256, 8, 7
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>"]
CHAT_TEMPLATE = """{{ bos_token }}{% for message in messages %}<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{{ message['content'] | trim }}<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>model
{% endif %}"""


def train_tokenizer(texts):
    """BPE in Gemma's form: spaces become U+2581, unknown characters their bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    # Merges are learned inside words; once learned, the text is not cut before merging, as in Gemma.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL + [f"<0x{b:02X}>" for b in range(256)], show_progress=False)
    plain = (t.replace("<|turn>", "").replace("<turn|>", "").replace("<eos>", "") for t in texts)
    tokenizer.train_from_iterator(plain, trainer)
    saved = json.loads(tokenizer.to_str())
    saved["pre_tokenizer"] = None
    saved["model"]["ignore_merges"] = False
    saved["added_tokens"] = [t for t in saved["added_tokens"] if t["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(saved))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", SPECIAL.index("<bos>"))])
    assert tokenizer.get_vocab_size() == VOCAB, tokenizer.get_vocab_size()
    return tokenizer


def config(p):
    """Both attention types, a shared tail that is double wide; p = 0 leaves the per-layer embeddings away."""
    s, f = "sliding_attention", "full_attention"
    return Gemma4TextConfig(
        vocab_size=VOCAB, vocab_size_per_layer_input=VOCAB, hidden_size=128, intermediate_size=256, num_hidden_layers=8,
        layer_types=[s, s, s, f, s, s, s, f], num_attention_heads=4, num_key_value_heads=1, head_dim=32, global_head_dim=64,
        num_kv_shared_layers=4, use_double_wide_mlp=True, hidden_size_per_layer_input=p, sliding_window=48,
        max_position_embeddings=1024, final_logit_softcapping=30.0, tie_word_embeddings=True, attn_implementation="sdpa",
        pad_token_id=0, eos_token_id=1, bos_token_id=2, initializer_range=0.05)


def encode(tokenizer, texts):
    return [tokenizer.encode(t).ids[:CONTEXT] for t in texts]


def batches(ids, rng):
    """Documents of similar length together, padded; the order is drawn."""
    order = sorted(range(len(ids)), key=lambda i: (len(ids[i]), i))
    groups = [order[i:i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)]
    rng.shuffle(groups)
    for group in groups:
        width = max(len(ids[i]) for i in group)
        x = torch.zeros(BATCH, width, dtype=torch.long)
        for row, i in enumerate(group):
            x[row, :len(ids[i])] = torch.tensor(ids[i])
        yield x


def loss_of(model, x):
    """Mean over the tokens that are no padding, and their number. Padding stands at the end: no text sees it."""
    # transformers 5.23 fails on shared layers without PLE unless the positions to keep are a tensor.
    logits = model(input_ids=x, use_cache=False, logits_to_keep=torch.arange(x.shape[1] - 1)).logits.float()
    target = x[:, 1:].masked_fill(x[:, 1:] == 0, -100)
    return torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), target.reshape(-1), ignore_index=-100), int((target >= 0).sum())


@torch.no_grad()
def held_out_loss(model, ids):
    model.eval()
    total = count = 0
    for x in batches(ids, random.Random(0)):
        loss, n = loss_of(model, x)
        total, count = total + float(loss) * n, count + n
    model.train()
    return total / count


def train(name, p, train_ids, held_out_ids, steps, rate=2.5e-3):
    torch.manual_seed(SEED)
    model = Gemma4ForCausalLM(config(p))
    count = sum(w.numel() for w in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 100, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, s / steps)))))
    rng, start, seen, step, running = random.Random(SEED), time.time(), 0, 0, None
    while step < steps:
        for x in batches(train_ids, rng):
            loss, n = loss_of(model, x)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            seen, step = seen + n, step + 1
            running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
            if step % 50 == 0 or step == steps:
                seconds = time.time() - start
                print(f"{name}: step {step}/{steps}  loss {running:.4f}  {seen / seconds:.0f} tokens/s  "
                      f"{seconds * (steps - step) / step:.0f} s left", flush=True)
            if step == steps:
                break
    # What ships, and so what is measured, is rounded to bf16.
    rounded = model.to(torch.bfloat16).float()
    return rounded.state_dict(), {"parameters": count, "ple_table_parameters": VOCAB * 8 * p, "steps": steps, "tokens_seen": seen,
                     "seconds": round(time.time() - start), "held_out_loss": round(held_out_loss(rounded, held_out_ids), 4)}


def sample(model, tokenizer, question, seed):
    torch.manual_seed(seed)
    ids = torch.tensor([tokenizer.encode(f"<|turn>user\n{question}<turn|>\n<|turn>model\n").ids])
    out = model.generate(ids, max_new_tokens=260, do_sample=True, temperature=0.7, top_k=40, eos_token_id=[1, 5], pad_token_id=0)
    return tokenizer.decode(out[0, ids.shape[1]:].tolist()).strip()


def save(model, tokenizer, out):
    model.generation_config = GenerationConfig(bos_token_id=2, eos_token_id=[1, 5], pad_token_id=0, do_sample=True, temperature=0.7, top_k=40)
    model.to(torch.bfloat16).save_pretrained(out)
    model.float()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
                            chat_template=CHAT_TEMPLATE).save_pretrained(out)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=pathlib.Path, required=True)
    arguments.add_argument("--steps", type=int, default=3000)
    arguments.add_argument("--threads", type=int, default=1)
    a = arguments.parse_args()
    torch.set_num_threads(a.threads)
    train_texts, held_out = story_grammar.documents(24000, 1), story_grammar.documents(800, 2)
    known = set(train_texts)
    held_out = [t for t in held_out if t not in known]
    tokenizer = train_tokenizer(train_texts[:6000])
    train_ids, held_out_ids = encode(tokenizer, train_texts), encode(tokenizer, held_out)
    print(f"{len(train_texts)} texts, {sum(map(len, train_ids))} tokens; {len(held_out)} held out, none of them among the first", flush=True)

    # Both models at once, a process each.
    with multiprocessing.get_context("spawn").Pool(2, torch.set_num_threads, (a.threads,)) as pool:
        runs = [pool.apply_async(train, (name, p, train_ids, held_out_ids, a.steps)) for name, p in (("with PLE", 32), ("without PLE", 0))]
        (weights, with_ple), (_, without) = [run.get() for run in runs]
    model = Gemma4ForCausalLM(config(32))
    model.load_state_dict(weights)
    a.out.mkdir(parents=True, exist_ok=True)
    save(model, tokenizer, a.out)
    questions = ["Tell me a story about a fox named Pip.", "Can you tell me a story about an owl who wants a lantern?", "Who are you?"]
    samples = [(q, sample(model, tokenizer, q, i)) for i, q in enumerate(questions)]
    for q, text in samples:
        print(f"> {q}\n{text}\n", flush=True)
    record = {"with_ple": with_ple, "without_ple": without, "held_out_texts": len(held_out), "train_texts": len(train_texts),
              "seed": SEED, "torch": torch.__version__, "transformers": transformers.__version__}
    (a.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    (a.out / "README.md").write_text(
        "# storyteller\n\nGemma 4's architecture in miniature, trained from nothing by `scripts/train/train.py` on stories that "
        "`scripts/train/story_grammar.py` writes.\n\n"
        "| | held-out loss (nats per token) | parameters | of them PLE table |\n|---|---|---|---|\n"
        + "".join(f"| {name} | {r['held_out_loss']:.4f} | {r['parameters']:,} | {r['ple_table_parameters']:,} |\n"
                  for name, r in (("with PLE (this model, rounded to bf16)", with_ple), ("the same without PLE", without)))
        + f"\n{with_ple['steps']} steps, {with_ple['tokens_seen']:,} tokens, {with_ple['seconds']} s on {a.threads} CPU thread(s); "
        f"held out: {len(held_out)} texts that are not among the {len(train_texts)} trained on.\n\n## Samples\n\n"
        + "\n\n".join(f"> {q}\n\n{text}" for q, text in samples) + "\n")


if __name__ == "__main__":
    main()
