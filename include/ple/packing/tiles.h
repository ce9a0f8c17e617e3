// SPDX-License-Identifier: Apache-2.0
// Rows of a block type, sixteen side by side in a tile: a vector holds the same four values of neighbouring rows,
// so a product needs no shuffles and reads memory in order. A tile takes as many bytes as its rows did, except for
// q4_k, q5_k and q2_k, whose scales of 6 or 4 bits become 8, and the types of dtype/coded.h, whose values become codes
// of 4 bits (ternary ones: of 2). Plain C++; simd/tiles-inl.h multiplies.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/dtype/integers.h"
#include "ple/dtype/packed_bits.h"

namespace ple::inline PLE_ABI {

inline constexpr std::size_t rows_per_tile = 16;

/// The layout of a tile of rows with `cols` values each, in bytes from its start:
///   0              [chunk, 1 or 2, row] f16: a chunk's scale and minimum, for types that have them
///   sub_blocks_at  for each sub-block:
///     0              [1 or 2, row]: its scale and minimum; f16 or bf16, or bytes where the chunk has some, too
///     scale_bytes   the quants of 16 times sub_block values, in planes of 8, 4, 2 or 1 of their bits
/// Quad q is values 4 q to 4 q + 3 of a sub-block. A plane is made of lines of 64 bytes, [row, 4]. Below 8 bits, a line
/// holds several quads: of Q quads in L lines, quad q is in line q % L, from bit (q / L) * bits on. Planes, lower bits
/// first: 8 -> {8}, 6 -> {4, 2}, 5 -> {4, 1}, 4 -> {4}, 3 -> {2, 1}, 2 -> {2}. A plane of 1 bit for sub-blocks of 16
/// fills half a line: rows 8 to 15 use the upper 4 bits.
struct TileLayout {
  const IntegerFormat* format = nullptr;
  std::size_t cols = 0, sub_blocks = 0, chunks = 0;
  int low_bits = 0, high_bits = 0;
  std::size_t scale_bytes = 0, sub_block_bytes = 0, sub_blocks_at = 0, tile_bytes = 0;

