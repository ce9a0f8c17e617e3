#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the perplexity of a text, by examples/evaluate, with llama.cpp's and with transformers', on real weights.

  pip install -r requirements_llama.txt      # builds llama.cpp; reference runs want CMAKE_ARGS="-DGGML_NATIVE=ON"
  apt-get download developers-reference && dpkg-deb -x developers-reference_*.deb . &&
    zcat usr/share/developers-reference/developers-reference.txt.gz > text.txt       # 300 kB of English
  python3 check_perplexity.py FILE text.txt --examples ../../build/release/examples
  python3 check_perplexity.py FILE text.txt --examples ../../build/release/examples --transformers

The definition is that of llama.cpp's program `perplexity`: the text's tokens in windows of 512, each from an empty cache with <bos> in
place of the first token; tokens 257 to 511 of each are scored. K and V are f32 everywhere. With llama.cpp both run FILE, over the whole
text. With transformers both compute in f32 with FILE's weights, decoded by the package `gguf` there and by examples/quantize here, over
the first --windows windows; in plain C++ a window takes a minute or two. Fails if ple and llama.cpp differ by more than 0.5 %, or ple, by vectors or in plain C++, and transformers by
more than 0.05 %.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

WINDOW = 512


def losses(logits, tokens):
    """Of the tokens that are scored; logits[i] follow tokens[i]."""
    first = WINDOW // 2
    logits = logits[first:WINDOW - 1].astype(np.float64)
    largest = logits.max(1, keepdims=True)
    log_sum = largest[:, 0] + np.log(np.exp(logits - largest).sum(1))
    return log_sum - logits[np.arange(len(logits)), tokens[first + 1:]]


def perplexity(name, tokens, logits_of):
    all_losses = []
    for begin in range(0, len(tokens) - WINDOW + 1, WINDOW):
        window = tokens[:1] + tokens[begin + 1:begin + WINDOW]
        all_losses.append(losses(logits_of(window), window))
        print(f"\r{name}: {begin + WINDOW} of {len(tokens)} tokens, perplexity {np.exp(np.concatenate(all_losses).mean()):.4f} ",
              end="", file=sys.stderr)
    print(file=sys.stderr)
    return float(np.exp(np.concatenate(all_losses).mean())), sum(map(len, all_losses))


def evaluate(arguments, model, text, backend):
    out = subprocess.run([arguments.examples / "evaluate", model, text, "--backend", backend], check=True, capture_output=True, text=True)
    return float(re.search(r"^perplexity ([0-9.]+)", out.stdout, re.M)[1])


def differ(name, ours, theirs, most):
    difference = ours / theirs - 1
    print(f"ple {ours:.4f}, {name} {theirs:.4f}: {difference:+.4%}, expected at most {most:.2%}")
    return abs(difference) > most


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--examples", type=pathlib.Path, required=True, help="the folder of the example programs")
    parser.add_argument("--transformers", action="store_true", help="instead of llama.cpp")
    parser.add_argument("--windows", type=int, default=8, help="that transformers computes")
    arguments = parser.parse_args()
    found = subprocess.run([arguments.examples / "tokenize", arguments.gguf, f"@{arguments.text}"], check=True, capture_output=True, text=True)
    tokens = [int(token) for token in found.stdout.split()]
    print(f"{arguments.text}: {arguments.text.stat().st_size} bytes, {len(tokens)} tokens")

    if not arguments.transformers:
        import llama_cpp
        llama = llama_cpp.Llama(str(arguments.gguf), n_ctx=WINDOW, n_batch=WINDOW, n_threads=2, n_threads_batch=2, verbose=False,
                                type_k=0, type_v=0, logits_all=True)
        assert tokens == llama.tokenize(arguments.text.read_bytes(), add_bos=True, special=False)

        def of_llama(window):
            llama.reset()
            llama.eval(window)
            return llama.scores[:WINDOW]

        theirs, scored = perplexity("llama.cpp", tokens, of_llama)
        print(f"{scored} tokens are scored")
        sys.exit(differ("llama.cpp", evaluate(arguments, arguments.gguf, arguments.text, "auto"), theirs, 0.005))

    import torch
    from check_gemma3 import model_of
    model = model_of(arguments.gguf)

    def of_transformers(window):
        with torch.no_grad():
            return model(torch.tensor([window])).logits[0].numpy()

    theirs, scored = perplexity("transformers", tokens[:WINDOW * arguments.windows], of_transformers)
    print(f"{scored} tokens are scored")
    with tempfile.TemporaryDirectory() as folder:
        f32, cut = pathlib.Path(folder) / "f32.gguf", pathlib.Path(folder) / "cut.txt"
        subprocess.run([arguments.examples / "quantize", arguments.gguf, f32, "--all", "f32"], check=True, capture_output=True)
        # So many bytes that there are so many whole windows: what is left is not scored.
        data, size = arguments.text.read_bytes(), 0
        while True:
            size += 100
            cut.write_bytes(data[:size])
            found = subprocess.run([arguments.examples / "tokenize", f32, f"@{cut}"], check=True, capture_output=True, text=True)
            count = len(found.stdout.split())
            if count >= WINDOW * arguments.windows:
                break
            size += 3 * (WINDOW * arguments.windows - count)
        assert [int(t) for t in found.stdout.split()][:WINDOW * arguments.windows] == tokens[:WINDOW * arguments.windows]
        wrong = [differ(f"transformers in f32, {backend}", evaluate(arguments, f32, cut, backend), theirs, 0.0005) for backend in ("auto", "scalar")]
    sys.exit(any(wrong))


if __name__ == "__main__":
    main()
