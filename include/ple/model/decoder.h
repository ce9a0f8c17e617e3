// SPDX-License-Identifier: Apache-2.0
// A decoder: token embedding, PLE table, a stack of blocks, a head.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/function_ref.h"
#include "ple/model/chunk_inputs.h"
#include "ple/model/decoder_block.h"
#include "ple/model/decoder_state.h"
#include "ple/model/decoder_weights.h"
#include "ple/model/identity.h"
#include "ple/model/language_model.h"
#include "ple/model/parameter.h"
#include "ple/nn/linear.h"
#include "ple/nn/per_layer.h"
#include "ple/nn/places.h"
#include "ple/nn/rms_norm.h"
#include "ple/simd/decode.h"
#include "ple/table/ple_table.h"

namespace ple::inline PLE_ABI {

/// Nobody watches.
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
  Matrix<T> head;       ///< [vocab_size, d]; the embedding again where they are tied
  Table table;          ///< [vocab_size_per_layer_input, layers * p]
  PerLayerInput<T, B> per_layer_input;
  typename Block::Streams streams;  ///< from the embedding to what the blocks work on, and back
  std::vector<Block> blocks;
  RmsNorm<B> final_norm;

  /// All shapes, no values yet: fill them with `parameters`, or use `load`. Errors: ErrorCode::config.
  explicit Decoder(const Config& c) : Decoder(c, WithoutBlocks{}) {
    for (std::size_t l = 0; l < config.num_layers(); ++l) blocks.emplace_back(config, l);
  }

  /// Calls f(Parameter, layer, values) for every parameter; values is a Matrix, the Table or, for norms and scalars, a
  /// vector<float>.
  template <class F>
  void parameters(F&& f) {
    parameters_before_blocks(f);
    for (std::size_t l = 0; l < blocks.size(); ++l) parameters_of_block(l, f);
    f(Parameter::final_norm, std::size_t{0}, final_norm.weight);
  }

  /// Once all parameters have their values: makes the head the embedding where they are tied, and whatever else is made
  /// of weights.
  void tie() {
    if (config.tie_word_embeddings) head = embedding;
    for (Block& block : blocks) {
      if constexpr (requires { block.prepare(); }) block.prepare();
    }
    widest_integer_row_ = widest_bf16_row_ = 0;
    parameters([&](Parameter, std::size_t, const auto& values) {
      if constexpr (requires { values.holds_integers(); }) {
        if (values.holds_integers()) widest_integer_row_ = (std::max)(widest_integer_row_, values.cols());
        if (values.dtype() == Dtype::bf16) widest_bf16_row_ = (std::max)(widest_bf16_row_, values.cols());
      }
    });
  }

  /// Takes configuration and tensors from a checkpoint: anything with config<Config>() and tensor(Parameter, layer),
  /// and perhaps ple_table(), an optional TableSource. Weights are used where they lie, but for those that
  /// LoadOptions::weights lays out anew, and stay valid without the checkpoint. Errors: what the checkpoint throws;
  /// shape; dtype; those of PleTable::load.
  template <class Checkpoint>
  static Decoder load(const Checkpoint& checkpoint, const LoadOptions& options = {});

  /// As `parameters`, for a decoder that has no blocks yet: makes a block when it is its turn. Norms take memory as
  /// soon as a block is there. So no more of it is taken for numbers of a configuration than tensors were found to
  /// bear out before, and a file costs a few times its size at most, whatever it says.
  template <class F>
  void parameters_block_by_block(F&& f) {
    parameters_before_blocks(f);
    for (std::size_t l = 0; l < config.num_layers(); ++l) {
      blocks.emplace_back(config, l);
      parameters_of_block(l, f);
    }
    f(Parameter::final_norm, std::size_t{0}, final_norm.weight);
  }

  /// Lays weights of integer types out as LoadOptions::weights says, for a model whose parameters did not come from
  /// `load`; `tie` was called.
  void interleave(Executor& executor) { interleave_weights(*this, executor); }

  /// For whoever fills in weights that lie in a mapped file: before its pages are touched, it is asked whether it is
  /// still whole.
  void watch(const std::shared_ptr<const MappedFile>& file) {
    if (file && std::find(files_.begin(), files_.end(), file) == files_.end()) files_.push_back(file);
  }

