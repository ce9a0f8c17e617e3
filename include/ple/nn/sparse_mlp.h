// SPDX-License-Identifier: Apache-2.0
// A feed-forward whose gate is mostly 0: weights that the gate switches off are neither read nor multiplied.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <numbers>
#include <utility>

#include "ple/core/config.h"
#include "ple/nn/mlp.h"
#include "ple/nn/sparse_weights.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// The z below which `share` of a standard normal distribution lies; 0 < share < 1.
inline double normal_quantile(double share) {
  double low = -40, high = 40;
  for (int i = 0; i < 100; ++i) {
    const double z = (low + high) / 2;
    (std::erfc(-z / std::numbers::sqrt2) / 2 < share ? low : high) = z;
  }
  return high;
}

/// y = Wdown (gelu(relu(g - mean(g) - z deviation(g))) * (Wup x)) with g = Wgate x. This is Gaussian top-k: the share
/// of g that lies below z in a normal distribution becomes 0. Mean and standard deviation are those of each token's g.
/// Source: Gemma 3n's activation sparsity, after You et al. 2025 (Spark Transformer).
///
/// Only rows of Wup and columns of Wdown whose gate is not 0 are read. To read single columns, float types take a
/// transposed copy of Wdown. For integer types, repack_up and repack_down store each row of Wup and column of Wdown by
/// itself, as the only copy in memory; else products read all. Sums have one order for any number of tokens.
///
/// The rows and columns differ from token to token, so tokens share no product, and multiply() is not used for up and
/// down. An adapter of these two would go here.
template <class T, Backend B>
struct SparseMlp : Mlp<T, B> {
  using Mlp<T, B>::gate;
  using Mlp<T, B>::up;
  using Mlp<T, B>::down;

  float sparsity = 0;  ///< share of the gate that becomes 0; 0: a plain Mlp

  SparseMlp() = default;
  SparseMlp(std::size_t d, std::size_t intermediate_size, float share)
      : Mlp<T, B>(d, intermediate_size),
        sparsity(share),
        quantile_(share > 0 ? static_cast<float>(normal_quantile(double{share})) : 0) {}

  /// Call when the weights have values.
  void finalize() {
    if (sparsity == 0) return;
    visit_floats(down.weight, [&]<class Stored>(const MatrixView<Stored>& w) {
      const std::size_t rows = w.cols(), cols = w.rows();
      auto values = std::make_shared<AlignedVector<Stored>>(rows * cols);
      constexpr std::size_t tile = 64;  // in tiles, so that reads and writes use whole cache lines
      Stored piece[tile][tile];
      for (std::size_t r = 0; r < rows; r += tile) {
        for (std::size_t c = 0; c < cols; c += tile) {
          const std::size_t height = (std::min)(tile, rows - r), width = (std::min)(tile, cols - c);
          for (std::size_t j = 0; j < width; ++j) {
            for (std::size_t i = 0; i < height; ++i) piece[i][j] = w.row(c + j)[r + i];
          }
          for (std::size_t i = 0; i < height; ++i) std::copy_n(piece[i], width, values->data() + (r + i) * cols + c);
        }
      }
      const auto* bytes = reinterpret_cast<const std::byte*>(values->data());
      down_columns_ = Matrix<T>(rows, cols);
      down_columns_.load(
          Tensor{"memory", "down", w.dtype(), {rows, cols}, bytes, rows * cols * sizeof(Stored), std::move(values)});
    });
  }

  /// Repacks integer weights that have values: up by rows, down by columns. Returns whether it did.
  bool repack_up(Executor& executor, Arena& arena) { return sparsity > 0 && up_rows_.load(up.weight, executor, arena); }
  bool repack_down(Executor& executor, Arena& arena) {
    return sparsity > 0 && packed_columns_.load(down.weight, executor, arena);
  }
  /// Whether products read only what the gate needs, for any number of tokens.
  bool up_by_rows() const { return sparsity > 0 && (up_rows_.loaded() || !is_integer_type(up.weight.dtype())); }
  bool down_by_columns() const { return sparsity > 0 && (packed_columns_.loaded() || down_columns_.loaded()); }

  /// Bytes of Context::workspace for up to `tokens` tokens, in addition to what the Linears' products need.
  std::size_t workspace_bytes(std::size_t tokens) const {
    if (sparsity == 0 || !up.weight.holds_integers()) return 0;
    return tokens * token_bytes(up.weight.cols());
  }

  /// x, y: [T, d]
  void operator()(const Context& context, const MlpWorkspace& all, Rows x, Rows y) const {
    if (sparsity == 0) return Mlp<T, B>::operator()(context, all, x, y);
    const Rows a = all.gate.slice(0, x.rows).columns(0, gate.weight.rows());
    gate(context, x, a);
    for_each_row(context, x.rows, a.cols, [&](std::size_t t) {
      B::gaussian_topk(quantile_, a.cols, a.row(t));
      B::gelu(a.cols, a.row(t));
    });
    multiply_up(context, all, x, a);
    multiply_down(context, a, y);
  }

 private:
  /// A token's quantized activations, in both layouts.
  static std::size_t token_bytes(std::size_t cols) {
    return aligned_size(QuantizedRows::bytes(1, cols)) + aligned_size(RowActivations::bytes(cols));
  }

