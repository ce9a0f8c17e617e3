// SPDX-License-Identifier: Apache-2.0
// The per-layer inputs of a chunk of tokens, for some of the layers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/executor.h"
#include "ple/core/token.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// What a row of the table, the token's embedding and the model's projection of that come to; Input is PerLayerInput.
/// What pruning and folding leave out is not computed.
template <class Table, class Input>
struct ChunkInputs {
  const Table& table;
  const Input& input;
  std::size_t p;  ///< columns of a layer

  /// The context part of the per-layer inputs of layers [begin, end). A folded table has it in its rows, but for the
  /// positions without a row.
  void project(Executor& executor, std::size_t begin, std::size_t end, std::span<const Token> tokens, Rows h0,
               Rows context) const {
    for_each_run(begin, end, [&](std::size_t first, std::size_t count) {
      const Rows columns = context.columns((first - begin) * p, count * p);
      for_each_computed(tokens, [&](std::size_t t, std::size_t n) {
        input.project(executor, first * p, h0.slice(t, n), columns.slice(t, n));
      });
    });
  }

  /// e holds the rows as they were gathered, and becomes the per-layer inputs of these layers.
  void combine(Executor& executor, std::size_t begin, std::size_t end, std::span<const Token> tokens, Rows context,
               Rows e) const {
    for_each_computed(tokens, [&](std::size_t t, std::size_t n) {
      if (table.folded()) {  // the identity of a position without a row
        for (std::size_t i = t; i < t + n; ++i) {
          std::copy_n(table.pad_identity().data() + begin * p, (end - begin) * p, e.row(i));
        }
      }
      input.combine(executor, context.slice(t, n), e.slice(t, n));
    });
  }

 private:
  /// Calls f(first, count) for every run of layers in [begin, end) that have a PLE step.
  template <class F>
  void for_each_run(std::size_t begin, std::size_t end, F&& f) const {
    for (std::size_t l = begin; l < end;) {
      std::size_t stop = l;
      while (stop < end && table.has(stop)) ++stop;
      if (stop > l) f(l, stop - l);
      l = (std::max)(stop, l + 1);
    }
  }

  /// Calls f(t, count) for the runs of positions whose per-layer input is computed: all, or those without a row.
  template <class F>
  void for_each_computed(std::span<const Token> tokens, F&& f) const {
    if (!table.folded()) return f(std::size_t{0}, tokens.size());
    for (std::size_t t = 0; t < tokens.size();) {
      std::size_t stop = t;
      while (stop < tokens.size() && !table.has_row(tokens[stop])) ++stop;
      if (stop > t) f(t, stop - t);
      t = (std::max)(stop, t + 1);
    }
  }
};

}  // namespace ple::inline PLE_ABI
