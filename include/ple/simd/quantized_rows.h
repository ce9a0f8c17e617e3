// SPDX-License-Identifier: Apache-2.0
// Activations as 8-bit integers, for products with integer weights.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ple/core/config.h"
#include "ple/core/memory.h"

namespace ple::inline PLE_ABI {

inline constexpr std::size_t tokens_per_tile = 8;  ///< the most tokens computed together: what registers hold

/// Rows x[t] of `cols` values: a scale per sub-block, and bytes from -127 to 127 with value = scale * byte. Also, for
/// the weights' zero points and minimums: offset = -zero_point * sum of the bytes, sum = scale * sum of the bytes.
/// Tokens lie in tiles of 1, 4 or 8, the last one padded, in the order products read: [tile, sub-block, token, ...].
class QuantizedRows {
 public:
  QuantizedRows() = default;

  /// `memory`: at least bytes() bytes, aligned to a cache line. `sub_block`: 32 or 16 values; `cols` is a multiple.
  QuantizedRows(std::size_t tokens, std::size_t cols, std::size_t sub_block, std::span<std::byte> memory)
      : tokens_(tokens), tile_(tile_of(tokens)), cols_(cols), sub_block_(sub_block) {
    const std::size_t rows = padded(tokens), count = rows * sub_blocks();
    values_ = reinterpret_cast<std::int8_t*>(memory.data());
    scales_ = reinterpret_cast<float*>(memory.data() + (rows * cols + alignment - 1) / alignment * alignment);
    sums_ = scales_ + count;
    offsets_ = reinterpret_cast<std::int32_t*>(sums_ + count);
  }

  /// Bytes of rows for any type.
  static std::size_t bytes(std::size_t tokens, std::size_t cols) {
    return padded(tokens) * (cols + cols / 16 * (2 * sizeof(float) + sizeof(std::int32_t))) + alignment;
  }

  /// Everything that a product reads.
  std::span<const std::byte> memory() const {
    const auto* begin = reinterpret_cast<const std::byte*>(values_);
    return {begin, reinterpret_cast<const std::byte*>(offsets_ + padded(tokens_) * sub_blocks())};
  }
  std::size_t tokens() const { return tokens_; }
  std::size_t tile() const { return tile_; }  ///< tokens per tile
  std::size_t padded_tokens() const { return padded(tokens_); }
  std::size_t cols() const { return cols_; }
  std::size_t sub_block() const { return sub_block_; }
  std::size_t sub_blocks() const { return cols_ / sub_block_; }

  std::int8_t* values(std::size_t t, std::size_t s) const { return values_ + number(t, s) * sub_block_; }
  float& scale(std::size_t t, std::size_t s) const { return scales_[number(t, s)]; }
  float& sum(std::size_t t, std::size_t s) const { return sums_[number(t, s)]; }
  std::int32_t& offset(std::size_t t, std::size_t s) const { return offsets_[number(t, s)]; }

  /// Zeroes token t, to pad a tile.
  void clear(std::size_t t) const {
    for (std::size_t s = 0; s < sub_blocks(); ++s) {
      std::fill_n(values(t, s), sub_block_, std::int8_t{0});
      scale(t, s) = sum(t, s) = 0;
      offset(t, s) = 0;
    }
  }

 private:
  static std::size_t tile_of(std::size_t tokens) { return tokens == 1 ? 1 : tokens <= 4 ? 4 : tokens_per_tile; }
  static std::size_t padded(std::size_t tokens) {
    return (tokens + tile_of(tokens) - 1) / tile_of(tokens) * tile_of(tokens);
  }
  std::size_t number(std::size_t t, std::size_t s) const { return (t / tile_ * sub_blocks() + s) * tile_ + t % tile_; }

  std::size_t tokens_ = 0, tile_ = 1, cols_ = 0, sub_block_ = 32;
  std::int8_t* values_ = nullptr;
  float *scales_ = nullptr, *sums_ = nullptr;
  std::int32_t* offsets_ = nullptr;
};

}  // namespace ple::inline PLE_ABI
