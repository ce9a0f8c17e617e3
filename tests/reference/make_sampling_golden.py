# SPDX-License-Identifier: Apache-2.0
"""Makes tests/data/sampling/cases.jsonl: what transformers' logits processors make of made-up logits, bit by bit.

    python3 tests/reference/make_sampling_golden.py [--out tests/data/sampling]

Each case has `options` (words of GenerationConfig), `logits` and `history`, the `scores` after the processors that
greedy decoding applies too, the `greedy` token, and `kept`, the tokens that can be drawn after temperature, top-k,
top-p and min-p. Numbers of logits and scores are the bits of an f32.

Made with transformers 5.24.0, torch 2.13.0, Python 3.11. Seeded: the same versions give the same file.
"""

import argparse
import json
import pathlib
import types

import torch
import transformers
from transformers import GenerationConfig
from transformers.generation.utils import GenerationMixin

SEED = 20262
VOCAB = 60

GREEDY = [
    {},
    {"repetition_penalty": 1.1},
    {"repetition_penalty": 0.7},
    {"repetition_penalty": 3.0},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"no_repeat_ngram_size": 40},
    {"suppress_tokens": [0, 7, 59]},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "suppress_tokens": [1, 2, 3, 4, 5]},
]
SAMPLED = [
    {"temperature": 0.5, "top_k": 5},
    {"temperature": 1.5, "top_k": 0, "top_p": 0.8},
    {"temperature": 1.0, "top_k": 0, "top_p": 0.0},
    {"temperature": 1.0, "top_k": 0, "min_p": 0.1},
    {"temperature": 1.2, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
]


def bits(values):
    return values.to(torch.float32).view(torch.int32).tolist()


def processed(options, sample, history, logits):
    config = GenerationConfig(**options, do_sample=sample)
    config._eos_token_tensor = None
    model = GenerationMixin()
    model.config = types.SimpleNamespace(is_encoder_decoder=False)
    processors = model._get_logits_processor(config, input_ids_seq_length=history.shape[1])
    return processors(history, logits.clone())


def cases():
    torch.manual_seed(SEED)
    for greedy in GREEDY:
        for sampled in SAMPLED:
            logits = torch.randn(1, VOCAB) * 3
            logits[0, torch.randint(VOCAB, (3,))] = torch.tensor([0.0, -0.0, 1e-30])
            # Few tokens, so that n-grams come again, and now and then those that are likeliest.
            history = torch.randint(8, (1, int(torch.randint(1, 30, ())))) + 50 * torch.randint(2, (1, 1))
            history[0, -1] = int(logits.argmax()) if torch.rand(()) < 0.3 else history[0, -1]
            scores = processed(greedy, False, history, logits)
            kept = processed(greedy | sampled, True, history, logits)
            yield {
                "options": greedy | sampled,
                "logits": bits(logits[0]),
                "history": history[0].tolist(),
                "scores": bits(scores[0]),
                "greedy": int(scores.argmax()),
                "kept": torch.nonzero(torch.isfinite(kept[0])).flatten().tolist(),
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = pathlib.Path(__file__).parent.parent / "data" / "sampling"
    parser.add_argument("--out", type=pathlib.Path, default=default)
    arguments = parser.parse_args()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "cases.jsonl"
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for case in cases():
            file.write(json.dumps(case, separators=(",", ":")) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
