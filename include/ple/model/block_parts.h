// SPDX-License-Identifier: Apache-2.0
// What the blocks of all families share: the workspace of a pass, and attention made from a configuration.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/model/config.h"
#include "ple/model/kv_caches.h"
#include "ple/model/language_model.h"
#include "ple/model/parameter.h"
#include "ple/nn/attention.h"
#include "ple/nn/mlp.h"
#include "ple/nn/rope.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// What a block computes one chunk in, and the angles of the chunk's positions.
class BlockWorkspace {
 public:
  template <class Config>
  BlockWorkspace(const Config& config, const SessionOptions& options);

  /// The chunk is `count` tokens at positions first, first + 1, ...
  void start(std::size_t first, std::size_t count) {
    for (const AttentionType type : {AttentionType::sliding, AttentionType::full}) {
      rope(type).angles(first, angles(type).slice(0, count));
    }
  }
  /// The chunk is one token of each of several texts, at these positions.
  void start(std::span<const std::size_t> positions) {
    for (const AttentionType type : {AttentionType::sliding, AttentionType::full}) {
      for (std::size_t t = 0; t < positions.size(); ++t) rope(type).angles(positions[t], angles(type).slice(t, 1));
    }
  }

  const Angles& angles(AttentionType type) const { return angles_[static_cast<std::size_t>(type)]; }

  Rows x, y;      ///< [T, d]
  Rows ple_gate;  ///< [T, p]
  AttentionWorkspace attention;
  MlpWorkspace mlp;

 private:
  const Rope& rope(AttentionType type) const { return ropes_[static_cast<std::size_t>(type)]; }

  Rope ropes_[2];
  Angles angles_[2];
  AlignedVector<float> memory_;
};

/// Layer l's attention, without values yet. value_is_key: V is the key projection's output.
template <class T, Backend B, class Config>
Attention<T, B> make_attention(const Config& config, std::size_t l, bool value_is_key = false) {
  const LayerConfig layer = config.layer(l);
  const std::size_t d = config.hidden_size, q_width = config.num_attention_heads * layer.head_dim,
                    kv_width = layer.num_key_value_heads * layer.head_dim;
  Attention<T, B> attention;
  attention.head_dim = layer.head_dim;
  attention.heads = config.num_attention_heads;
  attention.kv_heads = layer.num_key_value_heads;
  attention.window = positions_seen(config, l);
  attention.owns_kv = config.kv_layer(l) == l;
  attention.value_is_key = value_is_key;
  attention.query = Linear<T, B>(q_width, d);
  attention.key = attention.value = Linear<T, B>(kv_width, d);
  attention.output = Linear<T, B>(d, q_width);
  attention.query_norm = attention.key_norm = RmsNorm<B>(layer.head_dim, config.rms_norm_eps);
  return attention;
}

/// Calls f(Parameter, values) for a block's attention and feed-forward and their norms, except input_norm.
template <class Block, class F>
void attention_and_mlp_parameters(Block& block, F&& f) {
  auto& attention = block.attention;
  f(Parameter::query, attention.query.weight);
  f(Parameter::query_norm, attention.query_norm.weight);
  if (attention.owns_kv) {
    f(Parameter::key, attention.key.weight);
    if (!attention.value_is_key) f(Parameter::value, attention.value.weight);
    f(Parameter::key_norm, attention.key_norm.weight);
  }
  f(Parameter::attention_output, attention.output.weight);
  f(Parameter::post_attention_norm, block.post_attention_norm.weight);
  f(Parameter::pre_feed_forward_norm, block.pre_feed_forward_norm.weight);
  f(Parameter::gate, block.mlp.gate.weight);
  f(Parameter::up, block.mlp.up.weight);
  f(Parameter::down, block.mlp.down.weight);
  f(Parameter::post_feed_forward_norm, block.post_feed_forward_norm.weight);
}

template <class Config>
BlockWorkspace::BlockWorkspace(const Config& config, const SessionOptions& options) {
  const std::size_t T = options.chunk, d = config.hidden_size, p = config.hidden_size_per_layer_input;
  std::size_t q_width = 0, kv_width = 0, head_dim = 0, group = 0, intermediate = 0, half[2] = {0, 0};
  for (std::size_t l = 0; l < config.num_layers(); ++l) {
    const LayerConfig layer = config.layer(l);
    q_width = (std::max)(q_width, config.num_attention_heads * layer.head_dim);
    kv_width = (std::max)(kv_width, layer.num_key_value_heads * layer.head_dim);
    head_dim = (std::max)(head_dim, layer.head_dim);
    group = (std::max)(group, config.num_attention_heads / layer.num_key_value_heads);
    intermediate = (std::max)(intermediate, layer.intermediate_size);
    half[static_cast<std::size_t>(layer.attention)] = layer.head_dim / 2;
  }
  for (const AttentionType type : {AttentionType::sliding, AttentionType::full}) {
    const auto i = static_cast<std::size_t>(type);
    const RopeConfig& r = config.rope(type);
    ropes_[i] = Rope(r.theta, r.fraction, r.factor, 2 * half[i]);
  }
  CachedAttentionWorkspace& cached = attention.cached;
  const std::size_t results =
      CachedAttentionWorkspace::partial_results(config.num_attention_heads, group, options.context, options.tasks());
  const RowsRequest all[] = {{&x, T, d},
                             {&y, T, d},
                             {&ple_gate, T, p},
                             {&attention.queries, T, q_width},
                             {&attention.keys, T, kv_width},
                             {&attention.values, T, kv_width},
                             {&attention.attended, T, q_width},
                             {&cached.scores, options.tasks() * attention_tokens * group, attention_piece},
                             {&cached.cached, options.tasks() * attention_rows, head_dim},
                             {&cached.pieces, results, head_dim},
                             {&cached.sums, results, 2},
                             {&mlp.gate, T, intermediate},
                             {&mlp.up, T, intermediate},
                             {&angles_[0].cosine, T, half[0]},
                             {&angles_[0].sine, T, half[0]},
                             {&angles_[1].cosine, T, half[1]},
                             {&angles_[1].sine, T, half[1]}};
  memory_ = allocate_rows(all);
}

}  // namespace ple::inline PLE_ABI
