// SPDX-License-Identifier: Apache-2.0
// Gemma 4: a configuration and a block, nothing else.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/model/decoder.h"
#include "ple/model/gemma4_config.h"
#include "ple/model/kv_cache_size.h"
#include "ple/nn/attention.h"
#include "ple/nn/mlp.h"
#include "ple/nn/per_layer.h"
#include "ple/nn/rope.h"
#include "ple/simd/default_backend.h"

namespace ple::inline PLE_ABI {

/// Room for a block to compute one chunk in, and the angles of the chunk's positions.
class Gemma4Workspace {
 public:
  Gemma4Workspace(const Gemma4Config& config, const StateOptions& options);

  /// The chunk is the `count` tokens at positions first, first + 1, ...
  void start(std::size_t first, std::size_t count) {
    for (const AttentionType type : {AttentionType::sliding, AttentionType::full}) {
      rope(type).angles(first, angles(type).slice(0, count));
    }
  }
  /// The chunk is a token each of several texts, at these positions.
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

template <class T = Any, Backend B = DefaultBackend>
struct Gemma4Block {
  using Dtype = T;
  using Simd = B;
  using Config = Gemma4Config;
  using Workspace = Gemma4Workspace;
  using Streams = OneStream;

  AttentionType type;
  RmsNorm<B> input_norm, post_attention_norm, pre_feed_forward_norm, post_feed_forward_norm;
  Attention<T, B> attention;
  Mlp<T, B> mlp;
  PerLayer<T, B> per_layer;
  std::vector<float> layer_scalar{1.0f};
  bool has_ple = false;

  Gemma4Block(const Gemma4Config& config, std::size_t l);

  /// h: [T, d], the chunk's rows from row `row` on, becomes the layer's output.
  void forward(Executor& executor, const Gemma4Workspace& w, std::size_t row, Rows h, PerLayerRows per_layer_rows,
               const Places& places) const {
    const Rows x = w.x.slice(0, h.rows), y = w.y.slice(0, h.rows);

    // h = h + post_attention_norm(attention(input_norm(h)))
    input_norm(executor, h, x);
    attention(executor, places, w.angles(type).slice(row, h.rows), w.attention, x, y);
    post_attention_norm(executor, y, y);
    add<B>(executor, y, h);

    // h = h + post_feed_forward_norm(mlp(pre_feed_forward_norm(h)))
    pre_feed_forward_norm(executor, h, x);
    mlp(executor, w.mlp, x, y);
    post_feed_forward_norm(executor, y, y);
    add<B>(executor, y, h);

    // h = h + post_ple_norm(Wout (gelu(Wgate h) * e))
    if (const Rows e = per_layer_rows(); e.cols > 0) {
      per_layer(executor, h, e, w.ple_gate.slice(0, h.rows), y);
      add<B>(executor, y, h);
    }

    for (std::size_t t = 0; t < h.rows; ++t) B::scale(layer_scalar[0], h.cols, h.row(t));
  }

  template <class F>
  void parameters(F&& f) {
    f(Parameter::input_norm, input_norm.weight);
    f(Parameter::query, attention.query.weight);
    f(Parameter::query_norm, attention.query_norm.weight);
    if (attention.owns_kv) {
      f(Parameter::key, attention.key.weight);
      if (!attention.value_is_key) f(Parameter::value, attention.value.weight);
      f(Parameter::key_norm, attention.key_norm.weight);
    }
    f(Parameter::attention_output, attention.output.weight);
    f(Parameter::post_attention_norm, post_attention_norm.weight);
    f(Parameter::pre_feed_forward_norm, pre_feed_forward_norm.weight);
    f(Parameter::gate, mlp.gate.weight);
    f(Parameter::up, mlp.up.weight);
    f(Parameter::down, mlp.down.weight);
    f(Parameter::post_feed_forward_norm, post_feed_forward_norm.weight);
    if (has_ple) {
      f(Parameter::ple_gate, per_layer.gate.weight);
      f(Parameter::ple_output, per_layer.output.weight);
      f(Parameter::post_ple_norm, per_layer.norm.weight);
    }
    f(Parameter::layer_scalar, layer_scalar);
  }

