// SPDX-License-Identifier: Apache-2.0
// Gemma 4: a configuration and a block, nothing else.
#pragma once

#include <cstddef>
#include <vector>

#include "ple/core/config.h"
#include "ple/family/gemma4/config.h"
#include "ple/model/block_parts.h"
#include "ple/model/decoder.h"
#include "ple/nn/attention.h"
#include "ple/nn/experts.h"
#include "ple/nn/mlp.h"
#include "ple/nn/per_layer.h"
#include "ple/nn/router.h"
#include "ple/simd/default_backend.h"

namespace ple::inline PLE_ABI {

/// What a block computes one chunk in. Only a model with experts takes memory for them.
class Gemma4Workspace : public BlockWorkspace {
 public:
  Gemma4Workspace(const Gemma4Config& config, const SessionOptions& options) : BlockWorkspace(config, options) {
    const std::size_t n = config.num_experts, T = options.chunk, d = config.hidden_size,
                      width = config.moe_intermediate_size;
    if (n == 0) return;
    const RowsRequest all[] = {{&routed, T, d},        {&experts.in, T, d},           {&experts.out, T, d},
                               {&router.normed, T, d}, {&experts.mlp.gate, T, width}, {&experts.mlp.up, T, width},
                               {&router.scores, T, n}};
    memory_ = allocate_rows(all);
    router.choices = choices_ = std::vector<Choice>(T * config.top_k_experts);
    router.routed = routed_ = std::vector<RoutedToken>(T * config.top_k_experts);
    router.begin_of = begin_of_ = std::vector<std::size_t>(n + 1);
  }

  Rows routed;  ///< [T, d]
  RouterWorkspace router;
  ExpertsWorkspace experts;

 private:
  AlignedVector<float> memory_;
  std::vector<Choice> choices_;
  std::vector<RoutedToken> routed_;
  std::vector<std::size_t> begin_of_;
};

template <class T = Any, Backend B = DefaultBackend>
struct Gemma4Block {
  using Dtype = T;
  using Simd = B;
  using Config = Gemma4Config;
  using Workspace = Gemma4Workspace;
  using Streams = OneStream;
  static constexpr bool takes_adapters = true;

  AttentionType type;
  RmsNorm<B> input_norm, post_attention_norm, pre_feed_forward_norm, post_feed_forward_norm;
  Attention<T, B> attention;
  Mlp<T, B> mlp;
  PerLayer<T, B> per_layer;
  std::vector<float> layer_scalar{1.0f};
  bool has_ple = false, has_experts = false;
  RmsNorm<B> post_dense_norm, pre_experts_norm, post_experts_norm;
  Router<T, B> router;
  Experts<T, B> experts;

  Gemma4Block(const Gemma4Config& config, std::size_t l);

  /// h: [T, d], the chunk's rows from `row` on, becomes the layer's output.
  void forward(const Context& context, const Gemma4Workspace& w, std::size_t row, Rows h,
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
    if (has_experts) add_experts(context, w, h, x, y);
    post_feed_forward_norm(context, y, y);
    add<B>(context, y, h);

    // h = h + post_ple_norm(Wout (gelu(Wgate h) * e))
    if (const Rows e = per_layer_input(); e.cols > 0) {
      per_layer(context, h, e, w.ple_gate.slice(0, h.rows), y);
      add<B>(context, y, h);
    }

    for (std::size_t t = 0; t < h.rows; ++t) B::scale(layer_scalar[0], h.cols, h.row(t));
  }

  template <class F>
  void parameters(F&& f) {
    f(Parameter::input_norm, input_norm.weight);
    attention_and_mlp_parameters(*this, f);
    if (has_experts) {
      f(Parameter::post_dense_norm, post_dense_norm.weight);
      f(Parameter::router, router.projection.weight);
      f(Parameter::router_scale, router.norm.weight);
      f(Parameter::expert_scale, router.expert_scale);
      f(Parameter::pre_experts_norm, pre_experts_norm.weight);
      if (experts.fused) {
        f(Parameter::expert_gate_up, experts.gate_up.weight);
      } else {
        f(Parameter::expert_gate, experts.gate.weight);
        f(Parameter::expert_up, experts.up.weight);
      }
      f(Parameter::expert_down, experts.down.weight);
      f(Parameter::post_experts_norm, post_experts_norm.weight);
    }
    if (has_ple) {
      f(Parameter::ple_gate, per_layer.gate.weight);
      f(Parameter::ple_output, per_layer.output.weight);
      f(Parameter::post_ple_norm, per_layer.norm.weight);
    }
    f(Parameter::layer_scalar, layer_scalar);
  }

 private:
  /// y = post_dense_norm(y) + post_experts_norm(experts(pre_experts_norm(h))), h routed. y is the mlp's; x, workspace.
  void add_experts(const Context& context, const Gemma4Workspace& w, Rows h, Rows x, Rows y) const {
    const Rows z = w.routed.slice(0, h.rows);
    post_dense_norm(context, y, y);
    router(context, w.router, h);
    pre_experts_norm(context, h, x);
    experts(context, w.experts, w.router, x, z);
    post_experts_norm(context, z, z);
    add<B>(context, z, y);
  }
};

/// Gemma 4 of any size: T is the weights' stored type (Any: whatever the file has), B the backend.
template <class T = Any, Backend B = DefaultBackend>
using Gemma4 = Decoder<Gemma4Block<T, B>>;

template <class T, Backend B>
Gemma4Block<T, B>::Gemma4Block(const Gemma4Config& config, std::size_t l) {
  const LayerConfig& layer = config.layer(l);
  const std::size_t d = config.hidden_size;
  const float epsilon = config.rms_norm_eps;
  type = layer.attention;
  input_norm = post_attention_norm = pre_feed_forward_norm = post_feed_forward_norm = RmsNorm<B>(d, epsilon);
  attention = make_attention<T, B>(config, l, config.attention_k_eq_v && type == AttentionType::full);
  mlp = Mlp<T, B>(d, layer.intermediate_size);
  has_ple = config.hidden_size_per_layer_input > 0;
  has_experts = config.num_experts > 0;
  if (has_experts) {
    post_dense_norm = pre_experts_norm = post_experts_norm = RmsNorm<B>(d, epsilon);
    router = Router<T, B>(d, config.num_experts, config.top_k_experts, epsilon);
    experts = Experts<T, B>(d, config.num_experts, config.moe_intermediate_size, config.fused_expert_gate_up);
  }
  if (has_ple) per_layer = PerLayer<T, B>(d, config.hidden_size_per_layer_input, epsilon);
}

}  // namespace ple::inline PLE_ABI
