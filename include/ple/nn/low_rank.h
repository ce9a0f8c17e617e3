// SPDX-License-Identifier: Apache-2.0
// Low-rank adapters (LoRA) of products. Source: Hu et al. 2021.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/context.h"
#include "ple/core/error.h"
#include "ple/core/parallel.h"
#include "ple/simd/backend.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// What an adapter adds to a product: y += B (A x), times a factor.
struct LowRank {
  Rows a;            ///< [rank, in]
  Rows b;            ///< [rank, out]: B transposed, times the adapter's own scale
  float factor = 1;  ///< a session's
};

/// The adapters of one session, by the matrices that they belong to.
class AdaptedWeights {
 public:
  void add(const void* weights, const LowRank& low_rank) {
    std::vector<LowRank>& all = of_[weights];
    all.push_back(low_rank);
    std::size_t rank = 0;
    for (const LowRank& one : all) rank += one.a.rows;
    most_rank_ = (std::max)(most_rank_, rank);
  }

  std::span<const LowRank> of(const void* weights) const {
    const auto found = of_.find(weights);
    return found == of_.end() ? std::span<const LowRank>() : found->second;
  }
  bool empty() const { return of_.empty(); }
  std::size_t most_rank() const { return most_rank_; }  ///< of one matrix, all adapters together

 private:
  std::map<const void*, std::vector<LowRank>, std::less<>> of_;
  std::size_t most_rank_ = 0;
};

/// The adapters of a pass's rows, and a workspace for their products.
struct RowAdapters {
  std::span<const AdaptedWeights* const> rows;  ///< nullptr: none. One entry: that of all rows
  std::span<float> workspace;                   ///< [most_products, rows of a pass, most_rank]
  std::size_t most_rank = 0;

  static constexpr std::size_t most_products = 3;  ///< with the same x: q, k and v
  const AdaptedWeights* row(std::size_t t) const { return rows.size() == 1 ? rows[0] : rows[t]; }
};

namespace detail {

/// The adapters of some products with the same x, [T, in]. Computes A x first; add() then adds B (A x) to any range of
/// outputs, on any thread. A row's sums do not depend on the other rows.
template <class Product, Backend B>
class AdaptedProducts {
 public:
  AdaptedProducts(const Context& context, Rows x, std::span<const Product> products)
      : adapters_(context.adapters), products_(products), rows_(x.rows) {
    if (adapters_ == nullptr) return;
    std::size_t cost = 0;
    for (std::size_t t = 0; t < rows_; ++t) {
      for (const Product& product : products) {
        for (const LowRank& low_rank : of(t, product)) cost += low_rank.a.rows * low_rank.a.cols;
      }
    }
    if (cost == 0) {
      adapters_ = nullptr;
      return;
    }
    const std::size_t needed = products.size() * rows_ * adapters_->most_rank;
    if (adapters_->workspace.size() < needed) {
      fail(ErrorCode::argument, "RowAdapters: the workspace has ", adapters_->workspace.size(), " floats, expected ",
           needed);
    }
    for_each_row(context, rows_, cost / rows_, [&](std::size_t t) {
      for (const Product& product : products) {
        float* ax = this->ax(t, product);
        for (const LowRank& low_rank : of(t, product)) {
          const Rows& a = low_rank.a;
          B::matmul(const_cast<const float*>(a.data), a.stride, a.rows, a.cols, x.row(t), x.stride, 1, ax, a.rows);
          if (low_rank.factor != 1) B::scale(low_rank.factor, a.rows, ax);
          ax += a.rows;
        }
      }
    });
  }

  /// y[t, o] += B (A x)[t, o] for outputs o in [begin, end) of a product.
  void add(const Product& product, std::size_t begin, std::size_t end) const {
    if (adapters_ == nullptr) return;
    for (std::size_t t = 0, next = 0; t < rows_; t = next) {  // rows of the same session at once
      while (next < rows_ && adapters_->row(next) == adapters_->row(t)) ++next;
      const float* ax = this->ax(t, product);
      for (const LowRank& low_rank : of(t, product)) {
        const Rows& b = low_rank.b;
        B::weighted_sum(const_cast<const float*>(b.data) + product.first + begin, b.stride, b.rows, end - begin, ax,
                        adapters_->most_rank, next - t, product.y.row(t) + begin, product.y.stride);
        ax += b.rows;
      }
    }
  }

 private:
  std::span<const LowRank> of(std::size_t t, const Product& product) const {
    const AdaptedWeights* weights = adapters_->row(t);
    return weights == nullptr ? std::span<const LowRank>() : weights->of(product.linear.weight.data());
  }
  float* ax(std::size_t t, const Product& product) const {
    const auto p = static_cast<std::size_t>(&product - products_.data());
    return adapters_->workspace.data() + (p * rows_ + t) * adapters_->most_rank;
  }

  const RowAdapters* adapters_;
  std::span<const Product> products_;
  std::size_t rows_;
};

}  // namespace detail

}  // namespace ple::inline PLE_ABI
