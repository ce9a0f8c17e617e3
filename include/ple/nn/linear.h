// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/context.h"
#include "ple/nn/products.h"
#include "ple/tensor/matrix.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// y = W x without bias: y[t, o] = sum_i weight[o, i] x[t, i]. weight: [out, in]
/// All matrices of weights are Linears, and all products go through multiply() in nn/products.h, but SparseMlp's up and
/// down, which skip rows. multiply() also adds what the adapters of a session add (nn/low_rank.h).
template <class T, Backend B>
struct Linear {
  Matrix<T> weight;

  Linear() = default;
  Linear(std::size_t out, std::size_t in) : weight(out, in) {}

  void operator()(const Context& context, Rows x, Rows y, Epilogue epilogue = {}) const {
    const Product<T, B> product{*this, y};
    multiply<B, T>(context, x, std::span(&product, 1), epilogue);
  }
};

/// y += x
template <Backend B>
void add(const Context& context, Rows x, Rows y) {
  for_each_row(context, y.rows, y.cols, [&](std::size_t t) { B::add(x.row(t), y.cols, y.row(t)); });
}

}  // namespace ple::inline PLE_ABI
