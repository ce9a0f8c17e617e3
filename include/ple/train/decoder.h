// SPDX-License-Identifier: Apache-2.0
// A decoder's loss on a sequence, and its gradient. What a block needs of its forward pass is computed again on the way
// back, unless there is memory to keep it. Source: Chen et al. 2016 (gradient checkpoints).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/context.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/core/token.h"
#include "ple/model/decoder.h"
#include "ple/tensor/rows.h"
#include "ple/train/block.h"
#include "ple/train/sequence.h"

namespace ple::inline PLE_ABI {

struct GradientOptions {
  std::size_t max_tokens = 512;  ///< of a sequence
  std::size_t threads = 1;       ///< of the executor
  /// Bytes for what layers need on the way back. Layers beyond it are computed a second time.
  std::uint64_t activation_budget = std::uint64_t{256} << 20;
};

/// Model: a Decoder of Gemma 4 or Gemma 3.
template <class Model>
class DecoderGradient {
 public:
  using B = typename Model::B;
  using T = typename Model::T;
  using Block = typename Model::Layer;

  /// `trained` must outlive this. Errors: ErrorCode::not_supported for a mixture of experts, a folded table, n-gram
  /// keys or a cut-down vocabulary; argument.
  DecoderGradient(const Model& model, TrainedParameters& trained, const GradientOptions& options)
      : model_(model),
        trained_(trained),
        options_(checked(model, options)),
        block_workspace_(model.config, options.max_tokens, tasks()) {
    const auto& c = model.config;
    const std::size_t most = options.max_tokens, d = c.hidden_size,
                      packed = c.num_layers() * c.hidden_size_per_layer_input;
    std::size_t half[2] = {0, 0};
    for (std::size_t l = 0; l < c.num_layers(); ++l) half[type_of(l)] = c.layer(l).head_dim / 2;
    for (const AttentionType type : {AttentionType::sliding, AttentionType::full}) {
      const RopeConfig& r = c.rope(type);
      ropes_[static_cast<std::size_t>(type)] =
          Rope(r.theta, r.fraction, r.factor, 2 * half[static_cast<std::size_t>(type)]);
    }
    inputs_.resize(c.num_layers() + 1);
    shared_.resize(c.num_layers());
    std::vector<RowsRequest> all = {{&projected_, most, packed},
                                    {&context_, most, packed},
                                    {&e_, most, packed},
                                    {&de_, most, packed},
                                    {&dh_, most, d},
                                    {&kept_, most, d},
                                    {&normed_, most, d},
                                    {&dnormed_, most, d},
                                    {&logits_, (std::min)(loss_rows, most), c.vocab_size},
                                    {&angles_[0].cosine, most, half[0]},
                                    {&angles_[0].sine, most, half[0]},
                                    {&angles_[1].cosine, most, half[1]},
                                    {&angles_[1].sine, most, half[1]}};
    for (Rows& input : inputs_) all.push_back({&input, most, d});
    for (std::size_t l = c.first_shared_layer(); l < c.num_layers(); ++l) {
      SharedKv& kv = shared_[*c.kv_layer(l)];
      if (kv.k.data != nullptr || kv.k.cols > 0) continue;
      const std::size_t width = c.layer(l).num_key_value_heads * c.layer(l).head_dim;
      kv.k.cols = width;  // marks it
      for (Rows* rows : {&kv.k, &kv.v, &kv.dk, &kv.dv}) all.push_back({rows, most, width});
    }
    memory_ = allocate_spaced_rows(all);
    const std::uint64_t each = BlockActivations(c, 0).bytes(most);
    const std::size_t keep = static_cast<std::size_t>(
        (std::min)(std::uint64_t{c.num_layers()}, options.activation_budget / (each > 0 ? each : 1)));
    for (std::size_t i = 0; i < (std::max)(keep, std::size_t{1}); ++i) activations_.emplace_back(c, most);
    if (model.has_ple()) {
      selection_ = model.table.make_selection(most);
      one_ = model.table.make_selection(1);
    }
  }