  bool has_ple() const { return config.hidden_size_per_layer_input > 0; }
  std::size_t vocab_size() const override { return config.vocab_size; }
  std::size_t max_position_embeddings() const override { return config.max_position_embeddings; }
  std::size_t hidden_size() const override { return config.hidden_size; }
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

  std::unique_ptr<ModelState> make_state(const StateOptions& options) const override {
    if (options.chunk == 0 || options.chunk > most_tokens_at_once) {
      fail(ErrorCode::argument, "a state for ", options.chunk, " tokens at once, expected 1 to ", most_tokens_at_once);
    }
    if (options.parts == 0) fail(ErrorCode::argument, "a state needs parts of at least 1");
    if (options.context == 0 || options.context > config.max_position_embeddings) {
      fail(ErrorCode::argument, "context is ", options.context, ", expected 1 to ", config.max_position_embeddings,
           ", the model's max_position_embeddings");
    }
    // At most 2^61 each, and it ends at the first that is too many: of a limit, or of what addresses can tell apart.
    constexpr auto addresses = static_cast<std::uint64_t>((std::numeric_limits<std::ptrdiff_t>::max)());
    const std::uint64_t limit = options.kv_cache_limit;
    std::uint64_t bytes = 0;
    for (std::size_t l = 0; l < blocks.size(); ++l) {
      bytes += Block::cache_bytes(config, l, options);
      if (bytes <= (limit > 0 ? (std::min)(limit, addresses) : addresses)) continue;
      fail(ErrorCode::limit, "K and V of ", options.context, " positions take ", bytes, " bytes in the first ", l + 1,
           " layers, more than ",
           limit > 0 ? "kv_cache_limit, which is " : "a machine can address: ", limit > 0 ? limit : addresses);
    }
    try {
      return std::make_unique<State>(*this, tag_.get(), options, room_sizes());
    } catch (const std::bad_alloc&) {
      fail(ErrorCode::system, "no memory for a state of ", options.context, " positions and ", options.chunk,
           " tokens at once");
    }
  }

  void forward(ModelState& state, Executor& executor, std::span<const Token> tokens, Rows logits,
               Rows soft = {}) const override {
    forward(state, executor, tokens, logits, soft, NoObserver{});
  }

  /// As above; calls observe(name, layer, values) with the scaled embedding ("embedding"), each layer's per-layer input
  /// ("per_layer_input") and output ("layer"), for the positions that are computed there.
  template <class Observer>
  void forward(ModelState& model_state, Executor& threads, std::span<const Token> tokens, Rows logits, Rows soft,
               const Observer& observe) const {
    State& state = own(model_state);
    check(state, threads, tokens, logits, soft);
    check_context(state, tokens.size());
    if (tokens.empty()) return;
    state.will_write(tokens.size());
    table.select(state.with_history(tokens), tokens.size(), config.token_of_no_text(), state.rows);
    state.workspace.start(state.position, tokens.size());
    const auto places = [&](std::size_t layer, std::size_t row) {
      return Places(state.position + row, state.caches[layer]);
    };
    compute(state, threads, tokens, logits, soft, places, observe);
    state.position += tokens.size();
    state.remember(tokens);
  }

