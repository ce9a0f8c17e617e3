// SPDX-License-Identifier: Apache-2.0
// Gemma 3: a configuration and a block, nothing else. Source: Gemma Team 2025; transformers' Gemma3DecoderLayer. The
// PLE step, which no published Gemma 3 has, is Gemma 4's.
#pragma once

#include <cmath>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/family/gemma3/config.h"
#include "ple/model/block_parts.h"
#include "ple/model/decoder.h"
#include "ple/nn/attention.h"
#include "ple/nn/mlp.h"
#include "ple/nn/per_layer.h"
#include "ple/simd/default_backend.h"

namespace ple::inline PLE_ABI {

template <class T = Any, Backend B = DefaultBackend>
struct Gemma3Block {
  using Dtype = T;
  using Simd = B;
  using Config = Gemma3Config;
  using Workspace = BlockWorkspace;
  using Streams = OneStream;
  static constexpr bool takes_adapters = true;

  AttentionType type;
  RmsNorm<B> input_norm, post_attention_norm, pre_feed_forward_norm, post_feed_forward_norm;
  Attention<T, B> attention;
  Mlp<T, B> mlp;
  PerLayer<T, B> per_layer;  ///< of a model with PLE
  bool has_ple = false;

  Gemma3Block(const Gemma3Config& config, std::size_t l);

  /// h: [T, d], the chunk's rows from `row` on, becomes the layer's output.
  void forward(const Context& context, const BlockWorkspace& w, std::size_t row, Rows h,
               FunctionRef<Rows()> per_layer_input, const Positions& positions) const {
    const Rows x = w.x.slice(0, h.rows), y = w.y.slice(0, h.rows);

    // h = h + post_attention_norm(attention(input_norm(h)))
    input_norm(context, h, x);
    attention(context, positions, w.angles(type).slice(row, h.rows), w.attention, x, y);
    post_attention_norm(context, y, y);
    add<B>(context, y, h);

    // h = h + post_feed_forward_norm(mlp(pre_feed_forward_norm(h)))
    pre_feed_forward_norm(context, h, x);
    mlp(context, w.mlp, x, y);
    post_feed_forward_norm(context, y, y);
    add<B>(context, y, h);

    // h = h + post_ple_norm(Wout (gelu(Wgate h) * e))
    if (const Rows e = per_layer_input(); e.cols > 0) {
      per_layer(context, h, e, w.ple_gate.slice(0, h.rows), y);
      add<B>(context, y, h);
    }
  }

  template <class F>
  void parameters(F&& f) {
    f(Parameter::input_norm, input_norm.weight);
    attention_and_mlp_parameters(*this, f);
    if (!has_ple) return;
    f(Parameter::ple_gate, per_layer.gate.weight);
    f(Parameter::ple_output, per_layer.output.weight);
    f(Parameter::post_ple_norm, per_layer.norm.weight);
  }
};

/// Gemma 3's text model of any size: T is the weights' stored type (Any: whatever the file has), B the backend.
template <class T = Any, Backend B = DefaultBackend>
using Gemma3 = Decoder<Gemma3Block<T, B>>;

template <class T, Backend B>
Gemma3Block<T, B>::Gemma3Block(const Gemma3Config& config, std::size_t l) {
  const LayerConfig& layer = config.layer(l);
  const std::size_t d = config.hidden_size;
  type = layer.attention;
  input_norm = post_attention_norm = pre_feed_forward_norm = post_feed_forward_norm =
      RmsNorm<B>(d, config.rms_norm_eps);
  attention = make_attention<T, B>(config, l);
  attention.has_value_norm = false;
  attention.score_scale = static_cast<float>(1 / std::sqrt(config.query_pre_attn_scalar));
  mlp = Mlp<T, B>(d, layer.intermediate_size);
  has_ple = config.hidden_size_per_layer_input > 0;
  if (has_ple) per_layer = PerLayer<T, B>(d, config.hidden_size_per_layer_input, config.rms_norm_eps);
}

}  // namespace ple::inline PLE_ABI