  TileLayout() = default;
  /// cols: whole blocks of `dtype`, an integer type.
  TileLayout(Dtype dtype, std::size_t columns)
      : format(&integer_format(dtype)),
        cols(columns),
        sub_blocks(columns / format->sub_block),
        chunks((columns + values_per_chunk - 1) / values_per_chunk),
        low_bits(format->bits >= 4 ? (format->bits == 8 ? 8 : 4) : 2),
        high_bits(format->bits - low_bits) {
    const std::size_t kinds = format->has_minimum ? 2 : 1;
    const auto lines = [](std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
    scale_bytes = rows_per_tile * kinds * (format->has_super_scale ? 1 : 2);
    sub_block_bytes = scale_bytes + rows_per_tile * format->sub_block * static_cast<std::size_t>(format->bits) / 8;
    sub_blocks_at = format->has_super_scale ? chunks * kinds * rows_per_tile * 2 : 0;
    tile_bytes = lines(sub_blocks_at + sub_blocks * sub_block_bytes);
  }

  std::size_t tiles(std::size_t rows) const { return (rows + rows_per_tile - 1) / rows_per_tile; }
  std::size_t bytes(std::size_t rows) const { return tiles(rows) * tile_bytes; }
};

namespace detail {

/// A mask of `bits` bits in each of four bytes.
constexpr std::uint32_t quad_masks(int bits) { return 0x01010101u * ((1u << bits) - 1); }

/// Puts a row's plane of a sub-block, bits [from, from + bits) of its quants, into the plane's lines.
template <std::size_t quads, int bits>
void put_plane(const std::uint8_t* quants, int from, std::size_t row, std::uint8_t* plane) {
  constexpr std::size_t lines = quads * static_cast<std::size_t>(bits) / 8;
  const auto quad = [&](std::size_t q) { return load4(quants + 4 * q) >> from & quad_masks(bits); };
  if constexpr (lines == 0) {
    std::uint32_t word = 0;
    for (std::size_t q = 0; q < quads; ++q) word |= quad(q) << q;
    std::uint8_t* half_line = plane + 4 * (row % 8);
    if (row < 8) {
      store4(word, half_line);
    } else {
      store4(load4(half_line) | word << 4, half_line);
    }
  } else {
    for (std::size_t line = 0; line < lines; ++line) {
      std::uint32_t word = 0;
      for (std::size_t q = line, at = 0; q < quads; q += lines, at += static_cast<std::size_t>(bits)) {
        word |= quad(q) << at;
      }
      store4(word, plane + 64 * line + 4 * row);
    }
  }
}

/// put_plane for planes of `bits` bits and `quads` quads.
using PutPlane = void (*)(const std::uint8_t* quants, int from, std::size_t row, std::uint8_t* plane);
inline PutPlane put_plane_of(std::size_t quads, int bits) {
  if (quads == 8) return bits == 8 ? put_plane<8, 8> : bits == 4 ? put_plane<8, 4> : put_plane<8, 1>;
  return bits == 4 ? put_plane<4, 4> : bits == 2 ? put_plane<4, 2> : put_plane<4, 1>;
}

/// Undoes put_plane: adds the plane's bits to the quants.
inline void get_plane(const std::uint8_t* plane, std::size_t quads, int from, int bits, std::size_t row,
                      std::uint8_t* quants) {
  const std::size_t lines = quads * static_cast<std::size_t>(bits) / 8;
  for (std::size_t q = 0; q < quads; ++q) {
    const std::uint8_t* word = lines == 0 ? plane + 4 * (row % 8) : plane + 64 * (q % lines) + 4 * row;
    const std::size_t at = lines == 0 ? q + row / 8 * 4 : q / lines * static_cast<std::size_t>(bits);
    store4(load4(quants + 4 * q) | (load4(word) >> at & quad_masks(bits)) << from, quants + 4 * q);
  }
}

/// Reads row r's integers from a sub-block's planes; `integers` must be zero.
inline void get_quants(const IntegerFormat& format, int low_bits, const std::uint8_t* planes, std::size_t r,
                       std::uint8_t* integers) {
  const std::size_t sub = format.sub_block;
  get_plane(planes, sub / 4, 0, low_bits, r, integers);
  if (format.bits > low_bits) {
    get_plane(planes + rows_per_tile * sub * static_cast<std::size_t>(low_bits) / 8, sub / 4, low_bits,
              format.bits - low_bits, r, integers);
  }
  for (std::size_t i = 0; i < sub && format.table != nullptr; ++i) integers[i] = integer_of(format, integers[i]);
}

}  // namespace detail

/// Packs up to 16 rows of blocks, `row_bytes` apart, into a tile. Missing rows get scale 0.
inline void pack_tile(const TileLayout& layout, const std::byte* rows, std::size_t row_bytes, std::size_t count,
                      std::size_t chunk_bytes, std::byte* tile) {
  const IntegerFormat& format = *layout.format;
  const std::size_t sub = format.sub_block, kinds = format.has_minimum ? 2 : 1;
  const auto put = [](std::uint16_t scale, std::size_t size, std::byte* to) { std::memcpy(to, &scale, size); };
  const std::size_t scale_size = format.has_super_scale ? 1 : 2;
  const detail::PutPlane put_low = detail::put_plane_of(sub / 4, layout.low_bits),
                         put_high = detail::put_plane_of(sub / 4, layout.high_bits);
  QuantChunk chunk;
  for (std::size_t c = 0; c < layout.chunks; ++c) {
    const std::size_t first = c * values_per_chunk / sub,
                      n = (std::min)(values_per_chunk / sub, layout.sub_blocks - first);
    for (std::size_t r = 0; r < rows_per_tile; ++r) {
      if (r < count) {
        format.unpack(rows + r * row_bytes + c * chunk_bytes, n, chunk);
      } else {
        chunk = {};
      }
      if (format.has_super_scale) {
        std::byte* super_scale = tile + (c * kinds * rows_per_tile + r) * 2;
        put(chunk.super_scale, 2, super_scale);
        if (kinds == 2) put(chunk.super_minimum, 2, super_scale + rows_per_tile * 2);
      }
      for (std::size_t s = 0; s < n; ++s) {
        std::byte* scales = tile + layout.sub_blocks_at + (first + s) * layout.sub_block_bytes + r * scale_size;
        put(chunk.scales[s], scale_size, scales);
        if (kinds == 2) put(chunk.minimums[s], scale_size, scales + rows_per_tile * scale_size);
        auto* planes = reinterpret_cast<std::uint8_t*>(scales - r * scale_size + layout.scale_bytes);
        put_low(chunk.quants + s * sub, 0, r, planes);
        if (layout.high_bits > 0) {
          put_high(chunk.quants + s * sub, layout.low_bits, r,
                   planes + rows_per_tile * sub * static_cast<std::size_t>(layout.low_bits) / 8);
        }
      }
    }
  }
}

/// A sub-block of one row of a tile: value = factor * scale * (integer - zero_point) - minimum, with the format's
/// factor.
struct SubBlock {
  std::uint8_t integers[32];
  float scale = 0, minimum = 0;
};

inline SubBlock sub_block_of(const TileLayout& layout, const std::byte* tile, std::size_t r, std::size_t s) {
  const IntegerFormat& format = *layout.format;
  const std::size_t sub = format.sub_block, kinds = format.has_minimum ? 2 : 1;
  const auto two_bytes = [&](std::size_t at) { return detail::load2(tile + at); };
  const std::size_t at = layout.sub_blocks_at + s * layout.sub_block_bytes;
  const auto scale = [&](std::size_t kind) {
    if (!format.has_super_scale) return whole_scale(format, two_bytes(at + (kind * rows_per_tile + r) * 2), 0);
    const auto integer = static_cast<std::uint8_t>(tile[at + kind * rows_per_tile + r]);
    const std::size_t c = s * sub / values_per_chunk;
    return whole_scale(format, integer, two_bytes(((c * kinds + kind) * rows_per_tile + r) * 2));
  };
  SubBlock block = {};
  block.scale = scale(0);
  if (kinds == 2) block.minimum = scale(1);
  detail::get_quants(format, layout.low_bits, reinterpret_cast<const std::uint8_t*>(tile + at + layout.scale_bytes), r,
                     block.integers);
  return block;
}

/// Decodes row r of a tile: [cols], the same values as from its type's blocks.
inline void decode_row(const TileLayout& layout, const std::byte* tile, std::size_t r, float* out) {
  const std::size_t sub = layout.format->sub_block;
  for (std::size_t s = 0; s < layout.sub_blocks; ++s) {
    const SubBlock block = sub_block_of(layout, tile, r, s);
    const float scale = layout.format->factor * block.scale;
    for (std::size_t i = 0; i < sub; ++i) {
      const float product = scale * static_cast<float>(block.integers[i] - layout.format->zero_point);
      out[s * sub + i] = product - block.minimum;  // a separate step: the product is rounded, as in decoding
    }
  }
}

/// Packed rows of weights: whole tiles, the last of which may be padded.
struct PackedTiles {
  Dtype dtype = Dtype::q8_0;
  TileLayout layout;
  const std::byte* tiles = nullptr;
  std::size_t rows = 0;

  /// Rows [first, first + count); `first` is a multiple of rows_per_tile.
  PackedTiles slice(std::size_t first, std::size_t count) const {
    return {dtype, layout, tiles + first / rows_per_tile * layout.tile_bytes, count};
  }
};

}  // namespace ple::inline PLE_ABI