  /// The sum of -log p(token | those before it) over tokens that count. With `factor` > 0, adds the gradient of factor
  /// times this sum to what is trained. Errors: ErrorCode::argument for a sequence that is too long, or tokens without
  /// rows; file if the table cannot be read.
  double loss(Executor& executor, const TrainingSequence& sequence, float factor = 0) {
    check(executor, sequence);
    const std::size_t rows = sequence.tokens.size(), layers = model_.blocks.size();
    AlignedVector<std::byte> none;
    const Context context(executor, none);
    start(context, sequence);
    const Rows h0 = inputs_[0].slice(0, rows);
    detail::embed(model_, context, sequence.tokens, {}, h0);
    per_layer_inputs(context, sequence.tokens, h0);
    for (std::size_t l = 0; l < layers; ++l) forward_block(context, l, rows);

    targets_.clear();
    sequence.for_each_learnt([&](std::size_t t) { targets_.push_back({t - 1, sequence.tokens[t]}); });
    if (targets_.empty()) return 0;
    const double sum = head(context, rows, factor);
    if (factor > 0) backward(context, sequence.tokens);
    return sum;
  }

 private:
  static constexpr std::size_t loss_rows = 256;  // positions whose logits are in memory at once

  struct Target {
    std::size_t row;
    Token token;
  };

  std::size_t tasks() const { return options_.threads <= 1 ? 1 : 4 * options_.threads; }
  std::size_t type_of(std::size_t l) const { return static_cast<std::size_t>(model_.config.layer(l).attention); }

  static const GradientOptions& checked(const Model& model, const GradientOptions& options) {
    const auto refuse = [](const auto&... why) { fail(ErrorCode::not_supported, "training: ", why...); };
    if constexpr (requires { model.config.num_experts; }) {
      if (model.config.num_experts > 0) refuse("a mixture of experts");
    }
    if (model.table.folded()) refuse("a folded PLE table");
    if (model.table.vocabulary()) refuse("a cut-down vocabulary");
    if (model.table.ids_per_token() != 1) refuse("a PLE table with n-gram keys");
    if (options.max_tokens == 0 || options.max_tokens > most_tokens_at_once) {
      fail(ErrorCode::argument, "GradientOptions: max_tokens is ", options.max_tokens, ", expected 1 to ",
           most_tokens_at_once);
    }
    return options;
  }

  void check(const Executor& executor, const TrainingSequence& sequence) const {
    sequence.check(options_.max_tokens);
    for (const Token token : sequence.tokens) model_.check_token(token, "training");
    if (ple::tasks(executor) > tasks()) {
      fail(ErrorCode::argument, "training: the executor makes ", ple::tasks(executor), " tasks, expected at most ",
           tasks());
    }
  }

  /// Where texts begin, and the angles of their positions.
  void start(const Context&, const TrainingSequence& sequence) {
    const std::size_t rows = sequence.tokens.size();
    text_begins_.assign(rows, 0);
    for (const std::size_t begin : sequence.begins)
      std::fill(text_begins_.begin() + static_cast<std::ptrdiff_t>(begin), text_begins_.end(), begin);
    for (std::size_t type = 0; type < 2; ++type) {
      for (std::size_t t = 0; t < rows; ++t) ropes_[type].angles(t - text_begins_[t], angles_[type].slice(t, 1));
    }
  }

  TrainedLinear<T, B> projection() {
    return {model_.per_layer_projection.context_projection, trained_.weight(Parameter::ple_context_projection),
            trained_.adapter(Parameter::ple_context_projection), block_workspace_.linear};
  }
  TrainedNorm<B> projection_norm() {
    return {model_.per_layer_projection.context_norm, trained_.weight(Parameter::ple_context_norm)};
  }
  TrainedNorm<B> final_norm() { return {model_.final_norm, trained_.weight(Parameter::final_norm)}; }

  /// e = (norm(Wproj h0 / sqrt(d)) + sqrt(p) E[token]) / sqrt(2), for all layers at once
  void per_layer_inputs(const Context& context, std::span<const Token> tokens, Rows h0) {
    if (!model_.has_ple()) return;
    const Rows projected = projected_.slice(0, h0.rows), normed = context_.slice(0, h0.rows), e = e_.slice(0, h0.rows);
    projection().forward(context, h0, projected);
    for (std::size_t t = 0; t < h0.rows; ++t)
      B::scale(1.0f / std::sqrt(static_cast<float>(h0.cols)), projected.cols, projected.row(t));
    projection_norm().forward(context, projected, normed);
    model_.table.select(tokens, tokens.size(), model_.config.pad_token(), selection_);
    model_.table.gather_stored(context, selection_, 0, 0, model_.blocks.size(), e);
    if (trained_.trains_rows) {
      for (std::size_t t = 0; t < e.rows; ++t) {
        const auto row = trained_.rows.find(selection_.ids[t]);
        if (row != trained_.rows.end()) std::copy_n(row->second.values.begin(), e.cols, e.row(t));
      }
    }
    for (std::size_t t = 0; t < e.rows; ++t) B::scale(model_.table.scale(), e.cols, e.row(t));
    PerLayerProjection<T, B>::combine(context, normed, e);
  }

