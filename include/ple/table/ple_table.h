// SPDX-License-Identifier: Apache-2.0
// The PLE table: one row a token, one p-vector a layer in each row. About half of a model's parameters, of which a
// token needs a few kilobytes; so where it lives is the user's choice.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <variant>

#include "ple/core/token.h"
#include "ple/nn/linear.h"
#include "ple/tensor/matrix.h"

namespace ple {

/// The table stays in its file, mapped: the operating system keeps the pages that were touched as long as it likes.
struct Mapped {};

/// The table is copied into memory of the process when it is opened.
struct Resident {};

/// Where a table's rows live. The model never changes the choice.
using TableStorage = std::variant<Mapped, Resident>;

/// [vocabulary, layers * p], in a dtype of its own.
template <class T = Any, Backend B = Simd>
struct PleTable {
  Matrix<T> rows;
  std::size_t p = 0;  ///< values per layer

  PleTable() = default;
  PleTable(std::size_t vocabulary, std::size_t layers, std::size_t width)
      : rows(vocabulary, layers * width), p(width) {}

  /// out[t] = columns [first, first + out.cols) of tokens[t]'s row, times sqrt(p) rounded to the table's dtype, as the
  /// reference has it. Every token must be a row of the table.
  void gather(Executor& executor, std::span<const Token> tokens, std::size_t first, Rows out) const {
    visit(rows, [&](const auto& table) {
      const float scale = rounded_to(table.dtype(), std::sqrt(static_cast<float>(p)));
      for_each_row(executor, tokens.size(), out.cols, [&](std::size_t t) {
        B::decode(table.row(static_cast<std::size_t>(tokens[t])) + first, out.cols, out.row(t));
        B::scale(scale, out.cols, out.row(t));
      });
    });
  }
};

}  // namespace ple
