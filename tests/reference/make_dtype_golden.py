#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/data/dtype: values, their quantised blocks and what the blocks decode to, by the package `gguf`.

  pip install -r requirements.txt
  python3 make_dtype_golden.py

A file: the number of blocks (u32), the values (f32; none where the package only decodes), the blocks, the decoded values (f32).
"""
import pathlib

import gguf
import numpy as np

OUT = pathlib.Path(__file__).parent.parent / "data" / "dtype"
rng = np.random.default_rng(1)


def values(block):
    """Blocks of every magnitude, with zeros, ties and single large values among them."""
    rows = [rng.normal(0, 10.0 ** rng.uniform(-6, 4), block) for _ in range(24)]
    rows += [np.zeros(block), np.full(block, 1.0), np.full(block, -3.5), np.arange(block) - block / 2]
    rows += [np.where(np.arange(block) == i, s * 1000.0, rng.normal(0, 1, block)) for i in (0, block // 2, block - 1) for s in (1, -1)]
    rows += [rng.integers(-127, 128, block) / 127.0 * 127 + rng.choice([0, 0.5], block) for _ in range(8)]
    return np.stack(rows).astype(np.float32)


def fused(block, most, per_scale, centre):
    """Blocks of one large value and others that round to another integer if a product and a sum are rounded at once."""
    rows = []
    while len(rows) < 6:
        extreme = np.float32(rng.normal(0, 3))
        x = (rng.uniform(-1, 1, 200000) * extreme).astype(np.float32)
        inverse = np.float32(1) / (extreme / np.float32(per_scale))
        apart = np.trunc(x * inverse + np.float32(centre))
        at_once = np.trunc((x.astype(np.float64) * np.float64(inverse) + centre).astype(np.float32))
        x = x[(apart != at_once) & (np.minimum(apart, at_once) < most)][: block - 1]
        if len(x) > 0:
            rows.append(np.concatenate([[extreme], x, np.zeros(block - 1 - len(x))]))
    return np.stack(rows).astype(np.float32)


def fused_range(block, most):
    """As above, for the types that have a minimum."""
    rows = []
    while len(rows) < 6:
        least, largest = np.sort(rng.normal(0, 3, 2)).astype(np.float32)
        x = rng.uniform(least, largest, 200000).astype(np.float32)
        inverse = np.float32(1) / ((largest - least) / np.float32(most))
        apart = np.trunc((x - least) * inverse + np.float32(0.5))
        at_once = np.trunc(((x - least).astype(np.float64) * np.float64(inverse) + 0.5).astype(np.float32))
        x = x[apart != at_once][: block - 2]
        if len(x) > 0:
            rows.append(np.concatenate([[least, largest], x, np.full(block - 2 - len(x), least)]))
    return np.stack(rows).astype(np.float32)


def random_blocks(count, size, halves):
    """Blocks of random bytes with finite f16 of every magnitude at the offsets `halves`, the extreme ones among them."""
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    extremes = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF]
    for k, offset in enumerate(halves):
        bits = rng.integers(0, 0x7C00, count) | rng.integers(0, 2, count) << 15
        bits[: len(extremes)] = np.roll(extremes, k)
        blocks[:, offset : offset + 2] = bits.astype("<u2").view(np.uint8).reshape(count, 2)
    return blocks


def put_bits(words, at, bits, values):
    """Sets bits [at, at + bits) of the words, in place."""
    mask = words.dtype.type(((1 << bits) - 1) << at)
    words[...] = words & ~mask | values.astype(words.dtype) << words.dtype.type(at)


def with_all_indices(name, blocks):
    """Blocks of a type with a grid, in which every row of the grid comes up at least once."""
    rows, groups = INDICES[name]
    index = (np.arange(len(blocks) * groups) % rows).reshape(len(blocks), groups)
    assert len(blocks) * groups >= rows
    if name == "IQ2_XXS":
        parts = blocks[:, 2:].copy().reshape(-1, 8, 8)
        parts[:, :, :4] = index.reshape(-1, 8, 4)
        blocks[:, 2:] = parts.reshape(len(blocks), -1)
        return blocks
    if name == "IQ2_XS":
        words = blocks[:, 2:66].copy().view("<u2")
        put_bits(words, 0, 9, index)
        blocks[:, 2:66] = words.view(np.uint8)
        return blocks
    blocks[:, 2 : 2 + groups] = index & 255
    high = index >> 8
    if name == "IQ2_S":
        blocks[:, 66:74] = (high.reshape(-1, 8, 4) << np.array([0, 2, 4, 6])).sum(axis=-1)
    elif name == "IQ3_S":
        blocks[:, 66:74] = (high.reshape(-1, 8, 8) << np.arange(8)).sum(axis=-1)
    elif name == "IQ1_S":
        words = blocks[:, 34:50].copy().view("<u2")
        put_bits(words, 0, 12, (high.reshape(-1, 8, 4) << np.array([0, 3, 6, 9])).sum(axis=-1))
        blocks[:, 34:50] = words.view(np.uint8)
    return blocks


def random_iq1_m(count):
    """Its f16 is in the upper halves of four bytes."""
    blocks = random_blocks(count, 58, [56])
    bits = blocks[:, 56:58].copy().view("<u2")
    blocks = blocks[:, :56].copy()
    put_bits(blocks[:, 49::2], 4, 4, bits >> np.array([0, 4, 8, 12]) & 15)
    return blocks


def random_fp4(name, count):
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = np.concatenate([[0, 1, 2, 252], rng.integers(0, 253, count - 4)])  # above, 12 times the scale is infinite
    else:
        blocks[:, :4] = rng.permutation(256)[: 4 * count].reshape(count, 4)
        blocks[0, :4] = [0x00, 0x7F, 0x80, 0xFF]
    return blocks


def write(name, x, blocks):
    decoded = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[name])
    assert decoded.dtype == np.float32 and np.isfinite(decoded).all()
    path = OUT / f"{name.lower()}.bin"
    path.write_bytes(np.uint32(len(blocks)).tobytes() + x.tobytes() + blocks.tobytes() + decoded.tobytes())
    print(path.name, path.stat().st_size, "bytes,", len(blocks), "blocks")


OUT.mkdir(parents=True, exist_ok=True)
SENSITIVE = {  # values that show whether an encoder rounds its products apart; a q8_0 adds nothing to them
    "Q4_0": fused(32, 15, -8, 8.5),
    "Q5_0": fused(32, 31, -16, 16.5),
    "Q4_1": fused_range(32, 15),
    "Q5_1": fused_range(32, 31),
}
for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
    x = values(32)
    if name in SENSITIVE:
        x = np.concatenate([x, SENSITIVE[name]])
    write(name, x, gguf.quants.quantize(x, gguf.GGMLQuantizationType[name]))
HALVES = {"IQ4_NL": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_XS": [0],
          "TQ1_0": [52], "TQ2_0": [64]}
NONE = np.zeros(0, np.float32)
for name, halves in HALVES.items():
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    write(name, NONE, random_blocks(64 if block == 32 else 12, size, halves))
INDICES = {"IQ2_XXS": (256, 32), "IQ2_XS": (512, 32), "IQ2_S": (1024, 32), "IQ3_XXS": (256, 64), "IQ3_S": (512, 64), "IQ1_S": (2048, 32)}  # rows of the grid, and how many of them a block has
for name, (rows, groups) in INDICES.items():
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]
    write(name, NONE, with_all_indices(name, random_blocks(max(12, rows // groups), size, [0])))
write("IQ1_M", NONE, random_iq1_m(12))  # its grid is iq1_s's
for name in ("MXFP4", "NVFP4"):
    write(name, NONE, random_fp4(name, 48))