  void forward_each(ModelState& room_state, Executor& threads, std::span<ModelState* const> states,
                    std::span<const Token> tokens, Rows logits) const override {
    State& room = own(room_state);
    check(room, threads, tokens, logits, {});
    if (states.size() != tokens.size() || logits.rows != tokens.size()) {
      fail(ErrorCode::argument, "forward_each: ", states.size(), " texts, ", tokens.size(), " tokens and logits of ",
           logits.rows, " positions, expected as many of each");
    }
    room.positions.clear();
    for (std::size_t i = 0; i < states.size(); ++i) {
      check_context(own(*states[i]), 1);  // and so each is a State
      if (std::find(states.begin(), states.begin() + static_cast<std::ptrdiff_t>(i), states[i]) !=
          states.begin() + static_cast<std::ptrdiff_t>(i)) {
        fail(ErrorCode::argument, "forward_each: state ", i, " is there twice");
      }
      room.positions.push_back(states[i]->position);
    }
    if (tokens.empty()) return;
    const auto state_of = [&](std::size_t i) -> State& { return static_cast<State&>(*states[i]); };
    for (std::size_t i = 0; i < states.size(); ++i) state_of(i).will_write(1);
    room.rows.ids.clear();
    for (std::size_t i = 0; i < states.size(); ++i) {
      table.select_more(state_of(i).with_history(tokens.subspan(i, 1)), 1, config.token_of_no_text(), room.rows);
    }
    room.workspace.start(room.positions);
    const auto places = [&](std::size_t layer, std::size_t row) {
      room.texts_caches.clear();
      for (std::size_t i = row; i < states.size(); ++i) room.texts_caches.push_back(&state_of(i).caches[layer]);
      return Places(std::span(room.positions).subspan(row), room.texts_caches);
    };
    compute(room, threads, tokens, logits, {}, places, NoObserver{});
    for (std::size_t i = 0; i < states.size(); ++i) {
      ++states[i]->position;
      state_of(i).remember(tokens.subspan(i, 1));
    }
  }

  void will_read(ModelState& model_state, std::span<const Token> tokens) const override {
    State* state = if_own(model_state);
    if (state == nullptr || state->sizes != room_sizes() || !has_ple()) return;
    tokens = tokens.first((std::min)(tokens.size(), state->ahead));
    for (const Token token : tokens) {
      if (token != soft_token && (token < 0 || static_cast<std::size_t>(token) >= config.token_limit())) return;
      if (table.vocabulary() && !table.vocabulary()->row(token == soft_token ? config.token_of_no_text() : token))
        return;
    }
    table.select(state->with_history(tokens), tokens.size(), config.token_of_no_text(), state->rows_ahead);
    table.request(state->rows_ahead);
  }

  /// The per-layer inputs of tokens that are text, [T, layers * p], as the layers get them: what folding writes down.
  /// h0 and context are room for [T, d] and [T, layers * p]. Errors: those of PleTable.
  void per_layer_inputs(Executor& executor, std::span<const Token> tokens, RowSelection& rows, Rows h0, Rows context,
                        Rows out) const {
    embed(executor, tokens, {}, h0);
    table.select(tokens, tokens.size(), config.token_of_no_text(), rows);
    table.gather(executor, rows, 0, 0, blocks.size(), out);
    if (table.folded()) return;
    per_layer_input.project(executor, 0, h0, context);
    per_layer_input.combine(executor, context, out);
  }

 private:
  struct WithoutBlocks {};
  Decoder(const Config& c, WithoutBlocks /*blocks*/) : config(c) {
    validate(config, "the decoder's configuration");
    const std::size_t d = config.hidden_size, p = config.hidden_size_per_layer_input, layers = config.num_layers();
    embedding = Matrix<T>(config.vocab_size, d);
    head = Matrix<T>(config.vocab_size, d);
    if (p > 0) {
      table = Table(config.vocab_size_per_layer_input, layers, p);
      per_layer_input = PerLayerInput<T, B>(d, layers, p, config.rms_norm_eps);
    }
    streams = typename Block::Streams(config);
    final_norm = RmsNorm<B>(d, config.rms_norm_eps);
  }

  template <class F>
  void parameters_before_blocks(F& f) {
    f(Parameter::token_embedding, std::size_t{0}, embedding);
    if (!config.tie_word_embeddings) f(Parameter::head, std::size_t{0}, head);
    if (has_ple()) {
      f(Parameter::ple_table, std::size_t{0}, table);
      f(Parameter::ple_context_projection, std::size_t{0}, per_layer_input.context_projection.weight);
      f(Parameter::ple_context_norm, std::size_t{0}, per_layer_input.context_norm.weight);
    }
    streams.parameters(f);
  }

  template <class F>
  void parameters_of_block(std::size_t l, F& f) {
    blocks[l].parameters([&](Parameter parameter, auto& values) { f(parameter, l, values); });
  }

  using State = DecoderState<Decoder>;
  /// Where the rows of a pass from `row` on stand, in a layer.
  using PlacesOf = FunctionRef<Places(std::size_t layer, std::size_t row)>;

