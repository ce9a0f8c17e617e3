// SPDX-License-Identifier: Apache-2.0
// The backend in plain C++: it defines every kernel, and tests compare every other backend with it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "ple/core/config.h"
#include "ple/dtype/dtype.h"
#include "ple/simd/scalar_gradients.h"
#include "ple/simd/scalar_integers.h"

namespace ple::inline PLE_ABI {

/// What is left of scores that became exp(score - largest): softmax before the division by `sum`.
struct ExpSum {
  float largest, sum;
};

/// Rows are `stride` values apart. Sums run in f32, first to last.
struct Scalar : ScalarIntegers, ScalarGradients {
  static const char* name() { return "scalar"; }
  using ScalarIntegers::matmul;

  /// y[t, r] = sum_c w[r, c] * x[t, c]      w: [rows, cols], x: [tokens, cols], y: [tokens, rows]
  /// x is f32, or bf16 if weights are bf16 and multiplies_bf16() says that rounding pays.
  template <StoredType T, StoredType X>
  static void matmul(const T* w, std::size_t w_stride, std::size_t rows, std::size_t cols, const X* x,
                     std::size_t x_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t r = 0; r < rows; ++r) {
        float sum = 0;
        for (std::size_t c = 0; c < cols; ++c) sum += to_f32(w[r * w_stride + c]) * to_f32(x[t * x_stride + c]);
        y[t * y_stride + r] = sum;
      }
    }
  }

  static constexpr bool multiplies_bf16() { return false; }

  static void round(const float* x, std::size_t n, bf16* y) {
    for (std::size_t i = 0; i < n; ++i) y[i] = to_bf16(x[i]);
  }

  /// y[t, c] += sum_i weights[t, i] * rows[i, c]      rows: [n, cols], weights: [tokens, n], y: [tokens, cols]
  template <StoredType T>
  static void weighted_sum(const T* rows, std::size_t stride, std::size_t n, std::size_t cols, const float* weights,
                           std::size_t weights_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t i = 0; i < n; ++i) {
        const float weight = weights[t * weights_stride + i];
        for (std::size_t c = 0; c < cols; ++c) y[t * y_stride + c] += weight * to_f32(rows[i * stride + c]);
      }
    }
  }

  /// y = x, widened: n values, a whole number of blocks
  template <StoredType T>
  static void decode(const T* x, std::size_t n, float* y) {
    constexpr std::size_t block = DtypeTraits<T>::values_per_block;
    for (std::size_t i = 0; i < n / block; ++i) DtypeTraits<T>::decode(x[i], y + i * block);
  }

  static void add(const float* x, std::size_t n, float* y) {
    for (std::size_t i = 0; i < n; ++i) y[i] += x[i];
  }

  static void multiply(const float* x, std::size_t n, float* y) {
    for (std::size_t i = 0; i < n; ++i) y[i] *= x[i];
  }

  static void scale(float factor, std::size_t n, float* y) {
    for (std::size_t i = 0; i < n; ++i) y[i] *= factor;
  }

  /// y = x / sqrt(mean(x^2) + epsilon) * weight; without a weight where it is null. y may be x.
  static void rms_norm(const float* x, const float* weight, std::size_t n, float epsilon, float* y) {
    float sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += x[i] * x[i];
    const float factor = 1.0f / std::sqrt(sum / static_cast<float>(n) + epsilon);
    for (std::size_t i = 0; i < n; ++i) y[i] = x[i] * factor * (weight ? weight[i] : 1.0f);
  }

  /// Rotates the pairs (x[i], x[i + half]) by the angles with these cosines and sines.
  static void rope(const float* cosine, const float* sine, std::size_t half, float* x) {
    for (std::size_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[i + half];
      x[i] = a * cosine[i] - b * sine[i];
      x[i + half] = b * cosine[i] + a * sine[i];
    }
  }

  /// y = gelu(y), the tanh form: y/2 (1 + tanh u) = y / (1 + exp(-2 u)), u = sqrt(2/pi) (y + 0.044715 y^3)
  static void gelu(std::size_t n, float* y) {
    for (std::size_t i = 0; i < n; ++i) {
      const float x = y[i] < gelu_lowest ? gelu_lowest : y[i];
      const float minus_2u = -1.5957691216f * (x + 0.044715f * x * x * x);
      y[i] = x / (1.0f + std::exp((std::min)(minus_2u, 88.0f)));
    }
  }
  static constexpr float gelu_lowest = -15;  // below this, gelu is 0 in f32's precision

  /// y = max(y - (mean + z * deviation), 0), with the mean and the standard deviation of the n values
  static void gaussian_topk(float z, std::size_t n, float* y) {
    float sum = 0, squares = 0;
    for (std::size_t i = 0; i < n; ++i) sum += y[i];
    const float mean = sum / static_cast<float>(n);
    for (std::size_t i = 0; i < n; ++i) squares += (y[i] - mean) * (y[i] - mean);
    const float cutoff = mean + z * std::sqrt(squares / static_cast<float>(n));
    for (std::size_t i = 0; i < n; ++i) y[i] = y[i] <= cutoff ? 0 : y[i] - cutoff;
  }

  /// y = exp(y - largest y); divided by the returned sum, it is softmax(y)
  static ExpSum exp_sum(std::size_t n, float* y) {
    float largest = -std::numeric_limits<float>::infinity(), sum = 0;
    for (std::size_t i = 0; i < n; ++i) largest = (std::max)(largest, y[i]);
    for (std::size_t i = 0; i < n; ++i) sum += y[i] = std::exp(y[i] - largest);
    return {largest, sum};
  }

  static void softcap(float cap, std::size_t n, float* y) {
    for (std::size_t i = 0; i < n; ++i) y[i] = cap * std::tanh(y[i] / cap);
  }
};

}  // namespace ple::inline PLE_ABI
