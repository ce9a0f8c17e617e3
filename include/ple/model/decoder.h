// SPDX-License-Identifier: Apache-2.0
// A decoder: token embedding, PLE table, a stack of blocks, a head.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ple/core/error.h"
#include "ple/model/language_model.h"
#include "ple/model/parameter.h"
#include "ple/nn/kv_cache.h"
#include "ple/nn/linear.h"
#include "ple/nn/per_layer.h"
#include "ple/nn/rms_norm.h"
#include "ple/table/ple_table.h"

namespace ple {

/// One layer of a decoder. Its Config describes the whole model; its Workspace is the room it computes in, and holds
/// what all layers share for one chunk (the angles of its positions, say).
template <class Block>
concept DecoderBlock = std::constructible_from<Block, const typename Block::Config&, std::size_t> &&
    std::constructible_from<typename Block::Workspace, const typename Block::Config&, const StateOptions&> &&
    requires(const Block block, const typename Block::Config config, typename Block::Workspace workspace,
             Executor& executor, KvCache& cache, Rows rows, const StateOptions& options, std::size_t n) {
  { Block::make_cache(config, n, options) } -> std::same_as<KvCache>;
  workspace.start(n, n);
  block.forward(executor, workspace, n, rows, rows, cache);
};

/// Choices made when a model is opened.
struct LoadOptions {
  TableStorage table = Mapped{};
};

/// Nobody watches.
struct NoObserver {
  void operator()(const char*, std::size_t, Rows) const {}
};

template <DecoderBlock Block, class Table = PleTable<typename Block::Dtype, typename Block::Simd>>
class Decoder final : public LanguageModel {
 public:
  using T = typename Block::Dtype;
  using B = typename Block::Simd;
  using Config = typename Block::Config;

  Config config;
  Matrix<T> embedding;  ///< [vocab_size, d]
  Matrix<T> head;       ///< [vocab_size, d]; the embedding again where they are tied
  Table table;          ///< [vocab_size_per_layer_input, layers * p]
  PerLayerInput<T, B> per_layer_input;
  std::vector<Block> blocks;
  RmsNorm<B> final_norm;

  /// All shapes, no values yet: fill them with `parameters`, or use `load`. Errors: ErrorCode::config.
  explicit Decoder(const Config& c) : config(c) {
    validate(config, "the decoder's configuration");
    const std::size_t d = config.hidden_size, p = config.hidden_size_per_layer_input, layers = config.num_layers();
    embedding = Matrix<T>(config.vocab_size, d);
    head = Matrix<T>(config.vocab_size, d);
    if (p > 0) {
      table = Table(config.vocab_size_per_layer_input, layers, p);
      per_layer_input = PerLayerInput<T, B>(d, layers, p, config.rms_norm_eps);
    }
    for (std::size_t l = 0; l < layers; ++l) blocks.emplace_back(config, l);
    final_norm = RmsNorm<B>(d, config.rms_norm_eps);
  }

  /// Calls f(Parameter, layer, values) for every parameter; values is a Matrix or, for norms and scalars, a
  /// vector<float>.
  template <class F>
  void parameters(F&& f) {
    f(Parameter::token_embedding, std::size_t{0}, embedding);
    if (!config.tie_word_embeddings) f(Parameter::head, std::size_t{0}, head);
    if (has_ple()) {
      f(Parameter::ple_table, std::size_t{0}, table.rows);
      f(Parameter::ple_context_projection, std::size_t{0}, per_layer_input.context_projection.weight);
      f(Parameter::ple_context_norm, std::size_t{0}, per_layer_input.context_norm.weight);
    }
    for (std::size_t l = 0; l < blocks.size(); ++l) {
      blocks[l].parameters([&](Parameter parameter, auto& values) { f(parameter, l, values); });
    }
    f(Parameter::final_norm, std::size_t{0}, final_norm.weight);
  }

  /// Once all parameters have their values: makes the head the embedding where they are tied.
  void tie() {
    if (config.tie_word_embeddings) head = embedding;
  }