  Rows of_layer(Rows all, std::size_t l, std::size_t rows) const {
    if (!model_.has_ple() || !model_.table.has(l)) return {};
    return all.columns(l * model_.table.width(), model_.table.width()).slice(0, rows);
  }
  SharedKv shared(std::size_t l, std::size_t rows) const {
    const SharedKv& kv = shared_[*model_.config.kv_layer(l)];
    return {kv.k.slice(0, rows), kv.v.slice(0, rows), kv.dk.slice(0, rows), kv.dv.slice(0, rows)};
  }
  bool is_shared(std::size_t l) const { return shared_[*model_.config.kv_layer(l)].k.data != nullptr; }

  /// The last layers' activations are kept, since these are needed first.
  BlockActivations& activations(std::size_t l) {
    return activations_[(std::min)(model_.blocks.size() - 1 - l, activations_.size() - 1)];
  }
  /// Whether layer l's activations are still there when the way back comes to it.
  bool keeps(std::size_t l) const {
    const std::size_t from_last = model_.blocks.size() - 1 - l;
    return from_last == 0 || from_last + 1 < activations_.size() || activations_.size() == model_.blocks.size();
  }

  TrainedBlock<Block> block(std::size_t l, std::size_t rows) {
    return {model_.blocks[l], l, trained_, block_workspace_, angles_[type_of(l)].slice(0, rows), text_begins_};
  }
  void forward_block(const Context& context, std::size_t l, std::size_t rows) {
    const SharedKv kv = shared(l, rows);
    block(l, rows).forward(context, activations(l), inputs_[l].slice(0, rows), of_layer(e_, l, rows),
                           is_shared(l) ? &kv : nullptr, inputs_[l + 1].slice(0, rows));
  }

  /// The loss of the targets. With a factor, dh_ becomes the gradient of the last layer's output.
  double head(const Context& context, std::size_t rows, float factor) {
    const std::size_t count = targets_.size(), vocab = model_.config.vocab_size;
    const Rows h = inputs_.back(), kept = kept_.slice(0, count), normed = normed_.slice(0, count),
               dnormed = dnormed_.slice(0, count);
    for (std::size_t i = 0; i < count; ++i) std::copy_n(h.row(targets_[i].row), kept.cols, kept.row(i));
    final_norm().forward(context, kept, normed);
    const float cap = model_.config.final_logit_softcapping;
    losses_.resize(count);
    for (std::size_t begin = 0; begin < count; begin += loss_rows) {
      const std::size_t n = (std::min)(loss_rows, count - begin);
      const Rows y = logits_.slice(0, n), dx = dnormed.slice(begin, n);
      detail::multiply_f32<B>(context, model_.head.weight, block_workspace_.linear, normed.slice(begin, n), y);
      for_each_row(context, n, vocab, [&](std::size_t i) {
        const auto target = static_cast<std::size_t>(targets_[begin + i].token);
        if (cap > 0) B::softcap(cap, vocab, y.row(i));
        const float lse = B::log_sum_exp(vocab, const_cast<const float*>(y.row(i))), logit = y.row(i)[target];
        losses_[begin + i] = static_cast<double>(lse) - static_cast<double>(logit);
        if (factor == 0) return;
        B::cross_entropy_backward(cap, lse, factor, vocab, y.row(i));
        y.row(i)[target] -= cap > 0 ? factor * (1 - logit / cap * (logit / cap)) : factor;
        std::fill_n(dx.row(i), dx.cols, 0.0f);
      });
      if (factor > 0) detail::add_transposed_product<B>(context, model_.head.weight, block_workspace_.linear, y, dx);
    }
    double sum = 0;
    for (const double loss : losses_) sum += loss;
    if (factor == 0) return sum;
    final_norm().backward(context, kept, dnormed, dnormed);
    const Rows dh = dh_.slice(0, rows);
    for (std::size_t t = 0; t < rows; ++t) std::fill_n(dh.row(t), dh.cols, 0.0f);
    for (std::size_t i = 0; i < count; ++i) std::copy_n(dnormed.row(i), dh.cols, dh.row(targets_[i].row));
    return sum;
  }

