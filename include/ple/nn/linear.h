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
struct IntegerScratch {
  std::size_t activations, tile, weights;  ///< bytes: of all tokens; of a part's unpacked weights; of its rows
  IntegerScratch(std::size_t tokens, std::size_t cols)
      : activations(lines(QuantizedRows::bytes(tokens, cols))),
        tile(lines(B::tile_bytes(cols))),
        weights(most_tile_bytes(cols)) {}
  std::size_t bytes(std::size_t parts) const { return activations + parts * (tile + weights); }

 private:
  static std::size_t lines(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }
  /// Of any type's tile: no code has more than 8 bits, no number of a sub-block of 16 values more than 32.
  static std::size_t most_tile_bytes(std::size_t cols) {
    return lines(rows_per_tile * (cols + cols / 16 * 4 + (cols / values_per_chunk + 1) * 4) + 2 * alignment);
  }
};

namespace detail {

/// Activations become integers once; then each part of the rows is multiplied with them. Rows that are not interleaved
/// are so on the way.
template <Backend B>
void multiply_integers(Executor& executor, const MatrixBase& weight, std::size_t first, Rows x, Rows y) {
  const std::size_t count = parts(executor);
  const IntegerScratch<B> sizes(x.rows, weight.cols());
  std::span<std::byte> memory = executor.scratch();
  AlignedVector<std::byte> own;  // for a caller without scratch memory
  if (memory.size() < sizes.bytes(count)) {
    own.resize(sizes.bytes(count));
    memory = own;
  }
  const Dtype dtype = weight.dtype();
  const QuantizedRows quantized(x.rows, weight.cols(), integer_format(dtype).sub_block, memory);
  for_each_row(executor, x.rows, x.cols, [&](std::size_t t) { B::quantize(x.row(t), dtype, t, quantized); });
  for (std::size_t t = x.rows; t < quantized.padded_tokens(); ++t) quantized.clear(t);
  const InterleavedLayout layout(dtype, weight.cols());
  const auto some = [&](std::size_t begin, std::size_t end, std::size_t part) {
    std::byte* tile = memory.data() + sizes.activations + part * (sizes.tile + sizes.weights);
    if (weight.interleaved()) {
      const InterleavedRows rows{dtype, layout, weight.data(), weight.rows()};
      return B::matmul(rows.slice(first + begin, end - begin), quantized, y.data + begin, y.stride, tile);
    }
    for (std::size_t r = begin; r < end; r += rows_per_tile) {
      weight.interleave_rows(first + r, std::min(rows_per_tile, end - r), tile + sizes.tile);
      const InterleavedRows rows{dtype, layout, tile + sizes.tile, std::min(rows_per_tile, end - r)};
      B::matmul(rows, quantized, y.data + r, y.stride, tile);
    }
  };
  if (y.cols * weight.cols() * x.rows < parallel_threshold) {
    some(0, y.cols, 0);
  } else {
    parallel_for(executor, y.cols, rows_per_tile, some);
  }
}

}  // namespace detail

/// y[t, o] = sum_i weight[first + o, i] x[t, i] for y.cols outputs.      weight: [out, in], of any type
/// Where the weights are interleaved, `first` is a multiple of rows_per_tile.
template <Backend B, class T>
void multiply(Executor& executor, const Matrix<T>& weight, std::size_t first, Rows x, Rows y) {
  if (is_integer_type(weight.dtype())) return detail::multiply_integers<B>(executor, weight, first, x, y);
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
