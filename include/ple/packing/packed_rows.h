// SPDX-License-Identifier: Apache-2.0
// Rows of a block type, packed one by one, for products that need only some of them. As a tile of packing/tiles.h
// holds sixteen rows side by side, one here holds sixteen sub-blocks of a row. simd/packed_rows-inl.h multiplies.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/packing/tiles.h"

namespace ple::inline PLE_ABI {

inline constexpr std::size_t sub_blocks_per_tile = rows_per_tile;

/// The layout of a row's tile of sub-blocks, the last tile padded with sub-blocks of scale 0; bytes from its start:
///   0              [1 or 2, sub-block]: scale and minimum; f16, or f32 where has_f32_scales
///   scale_bytes   quants, in TileLayout's planes, with sub-blocks in place of rows
struct PackedRowLayout {
  const IntegerFormat* format = nullptr;
  std::size_t sub_blocks = 0, tiles = 0;
  int low_bits = 0, high_bits = 0;
  std::size_t scale_bytes = 0, tile_bytes = 0, row_bytes = 0;

  PackedRowLayout() = default;
  /// cols: whole blocks of `dtype`, an integer type.
  PackedRowLayout(Dtype dtype, std::size_t cols) {
    const TileLayout same(dtype, cols);
    format = same.format;
    sub_blocks = same.sub_blocks;
    tiles = (sub_blocks + sub_blocks_per_tile - 1) / sub_blocks_per_tile;
    low_bits = same.low_bits;
    high_bits = same.high_bits;
    scale_bytes = sub_blocks_per_tile * whole_scale_size(*format) * (format->has_minimum ? 2 : 1);
    tile_bytes = scale_bytes + high_plane_at() + plane_bytes(high_bits);
    row_bytes = tiles * tile_bytes;
  }

  std::size_t high_plane_at() const { return plane_bytes(low_bits); }

 private:
  std::size_t plane_bytes(int bits) const {
    return sub_blocks_per_tile * format->sub_block * static_cast<std::size_t>(bits) / 8;
  }
};

/// Packs a row of blocks.
inline void pack_row(const PackedRowLayout& layout, const std::byte* blocks, std::size_t chunk_bytes, std::byte* row) {
  const IntegerFormat& format = *layout.format;
  const std::size_t sub = format.sub_block, per_chunk = values_per_chunk / sub;
  const detail::PutPlane put_low = detail::put_plane_of(sub / 4, layout.low_bits),
                         put_high = detail::put_plane_of(sub / 4, layout.high_bits);
  std::fill_n(row, layout.row_bytes, std::byte{0});
  QuantChunk chunk;
  for (std::size_t s = 0; s < layout.sub_blocks; ++s) {
    if (s % per_chunk == 0) {
      format.unpack(blocks + s / per_chunk * chunk_bytes, (std::min)(per_chunk, layout.sub_blocks - s), chunk);
    }
    std::byte* tile = row + s / sub_blocks_per_tile * layout.tile_bytes;
    const std::size_t i = s % sub_blocks_per_tile, in_chunk = s % per_chunk;
    const auto put = [&](std::size_t kind, std::uint16_t scale, std::uint16_t super_scale) {
      store_scale(format, scale, super_scale, tile + (kind * sub_blocks_per_tile + i) * whole_scale_size(format));
    };
    put(0, chunk.scales[in_chunk], chunk.super_scale);
    if (format.has_minimum) put(1, chunk.minimums[in_chunk], chunk.super_minimum);
    auto* planes = reinterpret_cast<std::uint8_t*>(tile + layout.scale_bytes);
    put_low(chunk.quants + in_chunk * sub, 0, i, planes);
    if (layout.high_bits > 0) {
      put_high(chunk.quants + in_chunk * sub, layout.low_bits, i, planes + layout.high_plane_at());
    }
  }
}

inline SubBlock sub_block_of(const PackedRowLayout& layout, const std::byte* row, std::size_t s) {
  const std::byte* tile = row + s / sub_blocks_per_tile * layout.tile_bytes;
  SubBlock block = {};
  block.scale = load_scale(*layout.format, tile, s % sub_blocks_per_tile);
  if (layout.format->has_minimum) {
    block.minimum = load_scale(*layout.format, tile, sub_blocks_per_tile + s % sub_blocks_per_tile);
  }
  detail::get_quants(*layout.format, layout.low_bits, reinterpret_cast<const std::uint8_t*>(tile + layout.scale_bytes),
                     s % sub_blocks_per_tile, block.integers);
  return block;
}

struct PackedRows {
  PackedRowLayout layout;
  const std::byte* data = nullptr;

  const std::byte* row(std::size_t r) const { return data + r * layout.row_bytes; }
};

}  // namespace ple::inline PLE_ABI
