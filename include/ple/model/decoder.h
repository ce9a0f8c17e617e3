// SPDX-License-Identifier: Apache-2.0
// A decoder: token embedding, PLE table, a stack of blocks, a head.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/function_ref.h"
#include "ple/model/adapter.h"
#include "ple/model/decoder_block.h"
#include "ple/model/decoder_pass.h"
#include "ple/model/decoder_state.h"
#include "ple/model/decoder_weights.h"
#include "ple/model/identity.h"
#include "ple/model/language_model.h"
#include "ple/model/parameter.h"
#include "ple/nn/linear.h"
#include "ple/nn/per_layer.h"
#include "ple/nn/positions.h"
#include "ple/nn/rms_norm.h"
#include "ple/table/ple_table.h"

namespace ple::inline PLE_ABI {

/// An observer that ignores everything.
struct NoObserver {
  void operator()(const char*, std::size_t, Rows) const {}
};

template <DecoderBlock Block, class TableType = PleTable<typename Block::Dtype, typename Block::Simd>>
class Decoder final : public LanguageModel {
 public:
  using Table = TableType;
  using T = typename Block::Dtype;
  using B = typename Block::Simd;
  using Config = typename Block::Config;
  using Layer = Block;

  Config config;
  Matrix<T> embedding;  ///< [vocab_size, d]
  Linear<T, B> head;    ///< [vocab_size, d]; the embedding itself if tied
  Table table;          ///< [vocab_size_per_layer_input, layers * p]
  PerLayerProjection<T, B> per_layer_projection;
  typename Block::Streams streams;  ///< from the embedding to what the blocks work on, and back
  std::vector<Block> blocks;
  RmsNorm<B> final_norm;

  /// Has shapes but no values: fill them in through `parameters`, or use `load`. Errors: ErrorCode::config.
  explicit Decoder(const Config& c) : Decoder(c, WithoutBlocks{}) {
    for (std::size_t l = 0; l < config.num_layers(); ++l) blocks.emplace_back(config, l);
  }

  /// Calls f(Parameter, layer, values) for all parameters: values is a Matrix, the Table or a vector<float>.
  template <class F>
  void parameters(F&& f) {
    parameters_before_blocks(f);
    for (std::size_t l = 0; l < blocks.size(); ++l) parameters_of_block(l, f);
    f(Parameter::final_norm, std::size_t{0}, final_norm.weight);
  }

  /// Call when all parameters have values. Ties the head to the embedding if the configuration says so, lets blocks
  /// prepare their weights, and finds the widest rows, which set the size of a state's workspace.
  void finalize() {
    if (config.tie_word_embeddings) head.weight = embedding;
    for (Block& block : blocks) {
      if constexpr (requires { block.finalize(); }) block.finalize();
    }
    const detail::WidestRows widest = detail::widest_rows(*this);
    widest_integer_row_ = widest.integers;
    widest_bf16_row_ = widest.bf16;
  }
  void tie() { finalize(); }  ///< Old name; goes with the next version.

  /// Loads any type with config<Config>(), tensor(Parameter, layer) and, if it has one, ple_table(), an optional
  /// TableSource. By default integer matrices are repacked and others used in place. All outlive the checkpoint.
  /// Errors: what the checkpoint throws; ErrorCode::config, shape, dtype; those of PleTable::load.
  template <class Checkpoint>
  static Decoder load(const Checkpoint& checkpoint, const LoadOptions& options = {});

  /// As `parameters`, but makes each block just before its turn: a false number of layers fails at the first missing
  /// tensor, before later blocks take memory.
  template <class F>
  void parameters_block_by_block(F&& f) {
    parameters_before_blocks(f);
    for (std::size_t l = 0; l < config.num_layers(); ++l) {
      blocks.emplace_back(config, l);
      parameters_of_block(l, f);
    }
    f(Parameter::final_norm, std::size_t{0}, final_norm.weight);
  }

