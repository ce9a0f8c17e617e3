// SPDX-License-Identifier: Apache-2.0
// The per-layer inputs of a pass, made of table rows, token embeddings and the model's projection of these.
// transformers: get_per_layer_inputs, project_per_layer_inputs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/context.h"
#include "ple/core/parallel.h"
#include "ple/core/token.h"
#include "ple/table/adapted_rows.h"
#include "ple/table/ple_table.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// For tokens whose rows are selected. Skips what pruning and folding make unnecessary. Model: a Decoder.
template <class Model>
struct PerLayerInputs {
  struct Part {
    std::size_t begin, end, first;  ///< layers [begin, end), tokens from `first` on
  };

  const Model& model;
  const Context& context;
  RowSelection& rows;
  std::span<const Token> tokens;
  std::span<const Part> parts;  ///< in the order of layers, none with more tokens than the one before
  Rows projected, e;            ///< [T, layers * p], workspace: the projection, and the result
  std::span<const AdaptedRows* const> adapted = {};  ///< of each token, or one entry: of all; empty: none
  bool fetched = false;

  /// The context part, from h0, [T, d]. A folded table has it in its rows: only positions without a row need it.
  void project(Rows h0) const {
    const auto has = [&](std::size_t l) { return model.table.has(l); };
    for (const Part& part : parts) {
      for_each_run(part.begin, part.end, has, [&](std::size_t l, std::size_t count) {
        for_each_computed(part.first, [&](std::size_t t, std::size_t n) {
          model.per_layer_projection.project(context, l * model.table.width(), h0.slice(t, n),
                                             columns(projected, l, l + count).slice(t, n));
        });
      });
    }
  }

  /// Layer l's input for the tokens from `first` on: [T - first, p]; none if pruned. Only the first call fetches the
  /// rows, all at once: until then they have time to arrive. Errors: ErrorCode::file.
  Rows get(std::size_t l, std::size_t first) {
    if (!model.table.has(l)) return {};
    if (!std::exchange(fetched, true)) fetch(parts[0].end > l ? parts : parts.subspan(1));
    return columns(e, l, l + 1).slice(first, tokens.size() - first);
  }

 private:
  Rows columns(Rows all, std::size_t begin, std::size_t end) const {
    return all.columns(begin * model.table.width(), (end - begin) * model.table.width());
  }

  void fetch(std::span<const Part> wanted) const {
    const Part &a = wanted.front(), &z = wanted.back();
    model.table.gather(context, rows, a.first, a.begin, z.end - a.begin,
                       columns(e, a.begin, z.end).slice(a.first, tokens.size() - a.first),
                       {z.first - a.first, z.end - a.end});
    adapt_rows(a, z);
    for (const Part& part : wanted) {
      const Rows identity = columns(e, part.begin, part.end), context_part = columns(projected, part.begin, part.end);
      for_each_computed(part.first, [&](std::size_t t, std::size_t n) {
        for (std::size_t i = t; model.table.folded() && i < t + n; ++i) {  // the identity of a position without a row
          std::copy_n(model.table.pad_identity().data() + part.begin * model.table.width(), identity.cols,
                      identity.row(i));
        }
        model.per_layer_projection.combine(context, context_part.slice(t, n), identity.slice(t, n));
      });
    }
  }

  /// Puts adapters' rows in the place of those that were gathered for parts `a` to `z`.
  void adapt_rows(const Part& a, const Part& z) const {
    if (adapted.empty()) return;
    const std::size_t width = model.table.width();
    const Rows out = columns(e, a.begin, z.end);
    for_each_row(context, tokens.size() - a.first, out.cols, [&](std::size_t i) {
      const std::size_t t = a.first + i;
      // There is one id for each token: check_trained_rows() saw to that.
      adapted[adapted.size() == 1 ? 0 : t]->template apply<typename Model::B>(
          rows.ids[t], a.begin * width, ((t < z.first ? a.end : z.end) - a.begin) * width, model.table.scale(),
          out.row(t));
    });
  }

  /// Calls f(t, count) for runs of positions from `first` on that are computed: all, or those without a row if folded.
  template <class F>
  void for_each_computed(std::size_t first, F&& f) const {
    const auto computed = [&](std::size_t t) { return !model.table.folded() || !model.table.has_row(tokens[t]); };
    for_each_run(first, tokens.size(), computed, f);
  }

  /// Calls f(i, count) for runs of [begin, end) that are wanted.
  template <class Wanted, class F>
  static void for_each_run(std::size_t begin, std::size_t end, Wanted&& wanted, F&& f) {
    for (std::size_t i = begin; i < end;) {
      std::size_t stop = i;
      while (stop < end && wanted(stop)) ++stop;
      if (stop > i) f(i, stop - i);
      i = (std::max)(stop, i + 1);
    }
  }
};

}  // namespace ple::inline PLE_ABI
