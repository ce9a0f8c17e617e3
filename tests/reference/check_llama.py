#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files that `quantize` writes must mean to llama.cpp what they mean here.

  pip install -r requirements_llama.txt      # builds llama.cpp; reference runs want CMAKE_ARGS="-DGGML_NATIVE=ON"
  python3 check_llama.py --examples ../../build/release/examples

`--examples` is the folder of the example programs. A random Gemma 4 model, saved by transformers, is written in every number type:
those that `quantize` cannot write by llama.cpp's own quantizer or by the Python package `gguf`. Those that need a calibration text, or
have no quantizer in either, get random blocks instead: it does not matter which weights a random model has. For each file three sets of logits are compared, of all positions of
a text: ours, llama.cpp's, and what llama.cpp computes from the same weights in f32, which the Python package `gguf` decodes. Distances are
root mean squares of differences, relative to that of the logits. llama.cpp runs with K and V in f32, as ple does.

Then the shipped model's tokens of some 3,000 texts, and how it continues texts greedily in both programs.
"""
import argparse
import ctypes
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np
import torch

import make_golden

PINNED = "0.3.36"
S, F = make_golden.S, make_golden.F
# Widths are multiples of 256, the block of the K types.
SHAPES = {
    "e2b_like": dict(layer_types=[S, S, F, S, S, F], num_kv_shared_layers=3, use_double_wide_mlp=True, hidden_size=256, intermediate_size=512,
                     num_attention_heads=4, num_key_value_heads=1, head_dim=64, global_head_dim=128, hidden_size_per_layer_input=256,
                     sliding_window=16, vocab_size=512, length=64),
    "dense_31b_like": dict(layer_types=[S, S, F], hidden_size_per_layer_input=0, attention_k_eq_v=True, hidden_size=256, intermediate_size=512,
                           num_attention_heads=8, num_key_value_heads=4, num_global_key_value_heads=2, head_dim=32, global_head_dim=64,
                           sliding_window=16, vocab_size=512, length=64, tie_word_embeddings=False, final_logit_softcapping=None),
}
WRITTEN_HERE = ["f32", "bf16", "f16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"]
WRITTEN_THERE = {"iq4_nl": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_NL, "iq4_xs": llama_cpp.LLAMA_FTYPE_MOSTLY_IQ4_XS,
                 "q2_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q2_K, "q3_k": llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_S}
QUANTIZED_BY_PACKAGE = ["tq1_0", "tq2_0", "mxfp4"]
RANDOM = ["iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m", "nvfp4"]
PROMPTS = ["There once lived", "One cold morning a small", "\"Why are you so sad?\" asked"]


class Llama:
    """A file, opened by llama.cpp."""

    def __init__(self, path, context=256):
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self.model:
            sys.exit(f"{path}: llama.cpp does not open it; --verbose shows why")
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = context
        options.n_threads = options.n_threads_batch = 2
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
        self.context = llama_cpp.llama_init_from_model(self.model, options)
        if not self.context:
            sys.exit(f"{path}: llama.cpp makes no context; --verbose shows why")
        self.position = 0

    def read(self, tokens):
        """Logits [tokens, vocabulary]."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, self.position + i, 1, 0, 1
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_batch_free(batch)
        if status != 0:
            sys.exit(f"llama_decode: {status}")
        self.position += len(tokens)
        size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits(self.context), (len(tokens), size)).copy()

    def tokens(self, text):
        data = text.encode()
        room = (llama_cpp.llama_token * (len(data) + 2))()
        count = llama_cpp.llama_tokenize(self.vocabulary, data, len(data), room, len(room), True, True)
        assert count >= 0
        return list(room[:count])

    def piece(self, token):
        room = ctypes.create_string_buffer(64)
        count = llama_cpp.llama_token_to_piece(self.vocabulary, token, room, len(room), 0, False)
        assert count >= 0
        return room.raw[:count]

    def continue_text(self, text, most):
        """The likeliest token again and again; text and number of tokens. Also the smallest lead that a chosen token had."""
        logits, written, lead, said = self.read(self.tokens(text))[-1], 0, math.inf, b""
        while True:
            token = int(logits.argmax())
            if llama_cpp.llama_vocab_is_eog(self.vocabulary, token) or written == most:
                return (text.encode() + said).decode(), written, lead
            lead = min(lead, float(logits[token] - np.partition(logits, -2)[-2]))
            said, written = said + self.piece(token), written + 1
            logits = self.read([token])[-1]

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


def run(*command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {result.stderr}")
    return result.stdout


def requantize(source, target, ftype):
    """By llama.cpp; every matrix that it quantizes at all in the same type."""
    options = llama_cpp.llama_model_quantize_default_params()
    options.nthread, options.ftype, options.pure = 2, ftype, True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(options)) != 0:
        sys.exit(f"{source}: llama.cpp does not quantize it")