  /// Repacks integer weights as LoadOptions::weights says, if the model was not made by `load`. Call after `finalize`.
  void repack(Executor& executor) { repack_weights(*this, executor); }
  void interleave(Executor& executor) { repack(executor); }  ///< Old name; goes with the next version.

  /// Registers a mapped file of weights (`load` does this): every pass checks that the file has not shrunk.
  void watch(const std::shared_ptr<const MappedFile>& file) {
    if (file && std::find(files_.begin(), files_.end(), file) == files_.end()) files_.push_back(file);
  }

  bool has_ple() const { return config.hidden_size_per_layer_input > 0; }
  std::size_t vocab_size() const override { return config.vocab_size; }
  std::size_t token_limit() const override { return config.token_limit(); }
  void check_has_row(Token token) const override { static_cast<void>(table.row_of(token)); }
  std::size_t max_position_embeddings() const override { return config.max_position_embeddings; }
  std::size_t hidden_size() const override { return config.hidden_size; }
  bool takes_adapters() const override { return detail::takes_adapters<Decoder>; }
  TableCounters table_counters() const override { return table.counters(); }

  std::vector<FileIdentity> files() const override {
    std::vector<FileIdentity> files;
    for (const auto& file : files_) files.push_back(file->file()->identity());
    if (table.file()) files.push_back(*table.file());
    return files;
  }

  std::uint64_t identity() const override {
    for (const auto& file : files_) file->check_size();
    return model_identity(*this);
  }

  std::unique_ptr<ModelState> make_state(const SessionOptions& wanted) const override {
    SessionOptions options = wanted;
    options.context = wanted.context_of(config.max_position_embeddings);
    detail::check_state_options(*this, options);
    try {
      return std::make_unique<State>(*this, tag_.get(), options, workspace_sizes());
    } catch (const std::bad_alloc&) {
      fail(ErrorCode::system, "no memory for a state of ", options.context, " positions and ", options.chunk,
           " tokens at once");
    }
  }

  std::unique_ptr<ModelState> copy_state(ModelState& model_state) const override {
    State& state = own(model_state);
    auto copy = make_state(state.options);
    static_cast<State&>(*copy).copy_text(state);
    return copy;
  }

  void forward(ModelState& state, Executor& executor, std::span<const Token> tokens, Rows logits,
               Rows soft = {}) const override {
    forward(state, executor, tokens, logits, soft, NoObserver{});
  }

  /// As above. Calls observe(name, layer, values) with the scaled "embedding" and with each layer's "per_layer_input"
  /// and output ("layer"), for the positions that are computed there.
  template <class Observer>
  void forward(ModelState& model_state, Executor& threads, std::span<const Token> tokens, Rows logits, Rows soft,
               const Observer& observe) const {
    State& state = own(model_state);
    detail::check_pass(*this, state, threads, tokens, logits, soft);
    detail::check_context(state, tokens.size());
    if (tokens.empty()) return;
    state.will_write(tokens.size());
    if (!state.select_rows(tokens)) table.request(state.rows);
    state.workspace.start(state.position, tokens.size());
    const auto positions = [&](std::size_t layer, std::size_t row) {
      return Positions(state.position + row, state.caches[layer]);
    };
    state.row_adapters.assign(1, &state.adapters);
    state.token_adapted_rows.assign(1, &state.adapted_rows);
    compute(state, threads, tokens, state.rows, logits, soft, positions, observe);
    state.position += tokens.size();
    state.remember(tokens);
  }

