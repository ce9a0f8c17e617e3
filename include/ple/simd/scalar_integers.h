// SPDX-License-Identifier: Apache-2.0
// Products of integer weights and 8-bit activations in plain C++: what vector kernels compute, in the same order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/packing/tiles.h"
#include "ple/simd/active_columns.h"
#include "ple/simd/quantized_rows.h"
#include "ple/simd/row_activations.h"

namespace ple::inline PLE_ABI {

struct ScalarIntegers {
  /// Bytes that a product of many tokens needs for a tile of weights: none here.
  static std::size_t tile_bytes(std::size_t) { return 0; }

  /// Token t of x, [cols], as the nearest integers from -127 to 127, with a scale per 32 values, times the factor of
  /// the weights' format.
  static void quantize(const float* x, Dtype weights, std::size_t t, const QuantizedRows& out) {
    const IntegerFormat& format = integer_format(weights);
    const std::size_t size = out.sub_block();
    for (std::size_t s = 0; s < out.sub_blocks(); ++s) {
      const std::size_t i = s * size, begin = i / 32 * 32;
      float largest = 0, not_a_number = 0;
      for (std::size_t k = begin; k < begin + 32; ++k) {
        largest = (std::max)(largest, std::fabs(x[k]));
        not_a_number += x[k] * 0;  // an infinity or NaN makes the scale NaN
      }
      const bool any = largest > least_magnitude;
      const float inverse = any ? 127.0f / largest : 0.0f,
                  scale = (any ? largest / 127.0f * format.factor : 0.0f) + not_a_number;
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < size; ++k) {
        const float value = x[i + k] * inverse;
        const auto integer = static_cast<std::int8_t>(std::fabs(value) <= 127.5f ? std::nearbyint(value) : 0.0f);
        out.values(t, s)[k] = integer;
        sum += integer;
      }
      out.scale(t, s) = scale;
      out.sum(t, s) = scale * static_cast<float>(sum);
      out.offset(t, s) = -format.zero_point * sum;
    }
  }
  static constexpr float least_magnitude = 1e-30f;  // a block whose largest magnitude is not above this counts as 0

  /// y[t, r] = sum_c w[r, c] * x[t, c], sub-block after sub-block      w: integers, x: quantised for them
  static void matmul(const PackedTiles& w, const QuantizedRows& x, float* y, std::size_t y_stride, std::byte*) {
    const IntegerFormat& format = *w.layout.format;
    for (std::size_t t = 0; t < x.tokens(); ++t) std::fill_n(y + t * y_stride, w.rows, 0.0f);
    for (std::size_t r = 0; r < w.rows; ++r) {
      const std::byte* tile = w.tiles + r / rows_per_tile * w.layout.tile_bytes;
      for (std::size_t s = 0; s < w.layout.sub_blocks; ++s) {
        const SubBlock block = sub_block_of(w.layout, tile, r % rows_per_tile, s);
        for (std::size_t t = 0; t < x.tokens(); ++t) {
          std::int32_t dot = x.offset(t, s);
          for (std::size_t k = 0; k < format.sub_block; ++k) dot += block.integers[k] * x.values(t, s)[k];
          float& sum = y[t * y_stride + r];
          sum = std::fma(static_cast<float>(dot) * x.scale(t, s), block.scale, sum);
          if (format.has_minimum) sum = std::fma(-block.minimum, x.sum(t, s), sum);
        }
      }
    }
  }

  /// y[i] = sum_c w[rows[i], c] * x[c] for `count` rows
  static void multiply_rows(const PackedRows& w, const std::size_t* rows, std::size_t count, const RowActivations& x,
                            float* y) {
    const PackedRowLayout& layout = w.layout;
    const std::size_t sub = layout.format->sub_block;
    for (std::size_t i = 0; i < count; ++i) {
      y[i] = 0;
      for (std::size_t s = 0; s < layout.sub_blocks; ++s) {
        const SubBlock block = sub_block_of(layout, w.row(rows[i]), s);
        const std::size_t in_tile = s % sub_blocks_per_tile;
        const std::int8_t* values = x.values + (s - in_tile) * sub + 4 * in_tile;
        std::int32_t dot = x.offsets[s];
        for (std::size_t k = 0; k < sub; ++k) {
          dot += block.integers[k] * values[k / 4 * 4 * sub_blocks_per_tile + k % 4];
        }
        y[i] = std::fma(static_cast<float>(dot) * x.scales[s], block.scale, y[i]);
        if (layout.format->has_minimum) y[i] = std::fma(-block.minimum, x.sums[s], y[i]);
      }
    }
  }

  /// y[r] = sum_c w[first + r, c] x[t, c] for `rows` rows, over columns whose x is not 0; the same sums as `matmul`.
  /// `first` is a multiple of PackedColumnLayout::group.
  static void multiply_columns(const PackedColumns& w, std::size_t first, std::size_t rows, const QuantizedRows& x,
                               std::size_t t, float* y) {
    const PackedColumnLayout& layout = w.layout;
    std::fill_n(y, rows, 0.0f);
    ActiveColumns active;
    for (std::size_t s = active.find(w, x, t, 0); s > 0; s = active.find(w, x, t, s)) {
      const auto scale = [&](std::size_t at) { return load_scale(*layout.format, active.scales, at); };
      for (std::size_t r = 0; r < rows; ++r) {
        const std::size_t row = first + r, in_group = row % PackedColumnLayout::group;
        const std::size_t byte = (row - in_group) / 2 + in_group % 16, shift = in_group / 16 * 4;
        float dot = active.offset;
        for (std::size_t k = 0; k < active.count; ++k) {
          const int quant = layout.halves ? active.quants[k][byte] >> shift & 15 : active.quants[k][row];
          dot += static_cast<float>(quant) * active.values[k];
        }
        y[r] = std::fma(dot * active.scale, scale(row), y[r]);
        if (layout.format->has_minimum) y[r] = std::fma(-scale(layout.height + row), active.sum, y[r]);
      }
    }
  }
};

}  // namespace ple::inline PLE_ABI
