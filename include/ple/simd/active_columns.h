// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/packing/packed_columns.h"
#include "ple/simd/quantized_rows.h"

namespace ple::inline PLE_ABI {

/// The columns of a sub-block that a token multiplies with a value other than 0.
struct ActiveColumns {
  const std::byte* scales = nullptr;
  float scale = 0, sum = 0;  ///< the token's: see QuantizedRows
  float offset = 0;          ///< what the weights' zero point adds
  std::size_t count = 0;
  const std::uint8_t* quants[32];
  float values[32];  ///< integers

  /// Finds the first sub-block from s on with such columns. Returns the one after it, or 0 if there is none.
  std::size_t find(const PackedColumns& w, const QuantizedRows& x, std::size_t t, std::size_t s) {
    while (s < w.layout.sub_blocks && x.scale(t, s) == 0) ++s;  // NaN is not 0: it spreads
    if (s == w.layout.sub_blocks) return 0;
    scales = w.data + s * w.layout.sub_block_bytes;
    scale = x.scale(t, s);
    sum = x.sum(t, s);
    count = 0;
    int total = 0;
    const auto* columns = reinterpret_cast<const std::uint8_t*>(scales + w.layout.scale_bytes);
    for (std::size_t k = 0; k < x.sub_block(); k += 8) {
      for (std::uint64_t word = detail::load8(x.values(t, s) + k); word != 0;) {
        const auto byte = static_cast<std::size_t>(std::countr_zero(word)) / 8;
        const auto value = static_cast<std::int8_t>(word >> (8 * byte));
        quants[count] = columns + (k + byte) * w.layout.column_bytes;
        values[count++] = value;
        total += value;
        word &= ~(std::uint64_t{255} << (8 * byte));
      }
    }
    offset = static_cast<float>(-w.layout.format->zero_point * total);
    return s + 1;
  }
};

}  // namespace ple::inline PLE_ABI
