#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""MatFormer slices of a random Gemma 3n: what `slice` writes must load in transformers, be what a slice is by definition, and give the same
logits as the slice does here.

  python3 check_slice.py --slice ../../build/release/examples/slice --logits ../../build/release/examples/logits

Each slice is computed four times: here, from the whole model's folder and from the written one (the same bits); in transformers, from the written
folder and from the whole model's weights cut here, in Python. Tolerance: 1e-4 of the range of the reference's logits (f32 arithmetic on the
stored weights), and bit for bit between the two of transformers. For bf16 weights that is the scalar backend's; the best one, which on CPUs
that multiply bf16 rounds activations, may be as far away as the reference in bf16.
"""
import argparse
import copy
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from transformers import AutoModelForCausalLM, Gemma3nForCausalLM

import make_golden
import make_golden_gemma3n
from make_golden import pattern

# E4B in miniature: 35 layers, the last 15 shared, 10 sparse; widths that stand for 8192 and 16384.
NARROW, WIDE, LAYERS = 64, 128, 35
SHAPE = dict(layer_types=pattern(LAYERS, 5), num_kv_shared_layers=15, vocab_size=140, vocab_size_per_layer_input=110, sparsity=[0.9] * 10,
             intermediate_size=WIDE, length=60)
BLOCK = [20, 21, 22, 23, 24]
# name -> layers to skip, width of each layer that is left
SLICES = {
    "as e2b": (BLOCK, [NARROW] * 30),
    "as e1.96b": (BLOCK, [NARROW] * 4 + [WIDE] + [NARROW] * 25),
    "as e2.54b": ([], [WIDE if layer in [4] + BLOCK else NARROW for layer in range(LAYERS)]),
    "odd": ([0, 3, 9, 12, 30, 34], [17 + 3 * layer for layer in range(29)]),
    "none shared": (list(range(20, LAYERS)), [WIDE] * 20),
}


def cut(model, skip, widths, dtype):
    """The slice by its definition."""
    config = copy.deepcopy(model.config)
    kept = [layer for layer in range(config.num_hidden_layers) if layer not in skip]
    layers, p = config.num_hidden_layers, config.hidden_size_per_layer_input
    config.num_kv_shared_layers -= sum(layer >= layers - config.num_kv_shared_layers for layer in skip)
    config.num_hidden_layers = len(kept)
    config.intermediate_size = widths
    config.layer_types = [config.layer_types[layer] for layer in kept]
    config.activation_sparsity_pattern = [config.activation_sparsity_pattern[layer] for layer in kept]
    small = Gemma3nForCausalLM(config)
    weights = {}
    for name, w in model.state_dict().items():
        if ".layers." in name:
            head, tail = name.split(".layers.")
            layer, tail = tail.split(".", 1)
            if int(layer) in skip:
                continue
            new = kept.index(int(layer))
            name = f"{head}.layers.{new}.{tail}"
            if "gate_proj" in name or "up_proj" in name:
                w = w[:widths[new]]
            elif "down_proj" in name:
                w = w[:, :widths[new]]
        elif "per_layer_model_projection" in name:
            w = w.reshape(layers, p, -1)[kept].flatten(0, 1)
        elif "embed_tokens_per_layer" in name:
            w = w.reshape(-1, layers, p)[:, kept].flatten(1, 2)
        weights[name] = w
    small.load_state_dict(weights)
    if dtype:
        make_golden.round_to(small, dtype)
    return small.eval()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--slice", required=True)
    arguments.add_argument("--logits", required=True)
    arguments.add_argument("--seed", type=int, default=1)
    a = arguments.parse_args()
    for dtype, shards, published in ((None, False, False), ("bfloat16", True, False), (None, False, True)):
        model, keys, _ = make_golden_gemma3n.build(SHAPE, torch.Generator().manual_seed(a.seed))
        with torch.no_grad():  # else rounding grows through 35 random layers until the reference itself is off by 1e-3
            for layer in model.model.layers:
                layer.altup.prediction_coefs.weight.mul_(0.25)
                layer.altup.correction_coefs.weight.mul_(0.25)
        if dtype:
            make_golden.round_to(model, dtype)
        tokens = torch.randint(0, keys["vocab_size"], (1, SHAPE["length"]), generator=torch.Generator().manual_seed(a.seed))
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary) / "whole"
            model.save_pretrained(folder, **({"max_shard_size": "200KB"} if shards else {}))
            if published:
                make_golden_gemma3n.in_published_style(folder)
            for number, (name, (skip, widths)) in enumerate(SLICES.items()):
                out = pathlib.Path(temporary) / str(number)
                options = ["--width", ",".join(map(str, widths))] + (["--skip", ",".join(map(str, skip))] if skip else [])
                subprocess.run([a.slice, folder, out, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

                def ours(path, *more):
                    file = pathlib.Path(temporary) / "logits.bin"
                    subprocess.run([a.logits, path, "--tokens", ",".join(map(str, tokens[0].tolist())), "--out", file, "--chunk", "7", *more],
                                   check=True, stdout=subprocess.DEVNULL)
                    return np.fromfile(file, "<f4").reshape(tokens.shape[1], -1)

                small = cut(model, skip, widths, dtype)
                low = make_golden.run(small, tokens)[0].float().numpy() if dtype else None
                reference = make_golden.run(small.float(), tokens)[0].numpy()
                direct, written = ours(folder, *options), ours(out)
                off = make_golden.off_by(ours(folder, *options, "--backend", "scalar") if dtype else direct, reference)
                rounded = "" if low is None else (f", {make_golden.off_by(direct, reference):.1e} with activations in bf16, "
                                                  f"transformers in bf16 by {make_golden.off_by(low, reference):.1e}")
                if published:  # what the file holds beside the text model is made up here, so transformers has no class for it
                    config = json.loads((out / "config.json").read_text())["text_config"]
                    loaded = config["num_hidden_layers"] == len(widths) and config["intermediate_size"] == widths
                else:
                    again, info = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager",
                                                                       output_loading_info=True)
                    if dtype:
                        make_golden.round_to(again, dtype)
                    loaded = not any(info.values()) and np.array_equal(make_golden.run(again.eval().float(), tokens)[0].numpy(), reference)
                whole = make_golden.run(copy.deepcopy(model).float(), tokens)[0].numpy()
                moved = make_golden.off_by(whole, reference)
                print(f"{dtype or 'float32'}{', shards' if shards else ''}{', as published' if published else ''}: {name}: {len(widths)} layers: "
                      f"off by {off:.1e} of the range{rounded} (the whole model is {moved:.2f} away)", flush=True)
                close = off <= 1e-4 and (low is None or make_golden.rounds_as_the_reference(direct, reference, low))
                if not (close and loaded and np.array_equal(direct, written)):
                    sys.exit(f"differs: loaded by transformers: {loaded}, written as direct: {np.array_equal(direct, written)}")
    print("all slices agree")


if __name__ == "__main__":
    main()