  /// The state as what it is; null if this model did not make it.
  State* if_own(ModelState& model_state) const {
    if (model_state.type != &State::type_of_state) return nullptr;
    auto& state = static_cast<State&>(model_state);
    // Its address alone does not tell a model that was replaced, its tag alone not one that was moved.
    return state.model == this && state.tag == tag_.get() ? &state : nullptr;
  }
  State& own(ModelState& model_state) const {
    State* state = if_own(model_state);
    if (state == nullptr) {
      fail(ErrorCode::argument, "forward: the state was made by another model, or before this one was replaced");
    }
    const RoomSizes now = room_sizes(), then = state->sizes;
    if (now == then) return *state;
    if (now.ids_per_token != then.ids_per_token || now.history != then.history) {
      fail(ErrorCode::argument, "forward: the table's keys are ", now.ids_per_token, " rows a token, looking back ",
           now.history, " tokens; when the state was made they were ", then.ids_per_token, " and ", then.history,
           ": make sessions after set_keys");
    }
    fail(ErrorCode::argument, "forward: the model's weights or table were replaced after the state was made");
  }

  RoomSizes room_sizes() const {
    return {table.ids_per_token(), table.history(), table.vocabulary() ? head.rows() : 0, widest_integer_row_,
            widest_bf16_row_};
  }

  static void check_context(const State& state, std::size_t tokens) {
    const std::size_t context = state.options.context;
    if (state.position > context)
      fail(ErrorCode::argument, "forward: position ", state.position, " is past the context of ", context);
    if (tokens > context - state.position) {
      fail(ErrorCode::argument, "forward: ", tokens, " tokens at position ", state.position, " go past the context of ",
           context);
    }
  }

  /// Whether the state has room for a pass, and the arguments are valid.
  void check(const State& state, const Executor& executor, std::span<const Token> tokens, Rows logits,
             Rows soft) const {
    const auto refuse = [](const auto&... parts) { fail(ErrorCode::argument, "forward: ", parts...); };
    if (tokens.size() > state.options.chunk) refuse(tokens.size(), " tokens at once, at most ", state.options.chunk);
    if (logits.rows > tokens.size())
      refuse("logits of ", logits.rows, " positions wanted from ", tokens.size(), " tokens");
    if (logits.rows > 0 && logits.cols != config.vocab_size)
      refuse(logits.cols, " logits, expected ", config.vocab_size);
    if (parts(executor) > state.options.parts) {
      refuse("the executor makes ", parts(executor), " parts, the state has room for ", state.options.parts);
    }
    std::size_t soft_tokens = 0;
    for (const Token token : tokens) {
      soft_tokens += token == soft_token;
      if (token == soft_token) continue;
      if (token < 0 || static_cast<std::size_t>(token) >= config.token_limit()) {
        refuse("token ", token, ", expected 0 to ", config.token_limit() - 1);
      }
      static_cast<void>(table.row_of(token));  // throws where it was left out, before any task needs it
    }
    if (soft_tokens != soft.rows || (soft.rows > 0 && soft.cols != config.hidden_size)) {
      refuse("embeddings [", soft.rows, ", ", soft.cols, "] for ", soft_tokens, " soft tokens, expected [", soft_tokens,
             ", ", config.hidden_size, "]");
    }
  }

  /// A pass over tokens whose rows were selected, and for whose positions the workspace was started.
  template <class Observer>
  void compute(State& state, Executor& threads, std::span<const Token> tokens, Rows logits, Rows soft, PlacesOf places,
               const Observer& observe) const {
    ExecutorWithScratch executor(threads, state.scratch);
    for (const auto& file : files_) file->check_size();
    const std::size_t first_shared = config.first_shared_layer(), wanted = logits.rows, T0 = tokens.size() - wanted;
    const Rows h = state.hidden.slice(0, tokens.size()), h0 = h.columns(0, config.hidden_size);
    table.request(state.rows);
    embed(executor, tokens, soft, h0);
    observe("embedding", 0, h0);
    // Positions whose logits nobody wants end at the last layer that writes a cache: no one looks at what follows
    // there.
    copy_rows(h0.slice(T0, wanted), state.wanted_embedding);
    streams.expand(executor, h);
    run_layers(state, executor, 0, first_shared, tokens, 0, h0, h, places, observe);
    if (wanted == 0) return;
    const Rows last = h.slice(T0, wanted);
    run_layers(state, executor, first_shared, blocks.size(), tokens.subspan(T0), T0, state.wanted_embedding, last,
               places, observe);
    streams.mean(executor, state.workspace, last);
    const Rows output = h0.slice(T0, wanted);
    final_norm(executor, output, output);
    write_logits(state, executor, output, logits);
  }

