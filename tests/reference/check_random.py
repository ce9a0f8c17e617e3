#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Models of random shapes, saved by transformers with save_pretrained, must give the same logits here.

  python3 check_random.py --logits ../../build/release/examples/logits --count 20 --seed 1

`logits` is the example program. Tolerance: 1e-4 of the range of the reference's logits (f32 arithmetic on the stored weights); for bf16
weights and the best backend, which rounds activations to bf16 on CPUs that multiply these, the distance of the reference in bf16.
"""
import argparse
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch

import make_golden


def draw_shape(rng):
    """Numbers of a model that none of the golden ones has."""
    heads = rng.choice([1, 2, 3, 4, 5, 6, 8])
    kv = rng.choice([k for k in range(1, heads + 1) if heads % k == 0])
    full_kv = rng.choice([k for k in range(1, heads + 1) if heads % k == 0])
    layers = rng.randint(2, 9)
    types = [rng.choice([make_golden.S, make_golden.F]) for _ in range(layers - 1)] + [make_golden.F]
    k_eq_v = rng.random() < 0.3
    shape = dict(
        hidden_size=rng.randint(9, 70), intermediate_size=rng.randint(5, 120), num_attention_heads=heads, num_key_value_heads=kv,
        head_dim=2 * rng.randint(2, 12), global_head_dim=2 * rng.randint(4, 20), hidden_size_per_layer_input=rng.choice([3, 4, 8, 13, 16]),
        sliding_window=rng.choice([1, 2, 5, 16, 33, 200]), vocab_size=rng.randint(20, 500), use_double_wide_mlp=rng.random() < 0.5,
        attention_k_eq_v=k_eq_v, layer_types=types, final_logit_softcapping=rng.choice([None, 15.0, 30.0]),
        tie_word_embeddings=rng.random() < 0.8, length=rng.randint(2, 90), num_kv_shared_layers=0,
        dtype=rng.choice([None, None, "bfloat16", "float16"]), shards=rng.random() < 0.2, nested=rng.random() < 0.3)
    if k_eq_v:
        shape["num_global_key_value_heads"] = full_kv
    # Share as many layers as leave one of each type that is shared.
    most = max(n for n in range(layers) if set(types) == set(types[:layers - n]) or n == 0)
    shape["num_kv_shared_layers"] = rng.randint(0, most)
    if rng.random() < 0.2:
        shape["hidden_size_per_layer_input"] = 0
    return shape


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--logits", required=True)
    arguments.add_argument("--count", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=1)
    a = arguments.parse_args()
    rng = random.Random(a.seed)
    for number in range(a.count):
        shape = draw_shape(rng)
        model, keys, options = make_golden.build(shape, torch.Generator().manual_seed(rng.randrange(1 << 30)))
        tokens = torch.randint(0, keys["vocab_size"], (1, options["length"]), generator=torch.Generator().manual_seed(number))
        if options["dtype"]:
            make_golden.round_to(model, options["dtype"])
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder, **({"max_shard_size": "60KB"} if options["shards"] else {}))
            low = make_golden.run(model, tokens)[0].float().numpy() if options["dtype"] == "bfloat16" else None
            expected = make_golden.run(model.float(), tokens)[0].numpy()
            worst, good = 0.0, True
            for chunk, threads, backend in ((0, 1, "auto"), (1, 2, "auto"), (3, 1, "scalar"), (7, 2, "auto"), (64, 2, "auto")):
                out = pathlib.Path(folder) / "logits.bin"
                subprocess.run([a.logits, folder, "--tokens", ",".join(map(str, tokens[0].tolist())), "--out", str(out), "--chunk", str(chunk),
                                "--threads", str(threads), "--backend", backend], check=True, stdout=subprocess.DEVNULL)
                found = np.fromfile(out, "<f4").reshape(expected.shape)
                off = make_golden.off_by(found, expected)
                rounds = low is not None and backend == "auto"
                good &= make_golden.rounds_as_the_reference(found, expected, low) if rounds else off <= 1e-4
                worst = max(worst, off)
        print(f"{number + 1}/{a.count}: {len(keys['layer_types'])} layers, {options['length']} tokens, {options['dtype'] or 'float32'}: "
              f"off by {worst:.1e} of the range", flush=True)
        if not good:
            sys.exit(f"too far: {shape}")
    print(f"{a.count} models agree")


if __name__ == "__main__":
    main()