  void forward_each(ModelState& workspace_state, Executor& threads, std::span<ModelState* const> states,
                    std::span<const Token> tokens, Rows logits) const override {
    State& shared = own(workspace_state);
    detail::check_pass(*this, shared, threads, tokens, logits, {});
    if (states.size() != tokens.size() || logits.rows != tokens.size()) {
      fail(ErrorCode::argument, "forward_each: ", states.size(), " texts, ", tokens.size(), " tokens and logits of ",
           logits.rows, " positions, expected equal numbers");
    }
    shared.positions.clear();
    for (std::size_t i = 0; i < states.size(); ++i) {
      detail::check_context(own(*states[i]), 1);  // own() throws unless each is a State
      if (std::find(states.begin(), states.begin() + static_cast<std::ptrdiff_t>(i), states[i]) !=
          states.begin() + static_cast<std::ptrdiff_t>(i)) {
        fail(ErrorCode::argument, "forward_each: state ", i, " is given twice");
      }
      shared.positions.push_back(states[i]->position);
    }
    if (tokens.empty()) return;
    const auto state_of = [&](std::size_t i) -> State& { return static_cast<State&>(*states[i]); };
    shared.row_adapters.clear();
    shared.token_adapted_rows.clear();
    std::size_t rank = 0;
    for (std::size_t i = 0; i < states.size(); ++i) {
      shared.row_adapters.push_back(&state_of(i).adapters);
      shared.token_adapted_rows.push_back(&state_of(i).adapted_rows);
      rank = (std::max)(rank, state_of(i).adapters.most_rank());
    }
    shared.need_adapter_workspace(states.size(), rank);
    for (std::size_t i = 0; i < states.size(); ++i) state_of(i).will_write(1);
    bool requested = true;
    shared.batch_rows.ids.clear();
    for (std::size_t i = 0; i < states.size(); ++i) {
      requested &= state_of(i).select_rows(tokens.subspan(i, 1));
      const std::vector<RowId>& ids = state_of(i).rows.ids;
      shared.batch_rows.ids.insert(shared.batch_rows.ids.end(), ids.begin(), ids.end());
    }
    if (!requested) table.request(shared.batch_rows);
    shared.workspace.start(shared.positions);
    const auto positions = [&](std::size_t layer, std::size_t row) {
      shared.batch_caches.clear();
      for (std::size_t i = row; i < states.size(); ++i) shared.batch_caches.push_back(&state_of(i).caches[layer]);
      return Positions(std::span(shared.positions).subspan(row), shared.batch_caches);
    };
    compute(shared, threads, tokens, shared.batch_rows, logits, {}, positions, NoObserver{});
    for (std::size_t i = 0; i < states.size(); ++i) {
      ++states[i]->position;
      state_of(i).remember(tokens.subspan(i, 1));
    }
  }

  void prefetch(ModelState& model_state, std::span<const Token> tokens) const override {
    State* state = if_own(model_state);
    if (state == nullptr || state->sizes != workspace_sizes() || !has_ple()) return;
    tokens = tokens.first((std::min)(tokens.size(), state->ahead));
    for (const Token token : tokens) {
      if (token != soft_token && (token < 0 || static_cast<std::size_t>(token) >= config.token_limit())) return;
      if (table.vocabulary() && !table.vocabulary()->row(token == soft_token ? config.pad_token() : token)) return;
    }
    if (!state->select_rows(tokens)) table.request(state->rows);
  }

  /// The per-layer inputs of text tokens, [T, layers * p], as the layers get them: what a folded table stores. h0, [T,
  /// d], and projected, [T, layers * p], are workspace. Errors: those of PleTable.
  void per_layer_inputs(Executor& threads, std::span<const Token> tokens, RowSelection& rows, Rows h0, Rows projected,
                        Rows out) const {
    AlignedVector<std::byte> workspace(
        product_workspace<T, B>(tokens.size(), tasks(threads), widest_integer_row_, widest_bf16_row_));
    const Context context(threads, workspace);
    for (const Token token : tokens) static_cast<void>(table.row_of(token));  // throws here, before any task starts
    detail::embed(*this, context, tokens, {}, h0);
    table.select(tokens, tokens.size(), config.pad_token(), rows);
    table.gather(context, rows, 0, 0, blocks.size(), out);
    if (table.folded()) return;
    per_layer_projection.project(context, 0, h0, projected);
    per_layer_projection.combine(context, projected, out);
  }

