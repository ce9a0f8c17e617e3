// SPDX-License-Identifier: Apache-2.0
// Products of integer weights and 8-bit activations in plain C++: what the vector kernels compute, in their order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "ple/dtype/integers.h"
#include "ple/simd/quantized_rows.h"

namespace ple {

/// A part of ple::Scalar.
struct ScalarIntegers {
  /// Room that matmul needs for weights it has unpacked: none here.
  static std::size_t tile_bytes(std::size_t) { return 0; }

  /// Token t of x, [cols], as the nearest integers from -127 to 127 times a scale for each 32 values.
  static void quantize(const float* x, std::size_t cols, Dtype weights, std::size_t t, const QuantizedRows& out) {
    const int zero_point = integer_format(weights).zero_point;
    const std::size_t size = values_per_chunk / out.sub_blocks();
    for (std::size_t i = 0; i < out.chunks() * values_per_chunk; i += size) {
      const std::size_t c = i / values_per_chunk, s = i % values_per_chunk / size, begin = i / 32 * 32;
      float largest = 0, not_a_number = 0;
      for (std::size_t k = begin; k < std::min(begin + 32, cols); ++k) {
        largest = std::max(largest, std::fabs(x[k]));
        not_a_number += x[k] * 0;  // what is no number makes the scale none
      }
      const bool any = largest > least_magnitude;
      const float inverse = any ? 127.0f / largest : 0.0f, scale = (any ? largest / 127.0f : 0.0f) + not_a_number;
      std::int32_t sum = 0;
      for (std::size_t k = 0; k < size; ++k) {
        const float value = i + k < cols ? x[i + k] * inverse : 0.0f;
        const auto integer = static_cast<std::int8_t>(std::fabs(value) <= 127.5f ? std::nearbyint(value) : 0.0f);
        out.values(t, c, s)[k] = integer;
        sum += integer;
      }
      out.scale(t, c, s) = scale;
      out.sum(t, c, s) = scale * static_cast<float>(sum);
      out.offset(t, c, s) = -zero_point * sum;
    }
  }
  static constexpr float least_magnitude = 1e-30f;  // of a block's largest value: what is less counts as 0

  /// y[t, r] = sum_c w[r, c] * x[t, c]      w: integers, x: quantised for them
  static void matmul(const IntegerWeights& w, const QuantizedRows& x, float* y, std::size_t y_stride, std::byte*) {
    const IntegerFormat& format = integer_format(w.dtype);
    const std::size_t size = format.sub_block, subs = values_per_chunk / size;
    for (std::size_t r = 0; r < w.rows; ++r) {
      for (std::size_t t = 0; t < x.tokens(); ++t) {
        float sums[16] = {};  // by lane_of
        for (std::size_t c = 0; c < x.chunks(); ++c) {
          IntegerChunk chunk;
          format.unpack(w.chunk(r, c), w.blocks(c), chunk);
          for (std::size_t s = 0; s < subs; ++s) {
            std::int32_t dot = x.offset(t, c, s);
            for (std::size_t k = 0; k < size; ++k) dot += chunk.integers[s * size + k] * x.values(t, c, s)[k];
            const std::size_t lane = lane_of(s, subs);
            sums[lane] = std::fma(static_cast<float>(dot) * x.scale(t, c, s), chunk.scales[lane], sums[lane]);
            if (format.has_minimum) sums[lane] = std::fma(-chunk.minimums[lane], x.sum(t, c, s), sums[lane]);
          }
        }
        float four[4];
        for (std::size_t v = 0; v < 4; ++v) {
          four[v] = sums[v] + sums[4 + v];
          if (subs == 16) four[v] += sums[8 + v] + sums[12 + v];
        }
        y[t * y_stride + r] = (four[0] + four[2]) + (four[1] + four[3]);
      }
    }
  }
};

}  // namespace ple
