// SPDX-License-Identifier: Apache-2.0
// Products of activations with the weights of Linears. nn/linear.h includes this.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/function_ref.h"
#include "ple/core/memory.h"
#include "ple/core/parallel.h"
#include "ple/nn/low_rank.h"
#include "ple/simd/backend.h"
#include "ple/tensor/matrix.h"

namespace ple::inline PLE_ABI {

template <class T, Backend B>
struct Linear;

/// y[t, o] = sum_i weight[first + o, i] x[t, i], o < y.cols. Packed weights: `first` is a multiple of rows_per_tile.
template <class T, Backend B>
struct Product {
  const Linear<T, B>& linear;  ///< [out, in], of any type
  Rows y;
  std::size_t first = 0;
};

/// Called for outputs [begin, end) by the thread that computed them. May be empty.
using Epilogue = FunctionRef<void(std::size_t begin, std::size_t end)>;
using Then = Epilogue;  ///< Old name; goes with the next version.

namespace detail {

/// Workspace for products with integer weights: up to `tokens` tokens, rows of up to `cols` values.
template <Backend B>
struct IntegerWorkspace {
  std::size_t activations, tile, weights;  ///< bytes: all tokens; a task's unpacked weights; its repacked rows
  IntegerWorkspace(std::size_t tokens, std::size_t cols)
      : activations(aligned_size(QuantizedRows::bytes(tokens, cols))),
        tile(aligned_size(B::tile_bytes(cols))),
        weights(most_tile_bytes(cols)) {}
  std::size_t bytes(std::size_t tasks) const { return activations + tasks * (tile + weights); }

