#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares ple with llama.cpp on real weights: which is closer to the file's weights in f32, and how both continue texts greedily.

  pip install -r requirements_llama.txt      # builds llama.cpp; reference runs want CMAKE_ARGS="-DGGML_NATIVE=ON"
  python3 check_gemma3.py FILE --logits ../../build/release/examples/logits     # writes --folder
  python3 check_gemma3_llama.py FILE --examples ../../build/release/examples

ple on the folder, in f32, stands for transformers, which it equals to 4e-6 of the logits' range (check_gemma3.py). K and V are f32 in both.
Distances are over every position of the first --tokens tokens of --text. Fails if ple is further from f32 than llama.cpp is, or if a
greedy text leaves llama.cpp's where its two likeliest tokens are further apart than both engines' errors explain: 3 standard deviations
of the difference of two logits, sqrt(2 (a^2 + b^2)), with a and b the root mean squares of their distances from f32.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp
import numpy as np

PROMPTS = ["The capital of France is", "Once upon a time", "In 1969, the first man", "Water boils at", "The largest planet in the solar system",
           "To make bread, you need", "def fibonacci(n):", "The history of Rome begins", "She opened the door and", "A good book is",
           "The theory of evolution", "My favourite season is", "Photosynthesis is the process", "The stock market", "Der schnellste Weg",
           "Le chat est", "In mathematics, a prime number", "The recipe calls for", "Yesterday I went to", "The internet was invented"]


def log_probabilities(logits):
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("--examples", type=pathlib.Path, required=True, help="the folder of the example programs")
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path(tempfile.gettempdir()) / "gemma3-f32")
    parser.add_argument("--text", type=pathlib.Path, default=pathlib.Path("/usr/share/common-licenses/GPL-3"))
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--length", type=int, default=32, help="tokens that a prompt is continued by")
    arguments = parser.parse_args()
    llama = llama_cpp.Llama(str(arguments.gguf), n_ctx=1024, n_threads=2, verbose=False, type_k=0, type_v=0, logits_all=True)
    tokens = llama.tokenize(arguments.text.read_bytes(), add_bos=True)[:arguments.tokens]

    def ple(path):
        with tempfile.NamedTemporaryFile() as out:
            subprocess.run([arguments.examples / "logits", path, "--tokens", ",".join(map(str, tokens)), "--out", out.name],
                           check=True, stdout=subprocess.DEVNULL)
            return np.fromfile(out.name, "<f4").reshape(len(tokens), -1)

    exact = ple(arguments.folder)
    expected, divergence, error = log_probabilities(exact), {}, {}
    print(f"{len(tokens)} tokens of {arguments.text}; the loss in f32 is {-expected[np.arange(len(tokens) - 1), tokens[1:]].mean():.4f}")
    llama.eval(tokens)
    for name, logits in (("ple", ple(arguments.gguf)), ("llama.cpp", np.array(llama.scores[:len(tokens)], np.float32))):
        found = log_probabilities(logits)
        error[name] = np.sqrt(np.square(logits - exact).mean())
        divergence[name] = (np.exp(expected) * (expected - found)).sum(1).mean()
        print(f"{name}: loss {-found[np.arange(len(tokens) - 1), tokens[1:]].mean():.4f}, KL from f32 {divergence[name]:.5f}, "
              f"root mean square {error[name] / np.sqrt(np.square(exact).mean()):.2%}, "
              f"the same likeliest token in {(logits.argmax(1) == exact.argmax(1)).mean():.1%}")

    explained = 3 * np.sqrt(2 * (error["ple"] ** 2 + error["llama.cpp"] ** 2))
    same, worst = 0, 0.0
    for prompt in PROMPTS:
        llama.reset()
        llama.eval(llama.tokenize(prompt.encode(), add_bos=True))
        chosen, margins = [], []
        while len(chosen) < arguments.length and chosen[-1:] != [llama.token_eos()]:
            logits = llama.scores[llama.n_tokens - 1]
            second, first = np.sort(logits)[-2:]
            chosen.append(int(logits.argmax()))
            margins.append(float(first - second))
            llama.eval(chosen[-1:])
        found = subprocess.run([arguments.examples / "generate", arguments.gguf, "--prompt", prompt, "--temperature", "0",
                                "--max-tokens", str(len(chosen))], check=True, capture_output=True).stdout.removeprefix(prompt.encode())
        # The first token after which our text no longer begins as theirs does.
        parted = next((i for i in range(len(chosen)) if not found.startswith(llama.detokenize(chosen[:i + 1]))), None)
        if parted is None:
            same += 1
            continue
        worst = max(worst, margins[parted])
        print(f"  '{prompt}': other text from token {parted} on, where llama.cpp's two likeliest are {margins[parted]:.3f} apart")
    print(f"{same} of {len(PROMPTS)} continuations of {arguments.length} tokens are equal; the others part where two tokens are at most "
          f"{worst:.3f} apart, the engines' errors explain {explained:.3f}")
    if divergence["ple"] > divergence["llama.cpp"] or worst > explained:
        sys.exit("further from the reference than llama.cpp")


if __name__ == "__main__":
    main()