  /// Room for layer l's K and V; none if it attends over another layer's.
  static KvCache make_cache(const Gemma4Config& config, std::size_t l, const StateOptions& options, Arena& arena) {
    if (config.kv_layer(l) != l) return {};
    const Gemma4LayerConfig& layer = config.layers[l];
    return {layer.num_key_value_heads, layer.head_dim, kv_cache_slots(layer.attention, config.sliding_window, options),
            options.kv_cache_dtype, arena};
  }

  /// What that takes.
  static std::uint64_t cache_bytes(const Gemma4Config& config, std::size_t l, const StateOptions& options) {
    return kv_cache_bytes(config, l, options);
  }

  /// The positions before a token whose K and V layer l still needs, at most.
  static std::size_t positions_seen(const Gemma4Config& config, std::size_t l) {
    return config.layers[l].attention == AttentionType::full ? config.max_position_embeddings : config.sliding_window;
  }
};

/// Gemma 4 of any size: T is the weights' stored type (Any: whatever the file has), B the backend.
template <class T = Any, Backend B = DefaultBackend>
using Gemma4 = Decoder<Gemma4Block<T, B>>;

template <class T, Backend B>
Gemma4Block<T, B>::Gemma4Block(const Gemma4Config& config, std::size_t l) {
  const Gemma4LayerConfig& layer = config.layers[l];
  const std::size_t d = config.hidden_size;
  const float epsilon = config.rms_norm_eps;
  type = layer.attention;
  input_norm = post_attention_norm = pre_feed_forward_norm = post_feed_forward_norm = RmsNorm<B>(d, epsilon);

  const std::size_t q_width = config.num_attention_heads * layer.head_dim,
                    kv_width = layer.num_key_value_heads * layer.head_dim;
  attention.head_dim = layer.head_dim;
  attention.heads = config.num_attention_heads;
  attention.kv_heads = layer.num_key_value_heads;
  attention.window = type == AttentionType::full ? config.max_position_embeddings : config.sliding_window;
  attention.owns_kv = config.kv_layer(l) == l;
  attention.value_is_key = config.attention_k_eq_v && type == AttentionType::full;
  attention.query = Linear<T, B>(q_width, d);
  attention.key = attention.value = Linear<T, B>(kv_width, d);
  attention.output = Linear<T, B>(d, q_width);
  attention.query_norm = attention.key_norm = RmsNorm<B>(layer.head_dim, epsilon);

  mlp = Mlp<T, B>(d, layer.intermediate_size);
  has_ple = config.hidden_size_per_layer_input > 0;
  if (has_ple) per_layer = PerLayer<T, B>(d, config.hidden_size_per_layer_input, epsilon);
}

inline Gemma4Workspace::Gemma4Workspace(const Gemma4Config& config, const StateOptions& options) {
  const std::size_t T = options.chunk, d = config.hidden_size, p = config.hidden_size_per_layer_input;
  std::size_t q_width = 0, kv_width = 0, head_dim = 0, group = 0, intermediate = 0, half[2] = {0, 0};
  for (const Gemma4LayerConfig& layer : config.layers) {
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
      CachedAttentionWorkspace::partial_results(config.num_attention_heads, group, options.context, options.parts);
  const RowsRequest all[] = {{&x, T, d},
                             {&y, T, d},
                             {&ple_gate, T, p},
                             {&attention.queries, T, q_width},
                             {&attention.keys, T, kv_width},
                             {&attention.values, T, kv_width},
                             {&attention.attended, T, q_width},
                             {&cached.scores, options.parts * attention_tokens * group, attention_piece},
                             {&cached.cached, options.parts * attention_rows, head_dim},
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
