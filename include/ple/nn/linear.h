// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/executor.h"
#include "ple/core/function_ref.h"
#include "ple/core/memory.h"
#include "ple/simd/backend.h"
#include "ple/tensor/matrix.h"

namespace ple::inline PLE_ABI {

/// Work below this many multiplications is not worth waking a thread for.
inline constexpr std::size_t parallel_threshold = 32768;

/// Nor are weights of fewer bytes than this: one core has read them before two have agreed on who reads what. Below the
/// second, that is worth few parts only.
inline constexpr std::size_t parallel_bytes = std::size_t{256} << 10, many_parts_bytes = std::size_t{4} << 20;

/// Calls f(row) for every row; in parallel where `cost`, the operations per row, makes it worth while.
inline void for_each_row(Executor& executor, std::size_t rows, std::size_t cost, TaskRef f) {
  const auto some = [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t r = begin; r < end; ++r) f(r);
  };
  if (rows * cost < parallel_threshold) {
    some(0, rows, 0);
  } else {
    parallel_for(executor, rows, 1, some);
  }
}

/// Bytes rounded up to whole cache lines.
constexpr std::size_t aligned_size(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

/// Memory for a moment: the executor's if that suffices, else its own, for a caller whose executor has none.
class ScratchMemory {
 public:
  ScratchMemory(Executor& executor, std::size_t bytes) : memory_(executor.scratch()) {
    if (memory_.size() >= bytes) return;
    own_.resize(bytes);
    memory_ = own_;
  }
  std::span<std::byte> all() const { return memory_; }
  std::span<std::byte> at(std::size_t begin, std::size_t bytes) const { return memory_.subspan(begin, bytes); }

 private:
  AlignedVector<std::byte> own_;
  std::span<std::byte> memory_;
};

/// Scratch memory that products with integer weights need, for up to `tokens` tokens and rows of up to `cols` values.
template <Backend B>
struct IntegerScratch {
  std::size_t activations, tile, weights;  ///< bytes: of all tokens; of a part's unpacked weights; of its rows
  IntegerScratch(std::size_t tokens, std::size_t cols)
      : activations(aligned_size(QuantizedRows::bytes(tokens, cols))),
        tile(aligned_size(B::tile_bytes(cols))),
        weights(most_tile_bytes(cols)) {}
  std::size_t bytes(std::size_t parts) const { return activations + parts * (tile + weights); }

 private:
  /// Of any type's tile: no code has more than 8 bits, no number of a sub-block of 16 values more than 32.
  static std::size_t most_tile_bytes(std::size_t cols) {
    return aligned_size(rows_per_tile * (cols + cols / 16 * 4 + (cols / values_per_chunk + 1) * 4) + 2 * alignment);
  }
};

/// And for activations of that size in bf16. Between their rows lies a cache line: rows of whole pages, as many widths
/// make them, would compete for the same few places of the first cache level.
constexpr std::size_t rounded_stride(std::size_t cols) { return cols + alignment / sizeof(bf16); }
constexpr std::size_t rounded_bytes(std::size_t tokens, std::size_t cols) {
  return tokens * rounded_stride(cols) * sizeof(bf16);
}

/// Some rows of a matrix and where their products go: y[t, o] = sum_i weight[first + o, i] x[t, i] for y.cols outputs.
/// Where weights are interleaved, `first` is a multiple of rows_per_tile.
template <class T>
struct Product {
  const Matrix<T>& weight;  ///< [out, in], of any type
  Rows y;
  std::size_t first = 0;
};

/// What is to be done with outputs [begin, end) of a product, by the thread that computed them; or nothing.
using Then = FunctionRef<void(std::size_t begin, std::size_t end)>;

namespace detail {

/// Calls f(product, begin, end, part) for ranges of outputs that begin at multiples of rows_per_tile, in parallel:
/// those of all products in one go, since waiting for the last thread costs time. With `then`, the products have as
/// many outputs each, and a range's come side by side, before it is called.
template <class T>
void for_each_part(Executor& executor, std::span<const Product<T>> products, std::size_t tokens, Then then,
                   FunctionRef<void(const Product<T>&, std::size_t, std::size_t, std::size_t)> f) {
  const bool side_by_side = static_cast<bool>(then);
  const auto tiles_of = [](const Product<T>& product) { return (product.y.cols + rows_per_tile - 1) / rows_per_tile; };
  std::size_t tiles = 0, bytes = 0;
  for (const Product<T>& product : products) {
    tiles = side_by_side ? tiles_of(product) : tiles + tiles_of(product);
    bytes += bytes_of(product.weight.dtype(), product.y.cols * product.weight.cols());
  }
  const auto some = [&](std::size_t begin, std::size_t end, std::size_t part) {
    std::size_t before = 0;  // tiles of the products before this one
    for (const Product<T>& product : products) {
      const std::size_t count = tiles_of(product), from = (std::max)(begin, before),
                        to = (std::min)(end, before + count);
      if (from < to) {
        f(product, (from - before) * rows_per_tile, (std::min)((to - before) * rows_per_tile, product.y.cols), part);
      }
      if (!side_by_side) before += count;
    }
    if (side_by_side) then(begin * rows_per_tile, (std::min)(end * rows_per_tile, products[0].y.cols));
  };
  if (bytes * tokens < parallel_bytes) {
    some(0, tiles, 0);
  } else {
    parallel_for(executor, tiles, 1, bytes * tokens < many_parts_bytes ? few_parts(executor) : parts(executor), some);
  }
}

/// Of one integer type. Activations become integers once; then each part of the rows is multiplied with them. Rows that
/// are not interleaved become so on the way.
template <Backend B, class T>
void multiply_integers(Executor& executor, Rows x, std::span<const Product<T>> products, Then then) {
  const Dtype dtype = products[0].weight.dtype();
  const std::size_t cols = products[0].weight.cols();
  const IntegerScratch<B> sizes(x.rows, cols);
  const ScratchMemory scratch(executor, sizes.bytes(parts(executor)));
  const std::span<std::byte> memory = scratch.all();
  const QuantizedRows quantized(x.rows, cols, integer_format(dtype).sub_block, memory);
  for_each_row(executor, x.rows, x.cols, [&](std::size_t t) { B::quantize(x.row(t), dtype, t, quantized); });
  for (std::size_t t = x.rows; t < quantized.padded_tokens(); ++t) quantized.clear(t);
  const InterleavedLayout layout(dtype, cols);
  for_each_part<T>(
      executor, products, x.rows, then, [&](const Product<T>& p, std::size_t begin, std::size_t end, std::size_t part) {
        std::byte* tile = memory.data() + sizes.activations + part * (sizes.tile + sizes.weights);
        if (p.weight.interleaved()) {
          const InterleavedRows rows{dtype, layout, p.weight.data(), p.weight.rows()};
          return B::matmul(rows.slice(p.first + begin, end - begin), quantized, p.y.data + begin, p.y.stride, tile);
        }
        for (std::size_t r = begin; r < end; r += rows_per_tile) {
          const std::size_t count = (std::min)(rows_per_tile, end - r);
          p.weight.interleave_rows(p.first + r, count, tile + sizes.tile);
          B::matmul(InterleavedRows{dtype, layout, tile + sizes.tile, count}, quantized, p.y.data + r, p.y.stride,
                    tile);
        }
      });
}

/// Of plain numbers. Where the CPU multiplies bf16, activations become that, once, for weights of this type.
template <Backend B, class T>
void multiply_floats(Executor& executor, Rows x, std::span<const Product<T>> products, Then then) {
  const bool rounds = B::multiplies_bf16() && std::any_of(products.begin(), products.end(), [](const Product<T>& p) {
                        return p.weight.dtype() == Dtype::bf16;
                      });
  const ScratchMemory scratch(executor, rounds ? rounded_bytes(x.rows, x.cols) : 0);
  auto* rounded = reinterpret_cast<bf16*>(scratch.all().data());
  const std::size_t stride = rounded_stride(x.cols);
  if (rounds) {
    for_each_row(executor, x.rows, x.cols, [&](std::size_t t) { B::round(x.row(t), x.cols, rounded + t * stride); });
  }
  const auto multiply = [&]<class W>(const MatrixView<W>& w, const Product<T>& p, std::size_t begin, std::size_t end) {
    if constexpr (std::same_as<W, bf16>) {
      if (rounds) {
        return B::matmul(w.row(p.first + begin), w.cols(), end - begin, w.cols(), rounded, stride, x.rows,
                         p.y.data + begin, p.y.stride);
      }
    }
    B::matmul(w.row(p.first + begin), w.cols(), end - begin, w.cols(), x.data, x.stride, x.rows, p.y.data + begin,
              p.y.stride);
  };
  for_each_part<T>(executor, products, x.rows, then,
                   [&](const Product<T>& p, std::size_t begin, std::size_t end, std::size_t) {
                     visit_floats(p.weight, [&](const auto& w) { multiply(w, p, begin, end); });
                   });
}

}  // namespace detail

/// Several products with the same x, [T, in]. With then(begin, end), they have as many outputs each, and it is called
/// for ranges of outputs that all of them have, by the thread that computed them.
template <Backend B, class T>
void multiply(Executor& executor, Rows x, std::span<const Product<T>> products, Then then = {}) {
  if constexpr (Matrix<T>::may_be_integers) {
    const Dtype dtype = products[0].weight.dtype();
    const bool integers = products[0].weight.holds_integers();
    for (const Product<T>& product : products) {
      if (product.weight.dtype() != dtype && (integers || product.weight.holds_integers())) {
        for (const Product<T>& one : products) multiply<B, T>(executor, x, std::span(&one, 1));
        if (then) then(0, products[0].y.cols);
        return;
      }
    }
    if (integers) return detail::multiply_integers<B>(executor, x, products, then);
  }
  detail::multiply_floats<B>(executor, x, products, then);
}

/// y = W x, without bias: y[t, o] = sum_i weight[o, i] x[t, i]      weight: [out, in]
template <class T, Backend B>
struct Linear {
  Matrix<T> weight;

  Linear() = default;
  Linear(std::size_t out, std::size_t in) : weight(out, in) {}

  void operator()(Executor& executor, Rows x, Rows y, Then then = {}) const {
    const Product<T> product{weight, y};
    multiply<B, T>(executor, x, std::span(&product, 1), then);
  }
};

/// y += x
template <Backend B>
void add(Executor& executor, Rows x, Rows y) {
  for_each_row(executor, y.rows, y.cols, [&](std::size_t t) { B::add(x.row(t), y.cols, y.row(t)); });
}

}  // namespace ple::inline PLE_ABI