 private:
  /// A bound for any type: a quant has at most 8 bits, the scales of a sub-block of 16 at most 32.
  static std::size_t most_tile_bytes(std::size_t cols) {
    return aligned_size(rows_per_tile * (cols + cols / 16 * 4 + (cols / values_per_chunk + 1) * 4) + 2 * alignment);
  }
};

/// Activations in bf16. A cache line lies between rows: rows of whole pages, which many widths make, would compete for
/// the same few sets of the L1 cache.
constexpr std::size_t rounded_stride(std::size_t cols) { return cols + alignment / sizeof(bf16); }
constexpr std::size_t rounded_bytes(std::size_t tokens, std::size_t cols) {
  return tokens * rounded_stride(cols) * sizeof(bf16);
}

/// Calls f(product, begin, end, task) in parallel for ranges of outputs that begin at multiples of rows_per_tile. One
/// loop covers all products, since waiting for the last thread costs time. With an epilogue, all products have the same
/// number of outputs: a task computes a range of each, then calls the epilogue. Adds what adapters add before that.
template <class T, Backend B>
void for_each_tile(const Context& context, std::span<const Product<T, B>> products, Rows x, Epilogue epilogue,
                   FunctionRef<void(const Product<T, B>&, std::size_t, std::size_t, std::size_t)> f) {
  const bool side_by_side = static_cast<bool>(epilogue);
  const auto tiles_of = [](const Product<T, B>& product) {
    return (product.y.cols + rows_per_tile - 1) / rows_per_tile;
  };
  std::size_t tiles = 0, bytes = 0;
  for (const Product<T, B>& product : products) {
    tiles = side_by_side ? tiles_of(product) : tiles + tiles_of(product);
    bytes += bytes_of(product.linear.weight.dtype(), product.y.cols * product.linear.weight.cols());
  }
  const AdaptedProducts<Product<T, B>, B> adapted(context, x, products);
  const auto some = [&](std::size_t begin, std::size_t end, std::size_t task) {
    std::size_t before = 0;  // tiles of the products before this one
    for (const Product<T, B>& product : products) {
      const std::size_t count = tiles_of(product), from = (std::max)(begin, before),
                        to = (std::min)(end, before + count);
      if (from < to) {
        const std::size_t first = (from - before) * rows_per_tile,
                          last = (std::min)((to - before) * rows_per_tile, product.y.cols);
        f(product, first, last, task);
        adapted.add(product, first, last);
      }
      if (!side_by_side) before += count;
    }
    if (side_by_side) epilogue(begin * rows_per_tile, (std::min)(end * rows_per_tile, products[0].y.cols));
  };
  if (bytes * x.rows < parallel_bytes) {
    some(0, tiles, 0);
  } else {
    parallel_for(context, tiles, 1,
                 bytes * x.rows < many_tasks_bytes ? few_tasks(context.threads) : tasks(context.threads), some);
  }
}

/// For one integer type. Quantizes activations once. Unpacked rows are repacked on the way.
template <Backend B, class T>
void multiply_integers(const Context& context, Rows x, std::span<const Product<T, B>> products, Epilogue epilogue) {
  const Dtype dtype = products[0].linear.weight.dtype();
  const std::size_t cols = products[0].linear.weight.cols();
  const IntegerWorkspace<B> sizes(x.rows, cols);
  const std::span<std::byte> memory = context.take(sizes.bytes(tasks(context.threads)));
  const QuantizedRows quantized(x.rows, cols, integer_format(dtype).sub_block, memory);
  for_each_row(context, x.rows, x.cols, [&](std::size_t t) { B::quantize(x.row(t), dtype, t, quantized); });
  for (std::size_t t = x.rows; t < quantized.padded_tokens(); ++t) quantized.clear(t);
  const TileLayout layout(dtype, cols);
  for_each_tile<T, B>(
      context, products, x, epilogue,
      [&](const Product<T, B>& p, std::size_t begin, std::size_t end, std::size_t task) {
        std::byte* tile = memory.data() + sizes.activations + task * (sizes.tile + sizes.weights);
        if (p.linear.weight.packed()) {
          const PackedTiles rows{dtype, layout, p.linear.weight.data(), p.linear.weight.rows()};
          return B::matmul(rows.slice(p.first + begin, end - begin), quantized, p.y.data + begin, p.y.stride, tile);
        }
        for (std::size_t r = begin; r < end; r += rows_per_tile) {
          const std::size_t count = (std::min)(rows_per_tile, end - r);
          p.linear.weight.repack_rows(p.first + r, count, tile + sizes.tile);
          B::matmul(PackedTiles{dtype, layout, tile + sizes.tile, count}, quantized, p.y.data + r, p.y.stride, tile);
        }
      });
}

/// For float types. If the CPU multiplies bf16, activations are rounded to bf16 once, for weights of this type.
template <Backend B, class T>
void multiply_floats(const Context& context, Rows x, std::span<const Product<T, B>> products, Epilogue epilogue) {
  const bool rounds = B::multiplies_bf16() && std::any_of(products.begin(), products.end(), [](const Product<T, B>& p) {
                        return p.linear.weight.dtype() == Dtype::bf16;
                      });
  auto* rounded = reinterpret_cast<bf16*>(context.take(rounds ? rounded_bytes(x.rows, x.cols) : 0).data());
  const std::size_t stride = rounded_stride(x.cols);
  if (rounds) {
    for_each_row(context, x.rows, x.cols, [&](std::size_t t) { B::round(x.row(t), x.cols, rounded + t * stride); });
  }
  const auto multiply = [&]<class W>(const MatrixView<W>& w, const Product<T, B>& p, std::size_t begin,
                                     std::size_t end) {
    if constexpr (std::same_as<W, bf16>) {
      if (rounds) {
        return B::matmul(w.row(p.first + begin), w.cols(), end - begin, w.cols(), rounded, stride, x.rows,
                         p.y.data + begin, p.y.stride);
      }
    }
    B::matmul(w.row(p.first + begin), w.cols(), end - begin, w.cols(), x.data, x.stride, x.rows, p.y.data + begin,
              p.y.stride);
  };
  for_each_tile<T, B>(context, products, x, epilogue,
                      [&](const Product<T, B>& p, std::size_t begin, std::size_t end, std::size_t) {
                        visit_floats(p.linear.weight, [&](const auto& w) { multiply(w, p, begin, end); });
                      });
}

}  // namespace detail

/// Bytes of Context::workspace for products of up to `tokens` rows in up to `tasks` tasks. Rows of integer weights have
/// up to `integer_cols` values, those of bf16 weights up to `bf16_cols`; 0: there are none.
template <class T, Backend B>
std::size_t product_workspace(std::size_t tokens, std::size_t tasks, std::size_t integer_cols, std::size_t bf16_cols) {
  const std::size_t rounded = bf16_cols > 0 && B::multiplies_bf16() ? detail::rounded_bytes(tokens, bf16_cols) : 0;
  if constexpr (Matrix<T>::may_be_integers) {
    if (integer_cols > 0) {
      return (std::max)(rounded, detail::IntegerWorkspace<B>(tokens, integer_cols).bytes(tasks));
    }
  }
  return rounded;
}

/// Several products with the same x, [T, in]. With an epilogue, all have the same number of outputs. It is called for
/// ranges that are complete in all products, by the thread that computed them.
template <Backend B, class T>
void multiply(const Context& context, Rows x, std::span<const Product<T, B>> products, Epilogue epilogue = {}) {
  if constexpr (Matrix<T>::may_be_integers) {
    const Dtype dtype = products[0].linear.weight.dtype();
    const bool integers = products[0].linear.weight.holds_integers();
    for (const Product<T, B>& product : products) {
      if (product.linear.weight.dtype() != dtype && (integers || product.linear.weight.holds_integers())) {
        for (const Product<T, B>& one : products) multiply<B, T>(context, x, std::span(&one, 1));
        if (epilogue) epilogue(0, products[0].y.cols);
        return;
      }
    }
    if (integers) return detail::multiply_integers<B>(context, x, products, epilogue);
  }
  detail::multiply_floats<B>(context, x, products, epilogue);
}

}  // namespace ple::inline PLE_ABI
