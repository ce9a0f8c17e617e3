// SPDX-License-Identifier: Apache-2.0
// Products of integer weights and 8-bit activations in plain C++: what the vector kernels compute, in their order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ple/dtype/interleaved.h"
#include "ple/simd/quantized_rows.h"

namespace ple {

/// A part of ple::Scalar.
struct ScalarIntegers {
  /// Memory that a product of many tokens needs for a tile of weights: none here.
  static std::size_t tile_bytes(std::size_t) { return 0; }

  /// Token t of x, [cols], as the nearest integers from -127 to 127 times a scale for each 32 values.
  static void quantize(const float* x, Dtype weights, std::size_t t, const QuantizedRows& out) {
    const int zero_point = integer_format(weights).zero_point;
    const std::size_t size = out.sub_block();
    for (std::size_t s = 0; s < out.sub_blocks(); ++s) {
      const std::size_t i = s * size, begin = i / 32 * 32;
      float largest = 0, not_a_number = 0;
      for (std::size_t k = begin; k < begin + 32; ++k) {
        largest = std::max(largest, std::fabs(x[k]));
        not_a_number += x[k] * 0;  // what is no number makes the scale none
      }
      const bool any = largest > least_magnitude;
      const float inverse = any ? 127.0f / largest : 0.0f, scale = (any ? largest / 127.0f : 0.0f) + not_a_number;
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < size; ++k) {
        const float value = x[i + k] * inverse;
        const auto integer = static_cast<std::int8_t>(std::fabs(value) <= 127.5f ? std::nearbyint(value) : 0.0f);
        out.values(t, s)[k] = integer;
        sum += integer;
      }
      out.scale(t, s) = scale;
      out.sum(t, s) = scale * static_cast<float>(sum);
      out.offset(t, s) = -zero_point * sum;
    }
  }
  static constexpr float least_magnitude = 1e-30f;  // of a block's largest value: what is less counts as 0

  /// y[t, r] = sum_c w[r, c] * x[t, c], sub-block after sub-block      w: integers, x: quantised for them
  static void matmul(const InterleavedRows& w, const QuantizedRows& x, float* y, std::size_t y_stride, std::byte*) {
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
};

}  // namespace ple