  /// Takes configuration and tensors from a checkpoint: anything with config() and tensor(Parameter, layer). Weights
  /// are used where they lie, and stay valid without the checkpoint. Errors: what the checkpoint throws; shape; dtype.
  template <class Checkpoint>
  static Decoder load(const Checkpoint& checkpoint, const LoadOptions& options = {}) {
    Decoder model(checkpoint.config());
    model.parameters([&]<class V>(Parameter parameter, std::size_t layer, V& values) {
      const Tensor tensor = checkpoint.tensor(parameter, layer);
      if constexpr (std::same_as<V, std::vector<float>>) {
        load_vector(tensor, values);
      } else {
        values.load(tensor);
      }
    });
    model.tie();
    if (model.has_ple() && std::holds_alternative<Resident>(options.table)) model.table.rows.make_resident();
    return model;
  }

  bool has_ple() const { return config.hidden_size_per_layer_input > 0; }
  std::size_t vocab_size() const override { return config.vocab_size; }
  std::size_t max_position_embeddings() const override { return config.max_position_embeddings; }

  std::unique_ptr<ModelState> make_state(const StateOptions& options) const override {
    if (options.chunk == 0 || options.parts == 0)
      fail(ErrorCode::argument, "a state needs a chunk and parts of at least 1");
    if (options.context == 0 || options.context > config.max_position_embeddings) {
      fail(ErrorCode::argument, "context is ", options.context, ", expected 1 to ", config.max_position_embeddings,
           ", the model's max_position_embeddings");
    }
    return std::make_unique<State>(*this, options);
  }

  void forward(ModelState& state, Executor& executor, std::span<const Token> tokens, Rows logits) const override {
    forward(state, executor, tokens, logits, NoObserver{});
  }

  /// As above; calls observe(name, layer, values) with the scaled embedding ("embedding"), each layer's per-layer input
  /// ("per_layer_input") and output ("layer"), for the positions that are computed there.
  template <class Observer>
  void forward(ModelState& model_state, Executor& executor, std::span<const Token> tokens, Rows logits,
               const Observer& observe) const {
    State& state = check(model_state, executor, tokens, logits);
    if (tokens.empty()) return;
    const std::size_t first_shared = config.first_shared_layer(), wanted = logits.rows, T0 = tokens.size() - wanted;
    const Rows h = state.hidden.slice(0, tokens.size());
    embed(executor, tokens, h);
    observe("embedding", 0, h);
    // Positions whose logits nobody wants end at the last layer that writes a cache: no one looks at what follows
    // there.
    copy_rows(h.slice(T0, wanted), state.wanted_embedding);
    state.workspace.start(state.position, tokens.size());
    run_layers(state, executor, 0, first_shared, tokens, 0, h, h, observe);
    if (wanted > 0) {
      const Rows last = h.slice(T0, wanted);
      run_layers(state, executor, first_shared, blocks.size(), tokens.subspan(T0), T0, state.wanted_embedding, last,
                 observe);
      final_norm(executor, last, last);
      visit(head, [&](const auto& w) {
        parallel_for(executor, w.rows(), 16, [&](std::size_t begin, std::size_t end, std::size_t) {
          B::matmul(w.row(begin), w.cols(), end - begin, w.cols(), last.data, last.stride, wanted, logits.data + begin,
                    logits.stride);
          if (config.final_logit_softcapping == 0) return;
          for (std::size_t t = 0; t < wanted; ++t)
            B::softcap(config.final_logit_softcapping, end - begin, logits.row(t) + begin);
        });
      });
    }
    state.position += tokens.size();
  }

 private:
  struct State final : ModelState {
    const Decoder* model;
    std::vector<KvCache> caches;  // by layer; empty ones for layers that share another's
    typename Block::Workspace workspace;
    AlignedVector<float> memory;
    Rows hidden, wanted_embedding, per_layer, context;

    State(const Decoder& m, const StateOptions& o) : ModelState(o), model(&m), workspace(m.config, o) {
      const Config& c = m.config;
      for (std::size_t l = 0; l < c.num_layers(); ++l) caches.push_back(Block::make_cache(c, l, o));
      const std::size_t d = c.hidden_size, packed = c.num_layers() * c.hidden_size_per_layer_input;
      const RowsRequest all[] = {{&hidden, o.chunk, d},
                                 {&wanted_embedding, o.chunk, d},
                                 {&per_layer, o.chunk, packed},
                                 {&context, o.chunk, packed}};
      memory = allocate_rows(all);
    }
    std::size_t kv_cache_bytes() const override {
      std::size_t bytes = 0;
      for (const KvCache& cache : caches) bytes += cache.bytes();
      return bytes;
    }
  };

