#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/dtype: values, their quantised blocks and what the blocks decode to, by the package `gguf`.

  pip install -r requirements.txt
  python3 make_dtype_golden.py

A file: the number of blocks (u32), the values (f32), the blocks, the decoded values (f32).
"""
import pathlib

import gguf
import numpy as np

OUT = pathlib.Path(__file__).parent.parent / "data" / "dtype"
rng = np.random.default_rng(1)


def values(block):
    """Blocks of every magnitude, with zeros, ties and single large values among them."""
    rows = [rng.normal(0, 10.0 ** rng.uniform(-6, 4), block) for _ in range(120)]
    rows += [np.zeros(block), np.full(block, 1.0), np.full(block, -3.5), np.arange(block) - block / 2]
    rows += [np.where(np.arange(block) == i, s * 1000.0, rng.normal(0, 1, block)) for i in (0, block // 2, block - 1) for s in (1, -1)]
    rows += [rng.integers(-127, 128, block) / 127.0 * 127 + rng.choice([0, 0.5], block) for _ in range(8)]
    return np.stack(rows).astype(np.float32)


OUT.mkdir(parents=True, exist_ok=True)
for name in ("Q8_0", "Q4_0"):
    kind = gguf.GGMLQuantizationType[name]
    x = values(32)
    blocks = gguf.quants.quantize(x, kind)
    decoded = gguf.quants.dequantize(blocks, kind).astype(np.float32)
    path = OUT / f"{name.lower()}.bin"
    path.write_bytes(np.uint32(len(x)).tobytes() + x.tobytes() + blocks.tobytes() + decoded.tobytes())
    print(path.name, path.stat().st_size, "bytes,", len(x), "blocks")