def random_blocks(kind, count, size, rng):
    """Bytes of blocks whose values have about the root mean square `size`."""
    blocks = rng.integers(0, 256, (count, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    if kind == gguf.GGMLQuantizationType.NVFP4:  # the 16 values of e2m1, doubled: root mean square 5.9
        blocks[:, :4] = gguf.quants.NVFP4.fp32_to_ue4m3(2 * size / 5.9 * rng.uniform(0.5, 1.5, (count, 4)).astype(np.float32))
        return blocks

    def set_scale(scale):
        bits = np.full(count, scale, "<f2").view("<u2")
        if kind == gguf.GGMLQuantizationType.IQ1_M:  # in the upper halves of four bytes
            blocks[:, 49::2] = blocks[:, 49::2] & 15 | (bits[:, None] >> np.array([0, 4, 8, 12], "<u2") & 15) << 4
        else:
            blocks[:, :2] = bits.view(np.uint8).reshape(count, 2)

    set_scale(1)
    set_scale(size / np.sqrt(np.mean(gguf.quants.dequantize(blocks, kind) ** 2)))
    return blocks


def rewrite(source, target, change):
    """Every tensor as change(data, kind, shape) gives it: data, and the type of the blocks that they are."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        data, kind = change(tensor.data, tensor.tensor_type, [int(n) for n in reversed(tensor.shape)])
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def decode_file(source, target):
    """The same model in f32, as the package gguf decodes it."""
    rewrite(source, target, lambda data, kind, shape: (gguf.quants.dequantize(data, kind).astype(np.float32).reshape(shape), None))


def encode_file(source, target, name, seed):
    """A model in f32 with matrices in another type."""
    to, rng = gguf.GGMLQuantizationType[name.upper()], np.random.default_rng(seed)

    def change(data, kind, shape):
        if len(shape) != 2:
            return data, None
        if name in QUANTIZED_BY_PACKAGE:
            return gguf.quants.quantize(data, to), to
        values = gguf.GGML_QUANT_SIZES[to][0]
        return random_blocks(to, data.size // values, np.sqrt(np.mean(data ** 2)), rng).reshape(shape[0], -1), to

    rewrite(source, target, change)


def types_of(path):
    return sorted({tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(path).tensors if len(tensor.shape) == 2})


def distance(a, b):
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2) / np.mean(b.astype(np.float64) ** 2)))


def our_logits(examples, path, tokens, folder):
    out = folder / "logits.bin"
    run(examples / "logits", path, "--tokens", ",".join(map(str, tokens)), "--out", out, "--threads", 2)
    return np.fromfile(out, "<f4").reshape(len(tokens), -1)


def llama_logits(path, tokens):
    llama = Llama(path)
    logits = llama.read(tokens)
    llama.close()
    return logits


def bounds(layers):
    """How far logits may be from those of f32 arithmetic: a relative error of u in each of the 9 products of a layer, the context's
    projection and the head, and of v in each of the two GELUs of a layer; independent errors add as squares.

    v: llama.cpp takes GELU from a table whose arguments and values are f16, each off by up to 2^-11 of itself, evenly spread.
    u: f32 weights: none. f16 and bf16 weights: it rounds activations to the same type, off by up to 2^-11 or 2^-8. Blocks: activations are
    rounded to steps of 1/127 of a block's largest value, which among 256 that are normal is about 3 times their root mean square.
    """
    v = 2 ** 0.5 * 2 ** -11 / 3 ** 0.5
    u = {"f32": 0, "f16": 2 ** -11 / 3 ** 0.5, "bf16": 2 ** -8 / 3 ** 0.5}
    return lambda name: math.sqrt((9 * layers + 2) * u.get(name, 3 / 127 / 12 ** 0.5) ** 2 + 2 * layers * v ** 2)


def check_types(examples, folder, name, shape, seed):
    model, keys, options = make_golden.build(shape, torch.Generator().manual_seed(seed))
    model.save_pretrained(folder / name)
    tokens = torch.randint(0, keys["vocab_size"], (options["length"],), generator=torch.Generator().manual_seed(seed + 1)).tolist()
    bound, failed = bounds(len(keys["layer_types"])), False
    print(f"\n{name}: {len(keys['layer_types'])} layers, {len(tokens)} tokens\n\n"
          "| type | ple from llama.cpp | llama.cpp from f32 | ple from f32 | bound |\n|---|---|---|---|---|")
    for type_name in WRITTEN_HERE + list(WRITTEN_THERE) + QUANTIZED_BY_PACKAGE + RANDOM:
        path, decoded = folder / f"{name}_{type_name}.gguf", folder / f"{name}_{type_name}_f32.gguf"
        if type_name in WRITTEN_HERE:
            run(examples / "quantize", folder / name, path, "--all", type_name)
            assert types_of(path) == [type_name], types_of(path)
        elif type_name in QUANTIZED_BY_PACKAGE + RANDOM:
            encode_file(folder / f"{name}_f32.gguf", path, type_name, seed)
            assert types_of(path) == [type_name], types_of(path)
        else:
            requantize(folder / f"{name}_f32.gguf", path, WRITTEN_THERE[type_name])
            assert type_name in types_of(path), types_of(path)
        decode_file(path, decoded)
        ours, theirs, exact = our_logits(examples, path, tokens, folder), llama_logits(path, tokens), llama_logits(decoded, tokens)
        apart, there, here = distance(ours, theirs), distance(theirs, exact), distance(ours, exact)
        # `exact` has llama.cpp's GELU, so ours is off by that too.
        right = here <= bound(type_name) and there <= bound(type_name)
        failed = failed or not right
        print(f"| {type_name} | {apart:.1e} | {there:.1e} | {here:.1e} | {bound(type_name):.1e} |{'' if right else ' too far'}", flush=True)
        decoded.unlink()
    return failed


def check_tokens(examples, folder, storyteller, cases):
    """llama.cpp cuts a text at its line breaks, and so finds no token that has one beside something else. It takes it that
    Gemma has none; the shipped model has a few, such as "user" with a line break."""
    path, separator = folder / f"{storyteller.name}.gguf", "<<<SEPARATOR>>>"
    run(examples / "quantize", storyteller, path)
    texts = [json.loads(line)["text"] for line in cases.read_text(encoding="utf-8").split("\n") if line]
    texts = [text for text in texts if text and "\0" not in text]
    (folder / "texts").write_bytes(f"\n{separator}\n".join(texts).encode())
    lines = run(examples / "tokenize", path, f"@{folder / 'texts'}", "--separator", separator).splitlines()
    assert len(lines) == len(texts)
    llama, failed = Llama(path), False
    for name, some in (("without a line break", False), ("with one", True)):
        pairs = [(text, line) for text, line in zip(texts, lines) if ("\n" in text) == some]
        wrong = [(text, line) for text, line in pairs if llama.tokens(text) != list(map(int, line.split()))]
        print(f"\n{len(pairs) - len(wrong)} of {len(pairs)} texts {name} have the same tokens" + "".join(f"\n{text!r}" for text, _ in wrong[:3]))
        failed = failed or (bool(wrong) and not some)
    llama.close()
    return failed


def check_texts(examples, folder, storyteller, most):
    print(f"\n{storyteller.name}: {most} tokens, the likeliest each time\n\n| type | prompt | tokens | smallest lead | same text |\n|---|---|---|---|---|")
    failed = False
    for type_name in ("f32", "bf16", "q8_0", "q4_0"):
        path = folder / f"{storyteller.name}_{type_name}.gguf"
        run(examples / "quantize", storyteller, path, "--all", type_name)
        for prompt in PROMPTS:
            llama = Llama(path)
            tokens = list(map(int, run(examples / "tokenize", path, prompt).split()))
            if tokens != llama.tokens(prompt):
                sys.exit(f"'{prompt}': tokens {tokens}, llama.cpp's are {llama.tokens(prompt)}")
            theirs, count, lead = llama.continue_text(prompt, most)
            llama.close()
            ours = run(examples / "generate", path, "--prompt", prompt, "--temperature", 0, "--max-tokens", most).removesuffix("\n")
            # Only in f32 do both compute the same but for roundings.
            failed = failed or (type_name == "f32" and ours != theirs)
            print(f"| {type_name} | {prompt} | {count} | {lead:.2g} | {'yes' if ours == theirs else 'no'} |", flush=True)
    return failed


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--examples", type=pathlib.Path, required=True)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--tokens", type=int, default=64, help="of a continued text")
    arguments.add_argument("--verbose", action="store_true", help="show what llama.cpp says")
    options = arguments.parse_args()
    if llama_cpp.__version__ != PINNED:
        sys.exit(f"llama-cpp-python is {llama_cpp.__version__}, expected {PINNED}: pip install -r requirements_llama.txt")
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    if not options.verbose:
        llama_cpp.llama_log_set(silent, None)
    llama_cpp.llama_backend_init()
    root = pathlib.Path(__file__).resolve().parents[2]
    storyteller, cases = root / "examples/models/storyteller", root / "tests/data/text/tokenizer_cases.jsonl"
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        failed = [check_types(options.examples, folder, name, shape, options.seed) for name, shape in SHAPES.items()]
        failed.append(check_tokens(options.examples, folder, storyteller, cases))
        failed.append(check_texts(options.examples, folder, storyteller, options.tokens))
    sys.exit("llama.cpp and ple do not agree" if any(failed) else 0)


if __name__ == "__main__":
    main()
