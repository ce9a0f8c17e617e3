// SPDX-License-Identifier: Apache-2.0
// What training needs beside the forward pass's kernels, in plain C++. Formulas: "dx" is the loss's derivative by x.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// A matrix for products: element [i, k] is data[i * row + k * col], so that a transposed one needs no copy.
struct Strided {
  const float* data;
  std::size_t row, col;
};

struct ScalarGradients {
  /// c[i, j] += sum_k a[i, k] b[k, j]      a: [m, depth], b: [depth, n], c: [m, n]
  /// A sum runs first to last, whatever part of c is computed at once.
  static void gemm(Strided a, Strided b, std::size_t m, std::size_t n, std::size_t depth, float* c,
                   std::size_t c_stride) {
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t k = 0; k < depth; ++k) {
        const float x = a.data[i * a.row + k * a.col];
        for (std::size_t j = 0; j < n; ++j) c[i * c_stride + j] += x * b.data[k * b.row + j * b.col];
      }
    }
  }

  /// dx of y = x r w with r = 1 / sqrt(mean(x^2) + epsilon): g = dy w, dx = r (g - x r mean(g x r)). Without a weight
  /// where it is null. dx may be dy.
  static void rms_norm_backward(const float* x, const float* weight, std::size_t n, float epsilon, const float* dy,
                                float* dx) {
    float squares = 0, products = 0;
    for (std::size_t i = 0; i < n; ++i) {
      squares += x[i] * x[i];
      products += dy[i] * (weight ? weight[i] : 1.0f) * x[i];
    }
    const auto count = static_cast<float>(n);
    const float r = 1.0f / std::sqrt(squares / count + epsilon), part = r * r * products / count;
    for (std::size_t i = 0; i < n; ++i) dx[i] = r * (dy[i] * (weight ? weight[i] : 1.0f) - x[i] * part);
  }

  /// Of a = gelu(g) u, the tanh form: g becomes dg = da u gelu'(g), u becomes du = da gelu(g).
  /// gelu(g) = g s, s = 1 / (1 + exp(-2 v)), v = sqrt(2/pi) (g + 0.044715 g^3), so gelu'(g) = s + g s (1 - s) 2 v'
  static void gated_gelu_backward(std::size_t n, const float* da, float* g, float* u) {
    for (std::size_t i = 0; i < n; ++i) {
      const float x = (std::min)((std::max)(g[i], -gelu_range), gelu_range), squared = x * x;
      const float minus_2v = -1.5957691216f * (x + 0.044715f * x * squared);
      const float s = 1.0f / (1.0f + std::exp((std::min)(minus_2v, 88.0f)));
      const float slope = s + x * s * (1.0f - s) * 1.5957691216f * (1.0f + 3 * 0.044715f * squared);
      const float gelu = g[i] * s;
      g[i] = da[i] * u[i] * slope;
      u[i] = da[i] * gelu;
    }
  }
  static constexpr float gelu_range = 15;  // outside of +-15, gelu is 0 or its argument in f32's precision

  /// ds of p = softmax(s), from dp: dp becomes p (dp - delta), with delta = sum(p dp).
  static void softmax_backward(std::size_t n, const float* p, float delta, float* dp) {
    for (std::size_t i = 0; i < n; ++i) dp[i] = p[i] * (dp[i] - delta);
  }

  /// log(sum(exp(y)))
  static float log_sum_exp(std::size_t n, const float* y) {
    float largest = -std::numeric_limits<float>::infinity(), sum = 0;
    for (std::size_t i = 0; i < n; ++i) largest = (std::max)(largest, y[i]);
    for (std::size_t i = 0; i < n; ++i) sum += std::exp(y[i] - largest);
    return largest + std::log(sum);
  }

  /// dz of y = cap tanh(z / cap) under the loss factor * log_sum_exp(y): y becomes factor exp(y - lse) (1 - (y/cap)^2).
  /// cap 0: y = z.
  static void cross_entropy_backward(float cap, float lse, float factor, std::size_t n, float* y) {
    const float inverse = cap > 0 ? 1 / cap : 0.0f;
    for (std::size_t i = 0; i < n; ++i) {
      const float tanh = y[i] * inverse;
      y[i] = factor * std::exp(y[i] - lse) * (1.0f - tanh * tanh);
    }
  }
};

}  // namespace ple::inline PLE_ABI