  static void load_vector(const Tensor& tensor, std::vector<float>& values) {
    Matrix<Any> row(1, values.size());
    Tensor as_row = tensor;
    if (as_row.shape.size() == 1) as_row.shape.insert(as_row.shape.begin(), 1);
    if (as_row.shape != std::vector<std::uint64_t>{1, values.size()}) {
      fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": shape is ", shape_text(tensor.shape), ", expected ",
           shape_text({values.size()}));
    }
    row.load(as_row);
    row.visit([&](const auto& stored) { B::decode(stored.row(0), values.size(), values.data()); });
  }

  /// The state as our own, if it and the arguments are valid.
  State& check(ModelState& model_state, const Executor& executor, std::span<const Token> tokens, Rows logits) const {
    const auto refuse = [](const auto&... parts) { fail(ErrorCode::argument, "forward: ", parts...); };
    auto* own = dynamic_cast<State*>(&model_state);
    if (own == nullptr || own->model != this) refuse("the state was made by another model");
    State& state = *own;
    if (state.position > state.options.context)
      refuse("position ", state.position, " is past the context of ", state.options.context);
    if (tokens.size() > state.options.chunk) refuse(tokens.size(), " tokens at once, at most ", state.options.chunk);
    if (tokens.size() > state.options.context - state.position) {
      refuse(tokens.size(), " tokens at position ", state.position, " go past the context of ", state.options.context);
    }
    if (logits.rows > tokens.size())
      refuse("logits of ", logits.rows, " positions wanted from ", tokens.size(), " tokens");
    if (logits.rows > 0 && logits.cols != config.vocab_size)
      refuse(logits.cols, " logits, expected ", config.vocab_size);
    if (parts(executor) > state.options.parts) {
      refuse("the executor makes ", parts(executor), " parts, the state has room for ", state.options.parts);
    }
    const std::size_t limit =
        has_ple() ? std::min(config.vocab_size, config.vocab_size_per_layer_input) : config.vocab_size;
    for (const Token token : tokens) {
      if (token < 0 || static_cast<std::size_t>(token) >= limit) refuse("token ", token, ", expected 0 to ", limit - 1);
    }
    return state;
  }

  /// h0 = embedding[token] * sqrt(d), the factor rounded to the embedding's dtype as the reference has it.
  void embed(Executor& executor, std::span<const Token> tokens, Rows h0) const {
    visit(embedding, [&](const auto& rows) {
      const float scale = rounded_to(rows.dtype(), std::sqrt(static_cast<float>(config.hidden_size)));
      for_each_row(executor, tokens.size(), h0.cols, [&](std::size_t t) {
        B::decode(rows.row(static_cast<std::size_t>(tokens[t])), h0.cols, h0.row(t));
        B::scale(scale, h0.cols, h0.row(t));
      });
    });
  }

  /// Layers [begin, end) for `tokens`, which are the chunk's from its row `row` on. h0 and h may be the same rows.
  template <class Observer>
  void run_layers(State& state, Executor& executor, std::size_t begin, std::size_t end, std::span<const Token> tokens,
                  std::size_t row, Rows h0, Rows h, const Observer& observe) const {
    if (begin == end) return;
    const std::size_t p = config.hidden_size_per_layer_input;
    const Rows e = state.per_layer.slice(0, tokens.size()).columns(begin * p, (end - begin) * p);
    if (has_ple()) {
      const Rows context = state.context.slice(0, tokens.size()).columns(begin * p, (end - begin) * p);
      table.gather(executor, tokens, begin * p, e);
      per_layer_input(executor, begin * p, h0.slice(0, tokens.size()), e, context);
    }
    for (std::size_t l = begin; l < end; ++l) {
      const Rows layer_e = e.columns((l - begin) * p, p);
      if (has_ple()) observe("per_layer_input", l, layer_e);
      blocks[l].forward(executor, state.workspace, row, h, layer_e, state.caches[*config.kv_layer(l)]);
      observe("layer", l, h);
    }
  }

  static void copy_rows(Rows from, Rows to) {
    for (std::size_t t = 0; t < from.rows; ++t) std::copy_n(from.row(t), from.cols, to.row(t));
  }
};

}  // namespace ple
