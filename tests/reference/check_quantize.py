#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares examples/quantize with llama.cpp's quantiser, type by type, on real weights: how far what they write is from the f32 model.

  pip install -r requirements_llama.txt
  python3 check_quantize.py FILE text.txt --examples ../../build/release/examples       # the text of check_perplexity.py

FILE's weights are decoded to f32 first. For each type llama.cpp writes a file of that type alone ('pure'), without an importance matrix;
where rows are no whole blocks of a type it takes another. Then examples/quantize writes every tensor in the type that llama.cpp chose for
it, so that both files have the same size. examples/evaluate reads the first --bytes of the text with all of them: what is compared is the
KL divergence from the f32 model. With --speed, bench_throughput measures our file. Prints a table; fails if a file of ours is further from the f32 model than llama.cpp's by more than 2
standard errors of the difference, taken as if the two were independent.
"""
import argparse
import ctypes
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import gguf
import llama_cpp

TYPES = ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")  # that examples/quantize writes
FILE_TYPES = {"Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}  # llama.cpp's names of files where they are not the type's; as 'pure', they hold it alone


def run(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def embedding_width(path):
    return next(int(tensor.shape[0]) for tensor in gguf.GGUFReader(path).tensors if tensor.name == "token_embd.weight")


def write_llama(source, out, name):
    params = llama_cpp.llama_model_quantize_default_params()
    file_type = FILE_TYPES.get(name, name)
    params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + file_type)
    kind = gguf.GGMLQuantizationType[name]
    if embedding_width(source) % gguf.GGML_QUANT_SIZES[kind][0] == 0:  # llama.cpp aborts otherwise
        params.token_embedding_type = params.output_tensor_type = kind.value
    params.pure, params.nthread = True, 2
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params)) != 0:
        raise SystemExit(f"llama.cpp did not write {name}")


def types_of(path):
    return {tensor.name: tensor.tensor_type.name.lower() for tensor in gguf.GGUFReader(path).tensors if len(tensor.shape) == 2}


def speeds_of(path, examples):
    """ple's tokens per second of a prompt of 512 and of decoding, medians of 5."""
    out = json.loads(run(examples.parent / "bench/bench_throughput", path, "--repeat", 5, "--json"))
    return out["prompt_tokens_per_second"], out["decode_tokens_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--examples", type=pathlib.Path, required=True, help="the folder of the example programs")
    parser.add_argument("--bytes", type=int, default=40000, help="of the text (default: 40000)")
    parser.add_argument("--speed", action="store_true", help="ple's, too")
    parser.add_argument("--types", default=",".join(TYPES).lower(), help="default: all")
    arguments = parser.parse_args()
    ignore = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(ignore, ctypes.c_void_p(0))

    worse = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        f32, text, saved = folder / "f32.gguf", folder / "text.txt", folder / "predictions"
        text.write_bytes(arguments.text.read_bytes()[:arguments.bytes])
        run(arguments.examples / "quantize", arguments.gguf, f32, "--all", "f32")
        out = run(arguments.examples / "evaluate", f32, text, "--save", saved)
        print(re.search(r".* scored: .*", out)[0])
        print(f"f32: perplexity {re.search(r'perplexity ([0-9.]+ .. [0-9.]+)', out)[1]}\n")
        speed_of = (f" {'tokens/s':>18}", f" {'prompt':>8} {'decode':>9}") if arguments.speed else ("", "")
        print(f"{'type':8} {'MB':>7} {'perplexity':>22} {'KL, 1e-3 nats':>29} {'same top':>17}{speed_of[0]}   other types in it")
        print(f"{'':8} {'':7} {'ple':>11} {'llama.cpp':>10} {'ple':>14} {'llama.cpp':>14} {'ple':>8} {'llama.cpp':>8}{speed_of[1]}")
        for name in arguments.types.upper().split(","):
            files = {"ple": folder / "ple.gguf", "llama.cpp": folder / "llama.gguf"}
            write_llama(f32, files["llama.cpp"], name)
            types = types_of(files["llama.cpp"])
            run(arguments.examples / "quantize", f32, files["ple"], *(word for tensor, dtype in types.items() for word in ("--tensor", f"{tensor}={dtype}")))
            assert types_of(files["ple"]) == types
            found = {}
            for engine, path in files.items():
                out = run(arguments.examples / "evaluate", path, text, "--against", saved)
                found[engine] = [float(number) for number in (re.search(r"^perplexity ([0-9.]+)", out, re.M)[1],
                                                              *re.search(r"^KL ([-+.0-9e]+) .. ([-+.0-9e]+)", out, re.M).groups(),
                                                              re.search(r"likeliest token: ([0-9.]+)", out)[1])]
            (p, kl, error, top), (their_p, their_kl, their_error, their_top) = found["ple"], found["llama.cpp"]
            bad = kl - their_kl > 2 * (error**2 + their_error**2) ** 0.5
            if bad:
                worse.append(name.lower())
            speeds = ""
            if arguments.speed:
                speeds = " {:8.0f} {:9.1f}".format(*speeds_of(files["ple"], arguments.examples))
            others = sorted(set(types.values()) - {name.lower()})
            print(f"{name.lower():8} {files['ple'].stat().st_size / 1e6:7.1f} {p:11.3f} {their_p:10.3f} {kl * 1e3:7.2f} ± {error * 1e3:4.2f}"
                  f" {their_kl * 1e3:7.2f} ± {their_error * 1e3:4.2f} {top:7.1f}% {their_top:7.1f}%{speeds}   {', '.join(others)}" + ("  <-- worse" if bad else ""), flush=True)
    if worse:
        sys.exit(f"further from f32 than llama.cpp's: {', '.join(worse)}")


if __name__ == "__main__":
    main()
