// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "ple/core/executor.h"
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

/// y = W x, without bias: y[t, o] = sum_i weight[o, i] x[t, i]      weight: [out, in]
template <class T, Backend B>
struct Linear {
  Matrix<T> weight;

  Linear() = default;
  Linear(std::size_t out, std::size_t in) : weight(out, in) {}

  void operator()(Executor& executor, Rows x, Rows y) const { outputs(executor, 0, x, y); }

  /// Only the outputs [first, first + y.cols).
  void outputs(Executor& executor, std::size_t first, Rows x, Rows y) const {
    visit(weight, [&](const auto& w) {
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
};

/// y += x
template <Backend B>
void add(Executor& executor, Rows x, Rows y) {
  for_each_row(executor, y.rows, y.cols, [&](std::size_t t) { B::add(x.row(t), y.cols, y.row(t)); });
}

}  // namespace ple
