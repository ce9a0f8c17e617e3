// SPDX-License-Identifier: Apache-2.0
// A block-type matrix stored by columns, for products with mostly zero vectors: a column that meets a 0 is not read.
// Blocks run along rows: a sub-block's scales, for all rows, precede its columns. simd/packed_columns-inl.h multiplies.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/dtype/integers.h"

namespace ple::inline PLE_ABI {

/// The layout of each sub-block of the rows, in bytes from its start:
///   0              [1 or 2, row]: scale and minimum; f16, or f32 where has_f32_scales
///   scale_bytes   [sub_block, row]: columns of quants
/// `height` rows are whole groups of 32, padded with rows of scale 0. Quants of up to 4 bits take 16 bytes per group:
/// rows 0 to 15 in the lower halves, 16 to 31 in the upper. Others take a byte, as do a table's entries, plus 128.
struct PackedColumnLayout {
  static constexpr std::size_t group = 32;

  const IntegerFormat* format = nullptr;
  std::size_t height = 0, sub_blocks = 0;
  bool halves = false;  ///< two quants per byte
  std::size_t scale_bytes = 0, column_bytes = 0, sub_block_bytes = 0;

  PackedColumnLayout() = default;
  /// cols: whole blocks of `dtype`, an integer type.
  PackedColumnLayout(Dtype dtype, std::size_t rows, std::size_t cols)
      : format(&integer_format(dtype)),
        height((rows + group - 1) / group * group),
        sub_blocks(cols / format->sub_block),
        halves(format->bits <= 4 && format->table == nullptr),
        scale_bytes(height * whole_scale_size(*format) * (format->has_minimum ? 2 : 1)),
        column_bytes(halves ? height / 2 : height),
        sub_block_bytes(scale_bytes + format->sub_block * column_bytes) {}

  std::size_t bytes() const { return sub_blocks * sub_block_bytes; }
};

/// Packs chunk c of `count` rows, `row_bytes` apart, into `columns`.
inline void pack_columns(const PackedColumnLayout& layout, std::size_t c, const std::byte* rows, std::size_t row_bytes,
                         std::size_t count, std::size_t chunk_bytes, std::byte* columns) {
  constexpr std::size_t group = PackedColumnLayout::group;
  const IntegerFormat& format = *layout.format;
  const std::size_t sub = format.sub_block, first = c * values_per_chunk / sub,
                    n = (std::min)(values_per_chunk / sub, layout.sub_blocks - first);
  QuantChunk chunk;
  std::uint8_t quants[values_per_chunk][group];
  for (std::size_t r = 0; r < layout.height; r += group) {
    for (std::size_t i = 0; i < group; ++i) {
      if (r + i < count) {
        format.unpack(rows + (r + i) * row_bytes + c * chunk_bytes, n, chunk);
      } else {
        chunk = {};
      }
      for (std::size_t k = 0; k < n * sub; ++k) {
        quants[k][i] = integer_of(format, chunk.quants[k]);
      }
      const auto put = [&](std::size_t s, std::size_t kind, std::uint16_t scale, std::uint16_t super_scale) {
        std::byte* scales = columns + (first + s) * layout.sub_block_bytes;
        store_scale(format, scale, super_scale, scales + (kind * layout.height + r + i) * whole_scale_size(format));
      };
      for (std::size_t s = 0; s < n; ++s) {
        put(s, 0, chunk.scales[s], chunk.super_scale);
        if (format.has_minimum) put(s, 1, chunk.minimums[s], chunk.super_minimum);
      }
    }
    for (std::size_t k = 0; k < n * sub; ++k) {
      auto* column = reinterpret_cast<std::uint8_t*>(columns + (first + k / sub) * layout.sub_block_bytes +
                                                     layout.scale_bytes + k % sub * layout.column_bytes);
      if (!layout.halves) {
        std::copy_n(quants[k], group, column + r);
        continue;
      }
      for (std::size_t i = 0; i < group / 2; ++i) {
        column[r / 2 + i] = static_cast<std::uint8_t>(quants[k][i] | quants[k][group / 2 + i] << 4);
      }
    }
  }
}

struct PackedColumns {
  PackedColumnLayout layout;
  const std::byte* data = nullptr;
};

}  // namespace ple::inline PLE_ABI
