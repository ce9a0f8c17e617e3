// SPDX-License-Identifier: Apache-2.0
// A decoder's forward pass, from embeddings to logits. It checks all arguments first: after that, only reads can fail.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

#include "ple/core/config.h"
#include "ple/core/context.h"
#include "ple/core/error.h"
#include "ple/core/function_ref.h"
#include "ple/core/parallel.h"
#include "ple/core/token.h"
#include "ple/model/decoder_state.h"
#include "ple/model/per_layer_inputs.h"
#include "ple/nn/positions.h"
#include "ple/simd/decode.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// Errors: ErrorCode::argument if the context has no room for so many tokens.
inline void check_context(const ModelState& state, std::size_t tokens) {
  const std::size_t context = state.options.context;
  if (state.position > context)
    fail(ErrorCode::argument, "forward: position ", state.position, " is past the context of ", context);
  if (tokens > context - state.position) {
    fail(ErrorCode::argument, "forward: ", tokens, " tokens at position ", state.position, " go past the context of ",
         context);
  }
}

/// Errors: ErrorCode::argument for invalid arguments, or a state without enough workspace.
template <class Model>
void check_pass(const Model& model, const ModelState& state, const Executor& threads, std::span<const Token> tokens,
                Rows logits, Rows soft) {
  const auto refuse = [](const auto&... parts) { fail(ErrorCode::argument, "forward: ", parts...); };
  const auto& config = model.config;
  if (tokens.size() > state.options.chunk) refuse(tokens.size(), " tokens at once, at most ", state.options.chunk);
  if (logits.rows > tokens.size())
    refuse("logits of ", logits.rows, " positions wanted from ", tokens.size(), " tokens");
  if (logits.rows > 0 && logits.cols != config.vocab_size) refuse(logits.cols, " logits, expected ", config.vocab_size);
  if (tasks(threads) > state.options.tasks()) {
    refuse("the executor makes ", tasks(threads), " tasks, the state has room for ", state.options.tasks());
  }
  std::size_t soft_tokens = 0;
  for (const Token token : tokens) {
    soft_tokens += token == soft_token;
    if (token != soft_token) model.check_token(token, "forward");  // before any task needs its row
  }
  if (soft_tokens != soft.rows || (soft.rows > 0 && soft.cols != config.hidden_size)) {
    refuse("embeddings [", soft.rows, ", ", soft.cols, "] for ", soft_tokens, " soft tokens, expected [", soft_tokens,
           ", ", config.hidden_size, "]");
  }
}

/// h0 = embedding[token] * sqrt(d), with sqrt(d) rounded to the embedding's dtype as in the reference. A soft token
/// takes the next row of `soft`. All others must have rows.
template <class Model>
void embed(const Model& model, const Context& context, std::span<const Token> tokens, Rows soft, Rows h0) {
  using T = typename Model::T;
  using B = typename Model::B;
  const Matrix<T>& embedding = model.embedding;
  const float scale = rounded_to(embedding.dtype(), std::sqrt(static_cast<float>(h0.cols)));
  const std::size_t row_bytes = bytes_of(embedding.dtype(), h0.cols);
  const bool packed = model.config.tie_word_embeddings && model.head.weight.packed();
  for_each_row(context, tokens.size(), h0.cols, [&](std::size_t t) {
    if (tokens[t] == soft_token) return;
    const std::size_t row = model.table.row_of(tokens[t]);
    if constexpr (Matrix<T>::may_be_integers) {
      if (packed) model.head.weight.decode_packed_row(row, h0.row(t));  // in memory: no page is touched
    }
    if (!packed) decode<B, T>(embedding.dtype(), embedding.data() + row * row_bytes, h0.cols, h0.row(t));
    B::scale(scale, h0.cols, h0.row(t));
  });
  for (std::size_t t = 0, i = 0; t < tokens.size(); ++t) {
    if (tokens[t] == soft_token) std::copy_n(soft.row(i++), h0.cols, h0.row(t));
  }
}

/// A pass over tokens whose rows are selected; the state's workspace was started for their positions.
template <class Model, class Observer>
struct DecoderPass {
  using State = DecoderState<Model>;

  const Model& model;
  State& state;
  Context context;
  std::span<const Token> tokens;
  RowSelection& rows;
  FunctionRef<Positions(std::size_t layer, std::size_t row)> positions;  ///< of the rows from `row` on
  const Observer& observe;

  void operator()(Rows soft, Rows logits) const {
    const std::size_t layers = model.blocks.size(), first_shared = model.config.first_shared_layer(),
                      T0 = tokens.size() - logits.rows;
    const Rows h = state.hidden.slice(0, tokens.size()), h0 = h.columns(0, model.config.hidden_size);
    embed(model, context, tokens, soft, h0);
    observe("embedding", 0, h0);
    // Positions without wanted logits stop after the last layer that writes a cache: nothing needs them later.
    const typename PerLayerInputs<Model>::Part parts[] = {{0, first_shared, 0}, {first_shared, layers, T0}};
    PerLayerInputs<Model> inputs{model,
                                 context,
                                 rows,
                                 tokens,
                                 std::span(parts, logits.rows > 0 && first_shared < layers ? 2 : 1),
                                 state.projected,
                                 state.per_layer,
                                 state.adapted_rows_of_tokens()};
    inputs.project(h0);
    model.streams.expand(context, h);
    run_layers(0, first_shared, 0, h, inputs);
    if (logits.rows == 0) return;
    run_layers(first_shared, layers, T0, h.slice(T0, logits.rows), inputs);
    model.streams.unembed(context, state.workspace, h.slice(T0, logits.rows));
    const Rows output = h0.slice(T0, logits.rows);
    model.final_norm(context, output, output);
    write_logits(output, logits);
  }

 private:
  /// Layers [begin, end), for the rows from `row` on: h.
  void run_layers(std::size_t begin, std::size_t end, std::size_t row, Rows h, PerLayerInputs<Model>& inputs) const {
    for (std::size_t l = begin; l < end; ++l) {
      const auto per_layer_input = [&] {
        const Rows e = inputs.get(l, row);
        if (e.cols > 0) observe("per_layer_input", l, e);
        return e;
      };
      model.blocks[l].forward(context, state.workspace, row, h, per_layer_input,
                              positions(*model.config.kv_layer(l), row));
      observe("layer", l, h);
    }
  }

  /// logits = softcap(head x); -infinity for tokens that a cut-down vocabulary left out.
  void write_logits(Rows x, Rows logits) const {
    const VocabularyMap* vocabulary = model.table.vocabulary().get();
    const bool few = model.head.weight.rows() < model.config.vocab_size;
    const Rows y = few ? state.kept_logits.slice(0, x.rows) : logits;
    const float cap = model.config.final_logit_softcapping;
    model.head(context, x, y, [&](std::size_t begin, std::size_t end) {
      if (cap == 0) return;
      for (std::size_t t = 0; t < x.rows; ++t) Model::B::softcap(cap, end - begin, y.row(t) + begin);
    });
    if (vocabulary == nullptr) return;
    for (std::size_t t = 0; t < x.rows; ++t) {
      for (std::size_t i = logits.cols; i-- > 0;) {
        const auto token = static_cast<Token>(i);
        float& logit = logits.row(t)[i];
        if (!vocabulary->has(token)) {
          logit = -std::numeric_limits<float>::infinity();
        } else if (few) {
          logit = y.row(t)[*vocabulary->row(token)];
        }
      }
    }
  }
};

}  // namespace detail

}  // namespace ple::inline PLE_ABI
