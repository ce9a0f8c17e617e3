// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/packing/packed_rows.h"
#include "ple/simd/quantized_rows.h"

namespace ple::inline PLE_ABI {

/// One token's 8-bit activations in the order of packed rows: values [tile, quad, sub-block, 4], and a scale, a sum and
/// an offset per sub-block (see QuantizedRows). The last tile is padded with 0.
class RowActivations {
 public:
  /// `memory`: at least bytes() bytes, aligned to a cache line. `sub_block`: 32 or 16 values.
  RowActivations(std::size_t cols, std::size_t sub_block, std::span<std::byte> memory)
      : sub_block_(sub_block), tiles_(tiles_of(cols, sub_block)) {
    const std::size_t count = tiles_ * sub_blocks_per_tile;
    scales = reinterpret_cast<float*>(memory.data());
    sums = scales + count;
    offsets = reinterpret_cast<std::int32_t*>(sums + count);
    values = reinterpret_cast<std::int8_t*>(offsets + count);
  }

  /// Bytes of activations for any type.
  static std::size_t bytes(std::size_t cols) {
    return (std::max)(bytes(cols, 16), bytes(cols, 32)) / alignment * alignment + alignment;
  }

  /// Copies token t of `x`.
  void take(const QuantizedRows& x, std::size_t t) const {
    for (std::size_t s = 0; s < tiles_ * sub_blocks_per_tile; ++s) {
      const bool there = s < x.sub_blocks();
      scales[s] = there ? x.scale(t, s) : 0;
      sums[s] = there ? x.sum(t, s) : 0;
      offsets[s] = there ? x.offset(t, s) : 0;
      std::int8_t* to =
          values + s / sub_blocks_per_tile * sub_blocks_per_tile * sub_block_ + s % sub_blocks_per_tile * 4;
      for (std::size_t q = 0; q < sub_block_ / 4; ++q, to += 4 * sub_blocks_per_tile) {
        if (there) {
          std::memcpy(to, x.values(t, s) + 4 * q, 4);
        } else {
          std::memset(to, 0, 4);
        }
      }
    }
  }

  float *scales = nullptr, *sums = nullptr;  // NOLINT(misc-non-private-member-variables-in-classes)
  std::int32_t* offsets = nullptr;           // NOLINT(misc-non-private-member-variables-in-classes)
  std::int8_t* values = nullptr;             // NOLINT(misc-non-private-member-variables-in-classes)

 private:
  static std::size_t tiles_of(std::size_t cols, std::size_t sub_block) {
    return (cols / sub_block + sub_blocks_per_tile - 1) / sub_blocks_per_tile;
  }
  static std::size_t bytes(std::size_t cols, std::size_t sub_block) {
    return tiles_of(cols, sub_block) * sub_blocks_per_tile * (sub_block + 2 * sizeof(float) + sizeof(std::int32_t));
  }

  std::size_t sub_block_, tiles_;
};

}  // namespace ple::inline PLE_ABI