  /// h0 = embedding[token] * sqrt(d), the factor rounded to the embedding's dtype as the reference has it; a soft
  /// token's is given.
  void embed(Executor& executor, std::span<const Token> tokens, Rows soft, Rows h0) const {
    const float scale = rounded_to(embedding.dtype(), std::sqrt(static_cast<float>(config.hidden_size)));
    const std::size_t row_bytes = bytes_of(embedding.dtype(), h0.cols);
    for_each_row(executor, tokens.size(), h0.cols, [&](std::size_t t) {
      if (tokens[t] == soft_token) return;
      const std::size_t row = table.row_of(tokens[t]);
      const bool interleaved = config.tie_word_embeddings && head.interleaved();
      if constexpr (Matrix<T>::may_be_integers) {
        if (interleaved) head.decode_interleaved_row(row, h0.row(t));  // it is in memory: no page is touched
      }
      if (!interleaved) {
        ple::decode<B, T>(embedding.dtype(), embedding.data() + row * row_bytes, h0.cols, h0.row(t));
      }
      B::scale(scale, h0.cols, h0.row(t));
    });
    for (std::size_t t = 0, i = 0; t < tokens.size(); ++t) {
      if (tokens[t] == soft_token) std::copy_n(soft.row(i++), h0.cols, h0.row(t));
    }
  }

  /// Layers [begin, end) for `tokens`, which are the chunk's from its row `row` on. h0 and h may be the same rows.
  template <class Observer>
  void run_layers(State& state, Executor& executor, std::size_t begin, std::size_t end, std::span<const Token> tokens,
                  std::size_t row, Rows h0, Rows h, PlacesOf places, const Observer& observe) const {
    if (begin == end) return;
    const std::size_t p = config.hidden_size_per_layer_input;
    const Rows e = state.per_layer.slice(0, tokens.size()).columns(begin * p, (end - begin) * p);
    const Rows context = state.context.slice(0, tokens.size()).columns(begin * p, (end - begin) * p);
    const ChunkInputs<Table, PerLayerInput<T, B>> inputs{table, per_layer_input, p};
    inputs.project(executor, begin, end, tokens, h0, context);
    bool gathered = false;
    for (std::size_t l = begin; l < end; ++l) {
      // The rows are fetched when the first layer asks for them: until then they had time to arrive.
      const auto per_layer_rows = [&]() -> Rows {
        if (!table.has(l)) return {};
        if (!std::exchange(gathered, true)) {
          table.gather(executor, state.rows, row, begin, end - begin, e);
          inputs.combine(executor, begin, end, tokens, context, e);
        }
        const Rows layer_e = e.columns((l - begin) * p, p);
        observe("per_layer_input", l, layer_e);
        return layer_e;
      };
      blocks[l].forward(executor, state.workspace, row, h, per_layer_rows, places(*config.kv_layer(l), row));
      observe("layer", l, h);
    }
  }

  /// logits = softcap(head x). Tokens that a cut-down vocabulary left out cannot come next.
  void write_logits(const State& state, Executor& executor, Rows x, Rows logits) const {
    const VocabularyMap* vocabulary = table.vocabulary().get();
    const bool few = head.rows() < config.vocab_size;
    const Rows y = few ? state.kept_logits.slice(0, x.rows) : logits;
    const Product<T> product{head, y};
    multiply<B, T>(executor, x, std::span(&product, 1), [&](std::size_t begin, std::size_t end) {
      if (config.final_logit_softcapping == 0) return;
      for (std::size_t t = 0; t < x.rows; ++t)
        B::softcap(config.final_logit_softcapping, end - begin, y.row(t) + begin);
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

  static void copy_rows(Rows from, Rows to) {
    for (std::size_t t = 0; t < from.rows; ++t) std::copy_n(from.row(t), from.cols, to.row(t));
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
