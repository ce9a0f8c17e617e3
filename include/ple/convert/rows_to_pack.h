// SPDX-License-Identifier: Apache-2.0
// What pack_table stores: which rows of a model's table, whole per-layer inputs or not, and their second moments.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "ple/core/checked_writer.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/memory.h"
#include "ple/model/decoder.h"
#include "ple/table/row_bases.h"
#include "ple/table/second_moments.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

struct PackOptions {
  std::vector<std::optional<Dtype>> dtypes = {};  ///< of each layer; nothing: the layer is pruned away
  bool fold = false;             ///< store whole per-layer inputs, so that no token needs the context projection
  std::vector<Token> kept = {};  ///< the tokens that keep their rows; none: all
  std::optional<Token> substitute = {};  ///< with `kept`: replaces all others, which otherwise are an error
  /// Of each layer: R orthonormal rows of p values, whose products with the layer's values are stored in their stead;
  /// or none. Those of a Spectrum of packed_second_moments() lose the least. Empty: none at all.
  RowBases bases = {};
};

namespace detail {

/// The tokens whose rows are stored, in order. Errors: ErrorCode::argument.
template <class Model>
std::vector<Token> tokens_to_pack(const Model& model, const PackOptions& options) {
  const auto refuse = [](const auto&... parts) { fail(ErrorCode::argument, "pack_table: ", parts...); };
  const std::size_t vocab_size = model.config.vocab_size_per_layer_input;
  if (model.config.hidden_size_per_layer_input == 0) refuse("the model has no PLE table");
  if (model.table.vocabulary() || model.table.folded() || model.table.layout().sum_of_ranks() > 0)
    refuse("the model's table was packed already: start from the original");
  std::vector<Token> tokens = options.kept;
  for (std::size_t token = 0; options.kept.empty() && token < vocab_size; ++token)
    tokens.push_back(static_cast<Token>(token));
  const std::size_t limit = (std::min)(vocab_size, model.config.vocab_size);
  std::vector<bool> seen(vocab_size, false);
  for (const Token token : options.kept) {
    if (token < 0 || static_cast<std::size_t>(token) >= limit) refuse("token ", token, ", expected 0 to ", limit - 1);
    if (seen[static_cast<std::size_t>(token)]) refuse("token ", token, " is listed twice");
    seen[static_cast<std::size_t>(token)] = true;
  }
  if (options.substitute &&
      (options.kept.empty() || *options.substitute < 0 || static_cast<std::size_t>(*options.substitute) >= limit ||
       !seen[static_cast<std::size_t>(*options.substitute)])) {
    refuse("the substitute ", *options.substitute, " is not among the tokens that keep their rows");
  }
  return tokens;
}

/// Computes the rows that are stored, a few at a time.
template <class Model>
class RowsToPack {
 public:
  static constexpr std::size_t most = 256;

  RowsToPack(const Model& model, bool fold) : model_(model), fold_(fold), selection_(model.table.make_selection(most)) {
    const std::size_t cols = model.table.cols();
    const RowsRequest requests[] = {
        {&h0_, most, fold ? model.config.hidden_size : 0}, {&context_, most, fold ? cols : 0}, {&values_, most, cols}};
    memory_ = allocate_rows(requests);
  }

  /// Of at most `most` tokens, [tokens, layers * p]; until the next call.
  Rows get(Executor& executor, std::span<const Token> tokens) {
    const Rows out = values_.slice(0, tokens.size());
    if (fold_) {
      model_.per_layer_inputs(executor, tokens, selection_, h0_.slice(0, tokens.size()),
                              context_.slice(0, tokens.size()), out);
    } else {
      model_.table.select(tokens, tokens.size(), model_.config.pad_token(), selection_);
      model_.table.gather_stored(executor, selection_, 0, 0, model_.config.num_layers(), out);
    }
    return out;
  }

  /// The identity part of positions without text, [1, layers * p].
  Rows pad_identity(Executor& executor) {
    const Token pad = model_.config.pad_token();
    model_.table.select(std::span(&pad, 1), 1, pad, selection_);
    model_.table.gather(executor, selection_, 0, 0, model_.config.num_layers(), values_.slice(0, 1));
    return values_.slice(0, 1);
  }

 private:
  const Model& model_;
  bool fold_;
  RowSelection selection_;
  Rows h0_, context_, values_;
  AlignedVector<float> memory_;
};

/// Calls progress(what, done, total), if there is one. Errors: ErrorCode::cancelled if it returns false.
inline void report_rows(const WriteProgress& progress, std::size_t done, std::size_t total) {
  if (progress && !progress("rows read", done, total)) fail(ErrorCode::cancelled, "pack_table: reading was cancelled");
}

}  // namespace detail

/// The second moments of the rows that pack_table would store with these options. Errors: ErrorCode::argument, file;
/// cancelled by `progress`.
template <class Block, class Table>
SecondMoments packed_second_moments(const Decoder<Block, Table>& model, const PackOptions& options, Executor& executor,
                                    const WriteProgress& progress = {}) {
  const std::vector<Token> tokens = detail::tokens_to_pack(model, options);
  detail::RowsToPack rows(model, options.fold);
  SecondMoments moments(model.config.num_layers(), model.table.width());
  for (std::size_t done = 0; done < tokens.size(); done += rows.most) {
    const auto some = std::span(tokens).subspan(done, (std::min)(rows.most, tokens.size() - done));
    moments.add<typename Block::Simd>(executor, rows.get(executor, some));
    detail::report_rows(progress, done + some.size(), tokens.size());
  }
  return moments;
}

}  // namespace ple::inline PLE_ABI
