#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tokenizers of real GGUF files must give the tokens that llama.cpp's own tests expect.

  python3 check_gguf_tokenizer.py --tokenize ../../build/release/examples/tokenize

`tokenize` is the example program. The vocabularies, Gemma 4's and a SentencePiece one, and texts with their tokens lie in
the source package of llama-cpp-python, which pip fetches (77 MB); other texts for Gemma 4 can be given instead. A file of
texts has a line `__ggml_vocab_test__` between two of them, a file of tokens one line of numbers for each text.
"""
import argparse
import pathlib
import subprocess
import sys
import tarfile
import tempfile

PACKAGE = "llama-cpp-python==0.3.36"
SEPARATOR = "__ggml_vocab_test__"


def fetch(folder):
    """Downloads the package's source and unpacks what is needed; the folder it lies in."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps", "--dest", folder, PACKAGE],
                   check=True)
    archive, = folder.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if pathlib.PurePosixPath(member.name).name.startswith("ggml-vocab-") and member.isfile():
                (folder / pathlib.PurePosixPath(member.name).name).write_bytes(tar.extractfile(member).read())
    return folder


def check(tokenize, vocabulary, texts, tokens):
    """Number of texts whose tokens differ; prints them."""
    lines = subprocess.run([tokenize, vocabulary, f"@{texts}", "--bare", "--separator", SEPARATOR], check=True, capture_output=True,
                           text=True).stdout.splitlines()
    expected = [line.split() for line in tokens.read_text(encoding="utf-8").splitlines()]
    # A separator at the end of the file ends the last text, and begins none.
    if texts.read_bytes().endswith(f"\n{SEPARATOR}\n".encode()):
        lines.pop()
    found = [line.split() for line in lines]
    if len(found) != len(expected) or not expected:
        sys.exit(f"{vocabulary.name}: {len(found)} texts, but tokens of {len(expected)}")
    wrong = [i for i, (a, b) in enumerate(zip(found, expected)) if a != b]
    for i in wrong:
        print(f"{vocabulary.name}: text {i}: {' '.join(found[i])}, expected {' '.join(expected[i])}")
    print(f"{vocabulary.name}: {len(expected) - len(wrong)} of {len(expected)} texts equal")
    return len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenize", required=True, help="the example program")
    parser.add_argument("--package", type=pathlib.Path, help="a folder with ggml-vocab-*.gguf and their cases, instead of a download")
    parser.add_argument("--texts", type=pathlib.Path, help="texts for Gemma 4 (default: the package's)")
    parser.add_argument("--tokens", type=pathlib.Path, help="their tokens")
    options = parser.parse_args()
    if (options.texts is None) != (options.tokens is None):
        parser.error("--texts and --tokens belong together")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.package or fetch(pathlib.Path(temporary))
        wrong = 0
        for name in ["gemma-4", "llama-spm"]:
            vocabulary = folder / f"ggml-vocab-{name}.gguf"
            texts, tokens = folder / f"{vocabulary.name}.inp", folder / f"{vocabulary.name}.out"
            if name == "gemma-4" and options.texts:
                texts, tokens = options.texts, options.tokens
            wrong += check(options.tokenize, vocabulary, texts, tokens)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
