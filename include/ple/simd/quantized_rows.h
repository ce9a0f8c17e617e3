// SPDX-License-Identifier: Apache-2.0
// Activations as 8-bit integers, for products with integer weights.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ple/core/memory.h"
#include "ple/dtype/integers.h"

namespace ple {

/// Tokens that are computed together.
inline constexpr std::size_t tokens_per_tile = 8;

/// Rows x[t] of `cols` values: for each sub-block a scale, and bytes from -127 to 127 with value = scale * byte. Beside
/// them what the weights' zero point and minimums are multiplied with: offset = -zero_point * sum of the bytes,
/// sum = scale * sum of the bytes. Rows are filled up with zeros to whole chunks.
///
/// Several tokens lie in tiles of 8, each ordered [lane_of(sub-block), chunk, token]; a few lie row by row, ordered
/// [chunk, ...]. Both orders are the ones in which they are read.
class QuantizedRows {
 public:
  QuantizedRows() = default;

  /// Uses `memory`, of at least bytes() bytes, aligned to a cache line. `tiled` decides the order.
  QuantizedRows(std::size_t tokens, std::size_t cols, std::size_t sub_block, std::span<std::byte> memory)
      : tokens_(tokens),
        chunks_((cols + values_per_chunk - 1) / values_per_chunk),
        sub_blocks_(values_per_chunk / sub_block),
        tiled_(is_tiled(tokens)) {
    const std::size_t rows = padded(tokens), count = rows * chunks_ * sub_blocks_;
    values_ = reinterpret_cast<std::int8_t*>(memory.data());
    scales_ = reinterpret_cast<float*>(memory.data() + rows * chunks_ * values_per_chunk);
    sums_ = scales_ + count;
    offsets_ = reinterpret_cast<std::int32_t*>(sums_ + count);
  }

  /// What any type's rows take.
  static std::size_t bytes(std::size_t tokens, std::size_t cols) {
    const std::size_t chunks = (cols + values_per_chunk - 1) / values_per_chunk;
    return padded(tokens) * chunks * (values_per_chunk + 16 * (2 * sizeof(float) + sizeof(std::int32_t)));
  }
  /// From as many tokens on, a tile that is not full costs less than going through the weights token by token.
  static bool is_tiled(std::size_t tokens) { return tokens >= 4; }

  std::size_t tokens() const { return tokens_; }
  std::size_t padded_tokens() const { return padded(tokens_); }
  std::size_t chunks() const { return chunks_; }
  std::size_t sub_blocks() const { return sub_blocks_; }  ///< in a chunk
  bool tiled() const { return tiled_; }

  std::int8_t* values(std::size_t t, std::size_t chunk, std::size_t s) const {
    if (!tiled_) return values_ + (t * chunks_ + chunk) * values_per_chunk + s * (values_per_chunk / sub_blocks_);
    return values_ + number(t, chunk, s) * (values_per_chunk / sub_blocks_);
  }
  float& scale(std::size_t t, std::size_t chunk, std::size_t s) const { return scales_[number(t, chunk, s)]; }
  float& sum(std::size_t t, std::size_t chunk, std::size_t s) const { return sums_[number(t, chunk, s)]; }
  std::int32_t& offset(std::size_t t, std::size_t chunk, std::size_t s) const { return offsets_[number(t, chunk, s)]; }

  /// Makes token t count nothing: for what fills a tile up.
  void clear(std::size_t t) const {
    for (std::size_t c = 0; c < chunks_; ++c) {
      for (std::size_t s = 0; s < sub_blocks_; ++s) {
        std::fill_n(values(t, c, s), values_per_chunk / sub_blocks_, std::int8_t{0});
        scale(t, c, s) = sum(t, c, s) = 0;
        offset(t, c, s) = 0;
      }
    }
  }

  // Of a row that is not in a tile: a chunk's values, and the numbers of its sub-blocks by lane_of.
  const std::int8_t* row_values(std::size_t t, std::size_t chunk) const { return values(t, chunk, 0); }
  const float* row_scales(std::size_t t, std::size_t chunk) const { return &scale(t, chunk, 0); }
  const float* row_sums(std::size_t t, std::size_t chunk) const { return &sum(t, chunk, 0); }
  const std::int32_t* row_offsets(std::size_t t, std::size_t chunk) const { return &offset(t, chunk, 0); }

  // Of a tile: 8 tokens' values, 8 numbers for each [lane, chunk].
  const std::int8_t* tile_values(std::size_t tile) const { return values(tile * tokens_per_tile, 0, 0); }
  const float* tile_scales(std::size_t tile) const { return &scale(tile * tokens_per_tile, 0, 0); }
  const float* tile_sums(std::size_t tile) const { return &sum(tile * tokens_per_tile, 0, 0); }
  const std::int32_t* tile_offsets(std::size_t tile) const { return &offset(tile * tokens_per_tile, 0, 0); }

 private:
  static std::size_t padded(std::size_t tokens) {
    return is_tiled(tokens) ? (tokens + tokens_per_tile - 1) / tokens_per_tile * tokens_per_tile : tokens;
  }
  std::size_t number(std::size_t t, std::size_t chunk, std::size_t s) const {
    const std::size_t lane = lane_of(s, sub_blocks_);
    if (!tiled_) return (t * chunks_ + chunk) * sub_blocks_ + lane;
    const std::size_t tile = t / tokens_per_tile;
    return ((tile * sub_blocks_ + lane) * chunks_ + chunk) * tokens_per_tile + t % tokens_per_tile;
  }

  std::size_t tokens_ = 0, chunks_ = 0, sub_blocks_ = 0;
  bool tiled_ = false;
  std::int8_t* values_ = nullptr;
  float *scales_ = nullptr, *sums_ = nullptr;
  std::int32_t* offsets_ = nullptr;
};

/// Integer weights as a file has them: row r begins at data + r * row_bytes.
struct IntegerWeights {
  Dtype dtype = Dtype::q8_0;
  const std::byte* data = nullptr;
  std::size_t row_bytes = 0, rows = 0, cols = 0;

  IntegerWeights slice(std::size_t first, std::size_t count) const {
    return {dtype, data + first * row_bytes, row_bytes, count, cols};
  }
  /// Where chunk c of a row begins, and how many blocks it has.
  const std::byte* chunk(std::size_t row, std::size_t c) const {
    return data + row * row_bytes + bytes_of(dtype, c * values_per_chunk);
  }
  std::size_t blocks(std::size_t c) const {
    return std::min(values_per_chunk, cols - c * values_per_chunk) / values_per_block(dtype);
  }
};

}  // namespace ple
