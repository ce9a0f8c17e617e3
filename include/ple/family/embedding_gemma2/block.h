// SPDX-License-Identifier: Apache-2.0
// EmbeddingGemma 2: Gemma 4's block over whole texts, without a cache. Source: transformers'
// EmbeddingGemma2EncoderLayer.
#pragma once

#include <cstddef>
#include <vector>

#include "ple/core/config.h"
#include "ple/family/embedding_gemma2/config.h"
#include "ple/model/block_parts.h"
#include "ple/model/encoder.h"
#include "ple/nn/attention.h"
#include "ple/nn/mlp.h"
#include "ple/nn/per_layer.h"
#include "ple/simd/default_backend.h"

namespace ple::inline PLE_ABI {

template <class T = Any, Backend B = DefaultBackend>
struct EmbeddingGemma2Block {
  using Dtype = T;
  using Simd = B;
  using Config = EmbeddingGemma2Config;

  AttentionType type;
  RmsNorm<B> input_norm, post_attention_norm, pre_feed_forward_norm, post_feed_forward_norm;
  Attention<T, B> attention;
  Mlp<T, B> mlp;
  PerLayer<T, B> per_layer;
  std::vector<float> layer_scalar{1.0f};

  EmbeddingGemma2Block(const EmbeddingGemma2Config& config, std::size_t l);

  /// h: [T, d], whole texts, becomes the layer's output. e: [T, p], the layer's per-layer input.
  void forward(const Context& context, const BlockWorkspace& w, Rows h, Rows e, const Positions& positions) const {
    const Rows x = w.x.slice(0, h.rows), y = w.y.slice(0, h.rows);

    // h = h + post_attention_norm(attention(input_norm(h)))
    input_norm(context, h, x);
    attention(context, positions, w.angles(type), w.attention, x, y);
    post_attention_norm(context, y, y);
    add<B>(context, y, h);

    // h = h + post_feed_forward_norm(mlp(pre_feed_forward_norm(h)))
    pre_feed_forward_norm(context, h, x);
    mlp(context, w.mlp, x, y);
    post_feed_forward_norm(context, y, y);
    add<B>(context, y, h);

    // h = h + post_ple_norm(Wout (gelu(Wgate h) * e))
    per_layer(context, h, e, w.ple_gate.slice(0, h.rows), y);
    add<B>(context, y, h);

    for (std::size_t t = 0; t < h.rows; ++t) B::scale(layer_scalar[0], h.cols, h.row(t));
  }

  template <class F>
  void parameters(F&& f) {
    f(Parameter::input_norm, input_norm.weight);
    attention_and_mlp_parameters(*this, f);
    f(Parameter::ple_gate, per_layer.gate.weight);
    f(Parameter::ple_output, per_layer.output.weight);
    f(Parameter::post_ple_norm, per_layer.norm.weight);
    f(Parameter::layer_scalar, layer_scalar);
  }
};

/// EmbeddingGemma 2's text model: T is the weights' stored type (Any: whatever the file has), B the backend.
template <class T = Any, Backend B = DefaultBackend>
using EmbeddingGemma2 = Encoder<EmbeddingGemma2Block<T, B>>;

template <class T, Backend B>
EmbeddingGemma2Block<T, B>::EmbeddingGemma2Block(const EmbeddingGemma2Config& config, std::size_t l) {
  const LayerConfig& layer = config.layer(l);
  const std::size_t d = config.hidden_size;
  const float epsilon = config.rms_norm_eps;
  type = layer.attention;
  input_norm = post_attention_norm = pre_feed_forward_norm = post_feed_forward_norm = RmsNorm<B>(d, epsilon);
  attention = make_attention<T, B>(config, l);
  attention.ahead = positions_seen(config, l);
  attention.window = attention.ahead + 1;  // as many before it, and itself
  mlp = Mlp<T, B>(d, layer.intermediate_size);
  per_layer = PerLayer<T, B>(d, config.hidden_size_per_layer_input, epsilon);
}

}  // namespace ple::inline PLE_ABI
