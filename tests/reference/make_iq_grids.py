#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes include/ple/dtype/iq_grids.h: the grids of GGUF's iq types, as the Python package `gguf` has them.

  pip install -r requirements.txt
  python3 make_iq_grids.py
"""
import importlib.metadata
import pathlib

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parents[2] / "include" / "ple" / "dtype" / "iq_grids.h"
HEADER = """\
// SPDX-License-Identifier: Apache-2.0
// The grids of GGUF's iq types: which groups of values there are. Written by tests/reference/make_iq_grids.py, from the
// Python package `gguf` %s. A row takes 16 bits, four rows a word, the first one lowest: 8 elements of 2 bits, or 4
// elements of 3 bits, 4 bits apart. An element counts the values there are, the least first:
// 8, 25, 43 (iq2), 4, 12, 20, ... (iq3_xxs), 1, 3, 5, ... (iq3_s), -1, 0, 1 (iq1_s and iq1_m).
#pragma once

#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// Row `row`: 16 bits.
constexpr std::uint16_t grid_row(const std::uint64_t* grid, std::size_t row) {
  return static_cast<std::uint16_t>(grid[row / 4] >> (row %% 4 * 16));
}

}  // namespace detail

// clang-format off
"""
GRIDS = {"iq2_xxs": "IQ2_XXS", "iq2_xs": "IQ2_XS", "iq2_s": "IQ2_S", "iq3_xxs": "IQ3_XXS", "iq3_s": "IQ3_S", "iq1": "IQ1_S"}


def words(kind):
    kind.init_grid()
    rows = kind.grid.reshape(kind.grid_shape)
    elements = np.searchsorted(np.array(kind.grid_map, np.float32), rows)
    assert (np.array(kind.grid_map, np.float32)[elements] == rows).all()
    width = 16 // rows.shape[1]
    packed = (elements.astype(np.uint64) << (np.arange(rows.shape[1], dtype=np.uint64) * np.uint64(width))).sum(axis=1, dtype=np.uint64)
    return (packed.reshape(-1, 4) << (np.arange(4, dtype=np.uint64) * np.uint64(16))).sum(axis=1, dtype=np.uint64)


text = HEADER % importlib.metadata.version("gguf")
for name, kind in GRIDS.items():
    numbers = [f"0x{int(word):016x}," for word in words(getattr(gguf.quants, kind))]
    text += f"inline constexpr std::uint64_t {name}_grid[{len(numbers)}] = {{\n"
    text += "".join("  " + " ".join(numbers[i : i + 6]) + "\n" for i in range(0, len(numbers), 6)) + "};\n"
text += "// clang-format on\n\n}  // namespace ple::inline PLE_ABI\n"
OUT.write_text(text)
print(OUT.name, len(text), "bytes")
