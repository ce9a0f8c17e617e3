// SPDX-License-Identifier: Apache-2.0
// A product with weights in training: y = W x + s B (A x). W is frozen, of any type, or trained in f32. Products are
// computed in f32: rows of other types are widened on the way.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/core/parallel.h"
#include "ple/nn/linear.h"
#include "ple/simd/decode.h"
#include "ple/tensor/matrix.h"
#include "ple/tensor/rows.h"
#include "ple/train/parameters.h"

namespace ple::inline PLE_ABI {

/// What a backend must have beside Backend to train; ple/simd/scalar_gradients.h defines each function.
template <class B>
concept GradientBackend = Backend<B> && requires(const float* x, float* y, std::size_t n, float a, Strided matrix) {
  B::gemm(matrix, matrix, n, n, n, y, n);
  B::rms_norm_backward(x, x, n, a, x, y);
  B::gated_gelu_backward(n, x, y, y);
  B::softmax_backward(n, x, a, y);
  { B::log_sum_exp(n, x) } -> std::same_as<float>;
  B::cross_entropy_backward(a, a, a, n, y);
};

/// Rows of weights that are not f32, widened; activations of adapters. One product at a time uses it.
struct LinearWorkspace {
  AlignedVector<float> weights, ax, u;

  static float* need(AlignedVector<float>& memory, std::size_t size) {
    if (memory.size() < size) memory.resize(size);
    return memory.data();
  }
};

namespace detail {

inline constexpr std::size_t widened_rows = 32;    ///< of a task, in a product with W
inline constexpr std::size_t gradient_rows = 256;  ///< of W, widened at once for a product with its transpose
inline constexpr std::size_t gradient_strip = 64;  ///< columns of a task

/// Rows [first, first + count) of a matrix in f32: where they lie, or widened into `memory`, [count, cols].
template <Backend B, class T>
const float* f32_rows(const Matrix<T>& w, std::size_t first, std::size_t count, float* memory) {
  const std::size_t row_bytes = bytes_of(w.dtype(), w.cols());
  if (w.dtype() == Dtype::f32) return reinterpret_cast<const float*>(w.data() + first * row_bytes);
  for (std::size_t r = 0; r < count; ++r) {
    if constexpr (Matrix<T>::may_be_integers) {
      if (w.packed()) {
        w.decode_packed_row(first + r, memory + r * w.cols());
        continue;
      }
    }
    decode<B, T>(w.dtype(), w.data() + (first + r) * row_bytes, w.cols(), memory + r * w.cols());
  }
  return memory;
}

/// y = x W^T by tiles of W's rows, which rows(first, count, task) gives in f32. x: [T, in], y: [T, out]
template <GradientBackend B, class F>
void multiply_rows(const Context& context, Rows x, Rows y, F&& rows) {
  const auto some = [&](std::size_t begin, std::size_t end, std::size_t task) {
    for (std::size_t r = begin; r < end; r += widened_rows) {
      const std::size_t count = (std::min)(widened_rows, end - r);
      for (std::size_t t = 0; t < y.rows; ++t) std::fill_n(y.row(t) + r, count, 0.0f);
      B::gemm(Strided{x.data, x.stride, 1}, Strided{rows(r, count, task), 1, x.cols}, x.rows, count, x.cols, y.data + r,
              y.stride);
    }
  };
  if (x.rows * x.cols * y.cols < parallel_threshold) return some(0, y.cols, 0);
  parallel_for(context, y.cols, widened_rows, some);
}

/// y = x W^T
template <GradientBackend B, class T>
void multiply_f32(const Context& context, const Matrix<T>& w, LinearWorkspace& workspace, Rows x, Rows y) {
  const std::size_t each = widened_rows * w.cols();
  float* const memory = LinearWorkspace::need(workspace.weights, tasks(context.threads) * each);
  multiply_rows<B>(context, x, y, [&](std::size_t first, std::size_t count, std::size_t task) {
    return f32_rows<B>(w, first, count, memory + task * each);
  });
}

/// c += a b, by strips of b's columns. a: [m, depth]; b: [depth, n], with rows of b_stride; c: [m, n]
template <GradientBackend B>
void add_product(const Context& context, Strided a, std::size_t depth, const float* b, std::size_t b_stride, Rows c) {
  const auto strips = [&](std::size_t begin, std::size_t end, std::size_t) {
    B::gemm(a, Strided{b + begin, b_stride, 1}, c.rows, end - begin, depth, c.data + begin, c.stride);
  };
  if (c.rows * c.cols * depth < parallel_threshold) return strips(0, c.cols, 0);
  parallel_for(context, c.cols, gradient_strip, strips);
}

/// dx += dy W. dy: [T, out], dx: [T, in]
template <GradientBackend B, class T>
void add_transposed_product(const Context& context, const Matrix<T>& w, LinearWorkspace& workspace, Rows dy, Rows dx) {
  if (w.dtype() == Dtype::f32) {
    const float* rows = f32_rows<B>(w, 0, w.rows(), nullptr);
    return add_product<B>(context, {dy.data, dy.stride, 1}, w.rows(), rows, w.cols(), dx);
  }
  float* const memory = LinearWorkspace::need(workspace.weights, gradient_rows * w.cols());
  for (std::size_t r = 0; r < w.rows(); r += gradient_rows) {
    const std::size_t count = (std::min)(gradient_rows, w.rows() - r);
    for_each_row(context, count, w.cols(), [&](std::size_t i) { f32_rows<B>(w, r + i, 1, memory + i * w.cols()); });
    add_product<B>(context, {dy.data + r, dy.stride, 1}, count, memory, w.cols(), dx);
  }
}

}  // namespace detail

/// One Linear of a model. `weight` and `adapter` are null where nothing is trained.
template <class T, GradientBackend B>
struct TrainedLinear {
  const Linear<T, B>& linear;
  TrainedValues* weight;  ///< [out, in], instead of the model's
  TrainedAdapter* adapter;
  LinearWorkspace& workspace;

