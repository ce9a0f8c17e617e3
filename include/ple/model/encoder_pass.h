// SPDX-License-Identifier: Apache-2.0
// An encoder's forward pass, from tokens of several texts to their vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "ple/core/arena.h"
#include "ple/core/config.h"
#include "ple/core/context.h"
#include "ple/core/executor.h"
#include "ple/core/memory.h"
#include "ple/core/token.h"
#include "ple/model/block_parts.h"
#include "ple/model/config.h"
#include "ple/model/language_model.h"
#include "ple/nn/kv_cache.h"
#include "ple/nn/positions.h"
#include "ple/simd/decode.h"
#include "ple/tensor/matrix.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// A pass over some texts, which the Encoder `Model` has checked: their tokens are rows, one text after another.
template <class Model, class Observer>
class EncoderPass {
  using T = typename Model::T;
  using B = typename Model::B;

 public:
  EncoderPass(const Model& model, Executor& threads, std::span<const std::span<const Token>> texts,
              const Observer& observe)
      : model_(model),
        texts_(texts),
        observe_(observe),
        options_(sizes(threads, texts)),
        workspace_(model.config, options_),
        product_workspace_(model.workspace_bytes(options_.chunk, options_.tasks())),
        context_(threads, product_workspace_) {
    const auto& config = model.config;
    const RowsRequest all[] = {{&h_, options_.chunk, config.hidden_size},
                               {&h0_, options_.chunk, config.hidden_size},
                               {&per_layer_input_, options_.chunk, config.hidden_size_per_layer_input},
                               {&means_, texts.size(), config.hidden_size},
                               {&vectors_, texts.size(), config.embedding_dim}};
    memory_ = allocate_rows(all);
    make_caches();
  }

  /// vectors: [texts, size]
  void operator()(Rows vectors) {
    workspace_.start(positions_);
    embed_tokens();
    observe_("embedding", 0, h0_);
    for (std::size_t t = 0; t < h_.rows; ++t) std::copy_n(h0_.row(t), h_.cols, h_.row(t));
    for (std::size_t l = 0; l < model_.blocks.size(); ++l) {
      model_.per_layer_projection.project(context_, l * per_layer_input_.cols, h0_, per_layer_input_);
      observe_("per_layer_input", l, per_layer_input_);
      const auto& caches = caches_of_rows_[static_cast<std::size_t>(model_.blocks[l].type)];
      model_.blocks[l].forward(context_, workspace_, h_, per_layer_input_, Positions(positions_, caches));
      observe_("layer", l, h_);
    }
    model_.final_norm(context_, h_, h_);
    observe_("norm", 0, h_);
    take_means();
    model_.embedding_projection(context_, means_, vectors_);
    for (std::size_t i = 0; i < texts_.size(); ++i) make_unit(vectors_.row(i), vectors.row(i), vectors.cols);
  }

 private:
  static SessionOptions sizes(const Executor& threads, std::span<const std::span<const Token>> texts) {
    std::size_t longest = 0, tokens = 0;
    for (const std::span<const Token> text : texts) {
      longest = (std::max)(longest, text.size());
      tokens += text.size();
    }
    return {.context = longest, .chunk = tokens, .threads = threads.concurrency()};
  }

  /// One cache for each text and type of layer: a layer no longer needs its keys when the next one writes its own.
  void make_caches() {
    Arena arena(std::size_t{1} << 20);
    for (const AttentionType type : {AttentionType::sliding, AttentionType::full}) {
      const auto i = static_cast<std::size_t>(type);
      std::size_t kv_heads = 0, head_dim = 0;
      for (std::size_t l = 0; l < model_.config.num_layers(); ++l) {
        const LayerConfig layer = model_.config.layer(l);
        if (layer.attention != type) continue;
        kv_heads = (std::max)(kv_heads, layer.num_key_value_heads);
        head_dim = layer.head_dim;  // the same in all layers of a type
      }
      if (kv_heads == 0) continue;
      caches_[i].reserve(texts_.size());  // pointers to them are kept
      for (const std::span<const Token> text : texts_) {
        KvCache& cache = caches_[i].emplace_back(kv_heads, head_dim, text.size(), Dtype::f32, arena);
        caches_of_rows_[i].insert(caches_of_rows_[i].end(), text.size(), &cache);
      }
    }
    for (const std::span<const Token> text : texts_) {
      for (std::size_t t = 0; t < text.size(); ++t) positions_.push_back(t);
    }
  }

  /// h0 = embedding[token] * sqrt(d), with sqrt(d) rounded to the embedding's dtype as in the reference.
  void embed_tokens() {
    const Matrix<T>& embedding = model_.embedding;
    const float scale = rounded_to(embedding.dtype(), std::sqrt(static_cast<float>(h0_.cols)));
    const std::size_t row_bytes = bytes_of(embedding.dtype(), h0_.cols);
    std::size_t row = 0;
    for (const std::span<const Token> text : texts_) {
      for (const Token token : text) {
        const auto id = static_cast<std::size_t>(model_.is_soft(token) ? model_.config.pad_token_id : token);
        decode<B, T>(embedding.dtype(), embedding.data() + id * row_bytes, h0_.cols, h0_.row(row));
        B::scale(scale, h0_.cols, h0_.row(row++));
      }
    }
  }

  /// Projecting means is projecting every token and taking the mean of that, with fewer roundings.
  void take_means() {
    std::vector<double> sums(h_.cols);
    std::size_t row = 0;
    for (std::size_t i = 0; i < texts_.size(); ++i) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (std::size_t t = 0; t < texts_[i].size(); ++t, ++row) {
        for (std::size_t c = 0; c < h_.cols; ++c) sums[c] += static_cast<double>(h_.row(row)[c]);
      }
      for (std::size_t c = 0; c < h_.cols; ++c)
        means_.row(i)[c] = static_cast<float>(sums[c] / static_cast<double>(texts_[i].size()));
    }
  }

  /// y = x / |x| for the first n numbers
  static void make_unit(const float* x, float* y, std::size_t n) {
    double squares = 0;
    for (std::size_t i = 0; i < n; ++i) squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    const double length = (std::max)(std::sqrt(squares), 1e-12);  // as torch's normalize
    for (std::size_t i = 0; i < n; ++i) y[i] = static_cast<float>(static_cast<double>(x[i]) / length);
  }

  const Model& model_;
  std::span<const std::span<const Token>> texts_;
  const Observer& observe_;
  SessionOptions options_;
  BlockWorkspace workspace_;
  AlignedVector<std::byte> product_workspace_;
  Context context_;
  Rows h_, h0_, per_layer_input_, means_, vectors_;
  AlignedVector<float> memory_;
  std::vector<std::size_t> positions_;  // by row, within its text
  std::vector<KvCache> caches_[2];      // by attention type and text
  std::vector<KvCache*> caches_of_rows_[2];
};

}  // namespace detail

}  // namespace ple::inline PLE_ABI
