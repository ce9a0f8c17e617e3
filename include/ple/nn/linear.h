// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "ple/core/executor.h"
#include "ple/core/memory.h"
#include "ple/simd/backend.h"
#include "ple/tensor/matrix.h"

namespace ple {

/// Work below this many multiplications is not worth waking a thread for.
inline constexpr std::size_t parallel_threshold = 32768;

/// Calls f(row) for every row; in parallel where `cost`, the operations per row, makes it worth while.
template <class F>
void for_each_row(Executor& executor, std::size_t rows, std::size_t cost, F&& f) {
  const auto some = [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t r = begin; r < end; ++r) f(r);
  };
  if (rows * cost < parallel_threshold) {
    some(0, rows, 0);
  } else {
    parallel_for(executor, rows, 1, some);
  }
}

/// Scratch memory that products with integer weights need, for up to `tokens` tokens and rows of up to `cols` values.
template <Backend B>
std::size_t scratch_bytes(std::size_t tokens, std::size_t cols, std::size_t parts) {
  const auto lines = [](std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; };
  return lines(QuantizedRows::bytes(tokens, cols)) + parts * lines(B::tile_bytes(cols));
}

namespace detail {

/// Activations become integers once; then each part of the rows is multiplied with them, as multiply(quantized, begin,
/// end, tile) says, where tile is room for B::matmul.
template <Backend B, class F>
void multiply_integers(Executor& executor, const IntegerWeights& w, Rows x, F&& multiply) {
  const std::size_t needed = scratch_bytes<B>(x.rows, w.cols, parts(executor));
  std::span<std::byte> memory = executor.scratch();
  AlignedVector<std::byte> own;  // for a caller without scratch memory
  if (memory.size() < needed) {
    own.resize(needed);
    memory = own;
  }
  const std::size_t tile_bytes = (B::tile_bytes(w.cols) + alignment - 1) / alignment * alignment;
  std::byte* tiles = memory.data() + needed - parts(executor) * tile_bytes;
  const QuantizedRows quantized(x.rows, w.cols, integer_format(w.dtype).sub_block, memory);
  for_each_row(executor, x.rows, x.cols, [&](std::size_t t) { B::quantize(x.row(t), x.cols, w.dtype, t, quantized); });
  for (std::size_t t = x.rows; t < quantized.padded_tokens(); ++t) quantized.clear(t);
  const auto some = [&](std::size_t begin, std::size_t end, std::size_t part) {
    multiply(quantized, begin, end, tiles + part * tile_bytes);
  };
  if (w.rows * w.cols * x.rows < parallel_threshold) {
    some(0, w.rows, 0);
  } else {
    parallel_for(executor, w.rows, 16, some);
  }
}

}  // namespace detail

/// y[t, o] = sum_i weight[first + o, i] x[t, i] for y.cols outputs.      weight: [out, in], of any type
template <Backend B, class T>
void multiply(Executor& executor, const Matrix<T>& weight, std::size_t first, Rows x, Rows y) {
  if (is_integer_type(weight.dtype())) {
    const std::size_t row_bytes = bytes_of(weight.dtype(), weight.cols());
    const IntegerWeights w{weight.dtype(), weight.data() + first * row_bytes, row_bytes, y.cols, weight.cols()};
    return detail::multiply_integers<B>(
        executor, w, x, [&](const QuantizedRows& quantized, std::size_t begin, std::size_t end, std::byte* tile) {
          B::matmul(w.slice(begin, end - begin), quantized, y.data + begin, y.stride, tile);
        });
  }
  visit_floats(weight, [&](const auto& w) {
    const auto some = [&](std::size_t begin, std::size_t end, std::size_t) {
      B::matmul(w.row(first + begin), w.cols(), end - begin, w.cols(), x.data, x.stride, x.rows, y.data + begin,
                y.stride);
    };
    if (y.cols * w.cols() * x.rows < parallel_threshold) {
      some(0, y.cols, 0);
    } else {
      parallel_for(executor, y.cols, 16, some);
    }
  });
}

/// y = W x, without bias: y[t, o] = sum_i weight[o, i] x[t, i]      weight: [out, in]
template <class T, Backend B>
struct Linear {
  Matrix<T> weight;

  Linear() = default;
  Linear(std::size_t out, std::size_t in) : weight(out, in) {}

  void operator()(Executor& executor, Rows x, Rows y) const { multiply<B>(executor, weight, 0, x, y); }
};

/// y += x
template <Backend B>
void add(Executor& executor, Rows x, Rows y) {
  for_each_row(executor, y.rows, y.cols, [&](std::size_t t) { B::add(x.row(t), y.cols, y.row(t)); });
}

}  // namespace ple