 private:
  struct WithoutBlocks {};
  Decoder(const Config& c, WithoutBlocks /*blocks*/) : config(c) {
    validate(config, "the decoder's configuration");
    const std::size_t d = config.hidden_size, p = config.hidden_size_per_layer_input, layers = config.num_layers();
    embedding = Matrix<T>(config.vocab_size, d);
    head = Linear<T, B>(config.vocab_size, d);
    if (p > 0) {
      table = Table(config.vocab_size_per_layer_input, layers, p);
      per_layer_projection = PerLayerProjection<T, B>(d, layers, p, config.rms_norm_eps);
    }
    streams = typename Block::Streams(config);
    final_norm = RmsNorm<B>(d, config.rms_norm_eps);
  }

  template <class F>
  void parameters_before_blocks(F& f) {
    f(Parameter::token_embedding, std::size_t{0}, embedding);
    if (!config.tie_word_embeddings) f(Parameter::head, std::size_t{0}, head.weight);
    if (has_ple()) {
      f(Parameter::ple_table, std::size_t{0}, table);
      f(Parameter::ple_context_projection, std::size_t{0}, per_layer_projection.context_projection.weight);
      f(Parameter::ple_context_norm, std::size_t{0}, per_layer_projection.context_norm.weight);
    }
    streams.parameters(f);
  }

  template <class F>
  void parameters_of_block(std::size_t l, F& f) {
    blocks[l].parameters([&](Parameter parameter, auto& values) { f(parameter, l, values); });
  }

  using State = DecoderState<Decoder>;

  /// The state as a State; null if another model made it.
  State* if_own(ModelState& model_state) const {
    if (model_state.type != &State::type_of_state) return nullptr;
    auto& state = static_cast<State&>(model_state);
    // A replaced model keeps its address, a moved one its tag: both must be the same.
    return state.model == this && state.tag == tag_.get() ? &state : nullptr;
  }
  State& own(ModelState& model_state) const {
    State* state = if_own(model_state);
    if (state == nullptr) {
      fail(ErrorCode::argument, "forward: the state was made by another model, or before this one was replaced");
    }
    const WorkspaceSizes now = workspace_sizes(), then = state->sizes;
    const bool takes_rows = state->adapted_rows.empty() || !table.folded();
    if (now == then && takes_rows) return *state;
    if (now.ids_per_token != then.ids_per_token || now.history != then.history) {
      fail(ErrorCode::argument, "forward: the table's keys are ", now.ids_per_token, " rows a token, looking back ",
           now.history, " tokens; when the state was made they were ", then.ids_per_token, " and ", then.history,
           ": make sessions after set_keys");
    }
    fail(ErrorCode::argument, "forward: the model's weights or table were replaced after the state was made");
  }

  WorkspaceSizes workspace_sizes() const {
    return {table.ids_per_token(), table.history(), table.vocabulary() ? head.weight.rows() : 0, widest_integer_row_,
            widest_bf16_row_};
  }

  /// A pass over tokens whose rows are selected; the workspace was started for their positions.
  template <class Observer>
  void compute(State& state, Executor& threads, std::span<const Token> tokens, RowSelection& rows, Rows logits,
               Rows soft, FunctionRef<Positions(std::size_t layer, std::size_t row)> positions,
               const Observer& observe) const {
    for (const auto& file : files_) file->check_size();
    const std::optional<RowAdapters> adapters = state.adapters_of_rows();
    const Context context(threads, state.product_workspace, adapters ? &*adapters : nullptr);
    detail::DecoderPass<Decoder, Observer>{*this, state, context, tokens, rows, positions, observe}(soft, logits);
  }

  ModelTag tag_;
  std::vector<std::shared_ptr<const MappedFile>> files_;
  std::size_t widest_integer_row_ = 0, widest_bf16_row_ = 0;
};

template <DecoderBlock Block, class TableType>
template <class Checkpoint>
Decoder<Block, TableType> Decoder<Block, TableType>::load(const Checkpoint& checkpoint, const LoadOptions& options) {
  Decoder model(checkpoint.template config<Config>(), WithoutBlocks{});
  load_weights(model, checkpoint, options);
  return model;
}

}  // namespace ple::inline PLE_ABI