  void backward(const Context& context, std::span<const Token> tokens) {
    const std::size_t rows = tokens.size(), layers = model_.blocks.size();
    const Rows dh = dh_.slice(0, rows), de = de_.slice(0, rows);
    const bool trains_inputs =
        model_.has_ple() && (trained_.trains_rows || projection().trains() || projection_norm().trains());
    std::size_t lowest = trains_inputs ? 0 : layers;  // the lowest layer with something that is trained
    for (const auto& entry : trained_.adapters) note_layer(entry.first, lowest);
    for (const auto& entry : trained_.weights) note_layer(entry.first, lowest);
    for (const SharedKv& kv : shared_) {
      for (const Rows* sum : {&kv.dk, &kv.dv}) {
        for (std::size_t t = 0; sum->data != nullptr && t < rows; ++t) std::fill_n(sum->row(t), sum->cols, 0.0f);
      }
    }
    for (std::size_t t = 0; model_.has_ple() && t < rows; ++t) std::fill_n(de.row(t), de.cols, 0.0f);
    for (std::size_t l = layers; l-- > lowest;) {
      if (!keeps(l)) forward_block(context, l, rows);
      const SharedKv kv = shared(l, rows);
      const TrainedBlock<Block> one = block(l, rows);
      one.backward(context, activations(l), inputs_[l].slice(0, rows), of_layer(e_, l, rows),
                   is_shared(l) ? &kv : nullptr, l > lowest || one.trains_below_ple(), dh, of_layer(de_, l, rows));
    }
    if (trains_inputs) inputs_backward(context, de);
  }

  static void note_layer(const TrainedParameters::Key& key, std::size_t& lowest) {
    if (is_of_layer(key.parameter)) lowest = (std::min)(lowest, key.layer);
  }

  /// dE[token] += sqrt(p) de / sqrt(2); dz = norm'(de / sqrt(2)) and what is trained of z = Wproj h0 / sqrt(d)
  void inputs_backward(const Context& context, Rows de) {
    for (std::size_t t = 0; t < de.rows; ++t) B::scale(1.0f / std::sqrt(2.0f), de.cols, de.row(t));
    if (trained_.trains_rows) {  // in the order of tokens
      std::vector<float> scaled(de.cols);
      for (std::size_t t = 0; t < de.rows; ++t) {
        std::copy_n(de.row(t), de.cols, scaled.begin());
        B::scale(model_.table.scale(), de.cols, scaled.data());
        B::add(scaled.data(), de.cols, trained_row(selection_.ids[t]).gradient.data());
      }
    }
    if (!projection().trains() && !projection_norm().trains()) return;
    projection_norm().backward(context, projected_.slice(0, de.rows), de, de);
    if (!projection().trains()) return;
    const Rows h0 = inputs_[0].slice(0, de.rows);
    for (std::size_t t = 0; t < de.rows; ++t)
      B::scale(1.0f / std::sqrt(static_cast<float>(h0.cols)), de.cols, de.row(t));
    projection().backward(context, h0, de, {});
  }

  /// A row with a gradient, which begins with 0 in each step; with the table's values if no text needed it before.
  TrainedValues& trained_row(RowId id) {
    const auto [row, is_new] = trained_.rows.try_emplace(id);
    TrainedValues& values = row->second;
    if (is_new) {
      values = TrainedValues(model_.table.cols());
      one_.ids.assign(1, id);
      const Rows out{values.values.data(), 1, model_.table.cols(), model_.table.cols()};
      model_.table.gather_stored(Context(one_thread_), one_, 0, 0, model_.blocks.size(), out);
    }
    if (values.gradient.empty()) {
      values.gradient.resize(values.values.size());
      std::fill(values.gradient.begin(), values.gradient.end(), 0.0f);
    }
    return values;
  }

  const Model& model_;
  TrainedParameters& trained_;
  GradientOptions options_;
  BlockGradientWorkspace block_workspace_;
  std::vector<BlockActivations> activations_;
  std::vector<Rows> inputs_;      // of each layer; last, the last layer's output
  std::vector<SharedKv> shared_;  // by the layer that owns K and V; empty where no other uses them
  Rope ropes_[2];
  Angles angles_[2];
  Rows projected_, context_, e_, de_, dh_, kept_, normed_, dnormed_, logits_;
  AlignedVector<float> memory_;
  std::vector<std::size_t> text_begins_;
  RowSelection selection_, one_;
  InlineExecutor one_thread_;
  std::vector<Target> targets_;
  std::vector<double> losses_;
};

}  // namespace ple::inline PLE_ABI