  /// a[t, i] *= Wup[i] x[t] where a[t, i] is not 0
  void multiply_up(const Context& context, const MlpWorkspace& all, Rows x, Rows a) const {
    const Matrix<T>& weight = up.weight;
    if (up_rows_.loaded()) return multiply_rows(context, x, a);
    if (is_integer_type(weight.dtype())) {
      const Rows u = all.up.slice(0, x.rows).columns(0, a.cols);
      up(context, x, u);
      return for_each_row(context, x.rows, a.cols, [&](std::size_t t) { B::multiply(u.row(t), a.cols, a.row(t)); });
    }
    visit_floats(weight, [&](const auto& w) {
      in_tasks(context, a.rows, a.cols, 64, w.cols(), [&](std::size_t begin, std::size_t end, std::size_t) {
        for_each_active(a, begin, end, [&](std::size_t t, std::size_t i) {
          float u = 0;
          B::matmul(w.row(i), w.cols(), 1, w.cols(), x.row(t), x.stride, 1, &u, 1);
          a.row(t)[i] *= u;
        });
      });
    });
  }

  /// multiply_up, for rows of integers.
  void multiply_rows(const Context& context, Rows x, Rows a) const {
    const PackedRows& rows = up_rows_.rows();
    const Dtype dtype = up.weight.dtype();
    const std::size_t sub_block = rows.layout.format->sub_block;
    const std::size_t quantized_bytes = aligned_size(QuantizedRows::bytes(1, x.cols)), token = token_bytes(x.cols);
    const std::span<std::byte> memory = context.take(x.rows * token);
    const auto activations = [&](std::size_t t) {
      return RowActivations(x.cols, sub_block, memory.subspan(t * token + quantized_bytes));
    };
    for_each_row(context, x.rows, x.cols, [&](std::size_t t) {
      const QuantizedRows values(1, x.cols, sub_block, memory.subspan(t * token, quantized_bytes));
      B::quantize(x.row(t), dtype, 0, values);
      activations(t).take(values, 0);
    });
    in_tasks(context, a.rows, a.cols, 64, x.cols, [&](std::size_t begin, std::size_t end, std::size_t) {
      constexpr std::size_t most = 128;
      std::size_t active[most];
      float u[most];
      for (std::size_t t = 0; t < x.rows; ++t) {
        const RowActivations values = activations(t);
        for (std::size_t i = begin, count = 0; i < end; ++i) {
          if (a.row(t)[i] != 0) active[count++] = i;
          if (count < most && i + 1 < end) continue;
          B::multiply_rows(rows, active, count, values, u);
          for (std::size_t k = 0; k < count; ++k) a.row(t)[active[k]] *= u[k];
          count = 0;
        }
      }
    });
  }

  /// y[t] = sum_i a[t, i] Wdown[:, i]
  void multiply_down(const Context& context, Rows a, Rows y) const {
    if (packed_columns_.loaded()) return multiply_columns(context, a, y);
    if (!down_columns_.loaded()) return down(context, a, y);
    visit_floats(down_columns_, [&](const auto& w) {
      in_tasks(context, a.rows, y.cols, 128, a.cols, [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t t = 0; t < y.rows; ++t) std::fill(y.row(t) + begin, y.row(t) + end, 0.0f);
        for_each_active(a, 0, a.cols, [&](std::size_t t, std::size_t i) {
          B::weighted_sum(w.row(i) + begin, w.cols(), 1, end - begin, a.row(t) + i, 1, 1, y.row(t) + begin, y.stride);
        });
      });
    });
  }

  /// multiply_down, for columns of integers.
  void multiply_columns(const Context& context, Rows a, Rows y) const {
    const PackedColumns& columns = packed_columns_.columns();
    const QuantizedRows values(a.rows, a.cols, columns.layout.format->sub_block,
                               context.take(QuantizedRows::bytes(a.rows, a.cols)));
    for_each_row(context, a.rows, a.cols,
                 [&](std::size_t t) { B::quantize(a.row(t), down.weight.dtype(), t, values); });
    in_tasks(context, a.rows, y.cols, 4 * PackedColumnLayout::group, a.cols,
             [&](std::size_t begin, std::size_t end, std::size_t) {
               for (std::size_t t = 0; t < y.rows; ++t) {
                 B::multiply_columns(columns, begin, end - begin, values, t, y.row(t) + begin);
               }
             });
  }

  /// Calls f(begin, end, task) for ranges of [0, n), in parallel if n dense products of `cols` values per token, less
  /// the sparsity, are enough work. A single token gets few tasks, since each scans its gate.
  template <class F>
  void in_tasks(const Context& context, std::size_t tokens, std::size_t n, std::size_t grain, std::size_t cols,
                F&& f) const {
    if (static_cast<float>(tokens * n * cols) * (1 - sparsity) < static_cast<float>(parallel_threshold)) {
      return f(0, n, 0);
    }
    parallel_for(context, n, grain, tokens == 1 ? few_tasks(context.threads) : tasks(context.threads), f);
  }

  /// Calls f(t, i) where a[t, i] is not 0, i in [begin, end). All tokens use a few rows of weights while these are
  /// cached; for each token, i rises.
  template <class F>
  static void for_each_active(Rows a, std::size_t begin, std::size_t end, F&& f) {
    constexpr std::size_t rows = 64;
    for (std::size_t first = begin; first < end; first += rows) {
      for (std::size_t t = 0; t < a.rows; ++t) {
        for (std::size_t i = first; i < (std::min)(first + rows, end); ++i) {
          if (a.row(t)[i] != 0) f(t, i);
        }
      }
    }
  }

  float quantile_ = 0;
  Matrix<T> down_columns_;   // [intermediate_size, d]: Wdown transposed, for float types
  RowPackedWeight up_rows_;  // for integer types, like the next
  ColumnPackedWeight packed_columns_;
};

}  // namespace ple::inline PLE_ABI