  bool trains() const { return weight != nullptr || adapter != nullptr; }

  /// y = W x + s B (A x). x: [T, in], y: [T, out]
  void forward(const Context& context, Rows x, Rows y) const {
    if (weight != nullptr) {
      multiply(context, weight->values.data(), x, y);
    } else {
      detail::multiply_f32<B>(context, linear.weight, workspace, x, y);
    }
    if (adapter == nullptr) return;
    const Rows ax = adapter_ax(context, x);
    detail::add_product<B>(context, {ax.data, ax.stride, 1}, ax.cols, adapter->b.values.data(), adapter->out, y);
  }

  /// dx += dy W + u A, with u = s dy B; dA += u^T x, dB += s dy^T (A x). Without dx.data, only what is trained.
  void backward(const Context& context, Rows x, Rows dy, Rows dx) const {
    if (weight != nullptr) {
      const Rows dw{weight->gradient.data(), dy.cols, x.cols, x.cols};
      parallel_for(context, dy.cols, detail::widened_rows, [&](std::size_t begin, std::size_t end, std::size_t) {
        B::gemm(Strided{dy.data + begin, 1, dy.stride}, Strided{x.data, x.stride, 1}, end - begin, x.cols, x.rows,
                dw.row(begin), dw.stride);
      });
      if (dx.data != nullptr) {
        detail::add_product<B>(context, {dy.data, dy.stride, 1}, dy.cols, weight->values.data(), x.cols, dx);
      }
    } else if (dx.data != nullptr) {
      detail::add_transposed_product<B>(context, linear.weight, workspace, dy, dx);
    }
    if (adapter == nullptr) return;
    const std::size_t rank = adapter->rank;
    const Rows ax = adapter_ax(context, x);
    const Rows u{LinearWorkspace::need(workspace.u, x.rows * rank), x.rows, rank, rank};
    multiply(context, adapter->b.values.data(), dy, u);
    for (std::size_t t = 0; t < u.rows; ++t) B::scale(adapter->scale, rank, u.row(t));
    const Rows da{adapter->a.gradient.data(), rank, x.cols, x.cols};
    const Rows db{adapter->b.gradient.data(), rank, dy.cols, dy.cols};
    detail::add_product<B>(context, {ax.data, 1, rank}, x.rows, dy.data, dy.stride, db);
    detail::add_product<B>(context, {u.data, 1, rank}, x.rows, x.data, x.stride, da);
    if (dx.data == nullptr) return;
    detail::add_product<B>(context, {u.data, rank, 1}, rank, adapter->a.values.data(), x.cols, dx);
  }

 private:
  /// y = x W^T, W in f32: [y.cols, x.cols]
  static void multiply(const Context& context, const float* w, Rows x, Rows y) {
    detail::multiply_rows<B>(context, x, y,
                             [&](std::size_t first, std::size_t, std::size_t) { return w + first * x.cols; });
  }

  /// s A x, [T, rank]
  Rows adapter_ax(const Context& context, Rows x) const {
    const Rows ax{LinearWorkspace::need(workspace.ax, x.rows * adapter->rank), x.rows, adapter->rank, adapter->rank};
    multiply(context, adapter->a.values.data(), x, ax);
    for (std::size_t t = 0; t < ax.rows; ++t) B::scale(adapter->scale, ax.cols, ax.row(t));
    return ax;
  }
};

}  // namespace ple::inline PLE_ABI
