// SPDX-License-Identifier: Apache-2.0
// Gemma 3n: several streams, of which a layer computes one; a low-rank residual beside attention; sparse feed-forwards.
// Attention and the PLE step are as in Gemma 4.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numbers>
#include <vector>

#include "ple/core/config.h"
#include "ple/family/gemma3n/config.h"
#include "ple/model/block_parts.h"
#include "ple/model/decoder.h"
#include "ple/nn/altup.h"
#include "ple/nn/laurel.h"
#include "ple/nn/per_layer.h"
#include "ple/nn/sparse_mlp.h"
#include "ple/simd/default_backend.h"

namespace ple::inline PLE_ABI {

/// What a block computes one chunk in.
class Gemma3nWorkspace : public BlockWorkspace {
 public:
  Gemma3nWorkspace(const Gemma3nConfig& config, const SessionOptions& options) : BlockWorkspace(config, options) {
    const std::size_t T = options.chunk, d = config.hidden_size, n = config.altup_num_inputs;
    const RowsRequest all[] = {{&predicted, T, n * d}, {&laurel, T, d},           {&laurel_low, T, config.laurel_rank},
                               {&altup.normed, T, d},  {&altup.modalities, T, n}, {&altup.coefficients, T, n * n}};
    memory_ = allocate_rows(all);
  }

  Rows predicted;   ///< [T, n * d]
  Rows laurel;      ///< [T, d]
  Rows laurel_low;  ///< [T, laurel_rank]
  AltUpWorkspace altup;

 private:
  AlignedVector<float> memory_;
};

/// From the embedding to the streams, and back.
template <class T, Backend B>
struct Gemma3nStreams : AltUpProjections<T, B> {
  Gemma3nStreams() = default;
  explicit Gemma3nStreams(const Gemma3nConfig& config)
      : AltUpProjections<T, B>(config.hidden_size, config.altup_num_inputs) {}

  void unembed(const Context& context, const Gemma3nWorkspace& w, Rows h) const {
    AltUpProjections<T, B>::unembed(context, h, w.predicted.slice(0, h.rows));
  }

  template <class F>
  void parameters(F&& f) {
    for (std::size_t j = 0; j < this->expansion.size(); ++j)
      f(Parameter::altup_projection, j, this->expansion[j].weight);
    for (std::size_t j = 0; j < this->collapse.size(); ++j)
      f(Parameter::altup_unembedding, j, this->collapse[j].weight);
  }
};

template <class T = Any, Backend B = DefaultBackend>
struct Gemma3nBlock {
  using Dtype = T;
  using Simd = B;
  using Config = Gemma3nConfig;
  using Workspace = Gemma3nWorkspace;
  using Streams = Gemma3nStreams<T, B>;

  AttentionType type;
  AltUp<T, B> altup;
  RmsNorm<B> input_norm, post_attention_norm, pre_feed_forward_norm, post_feed_forward_norm;
  Laurel<T, B> laurel;
  Attention<T, B> attention;
  SparseMlp<T, B> mlp;
  PerLayer<T, B> per_layer;
  std::vector<float> output_scale;
  bool has_output_scale = true;

  Gemma3nBlock(const Gemma3nConfig& config, std::size_t l);

  /// h: [T, n * d], the streams H[0], H[1], ... of the chunk's rows from row `row` on, becomes the layer's output. For
  /// the rest see Gemma4Block::forward. a is the active stream. P is [T, n * d]; P[a], u and y are [T, d].
  void forward(const Context& context, const Gemma3nWorkspace& w, std::size_t row, Rows h,
               FunctionRef<Rows()> per_layer_input, const Positions& positions) const {
    const Rows x = w.x.slice(0, h.rows), y = w.y.slice(0, h.rows), low = w.laurel_low.slice(0, h.rows);
    const Rows p = w.predicted.slice(0, h.rows), active = altup.stream(p, altup.active);
    const Rows u = w.laurel.slice(0, h.rows);

    // P[j] = H[j] + sum_i C[j, i] H[i]
    altup.predict(context, w.altup, h, p);

    // u = (P[a] + post_attention_norm(attention(x)) + laurel(x)) / sqrt(2) with x = input_norm(P[a])
    input_norm(context, active, x);
    laurel(context, x, low, u);
    attention(context, positions, w.angles(type).slice(row, h.rows), w.attention, x, y);
    post_attention_norm(context, y, y);
    add<B>(context, y, u);
    add<B>(context, active, u);
    for (std::size_t t = 0; t < u.rows; ++t) B::scale(1 / std::numbers::sqrt2_v<float>, u.cols, u.row(t));

    // y = u + post_feed_forward_norm(mlp(pre_feed_forward_norm(u)))
    pre_feed_forward_norm(context, u, x);
    mlp(context, w.mlp, x, y);
    post_feed_forward_norm(context, y, y);
    add<B>(context, u, y);

    // H[j] = P[j] + c[j] (y - P[a])
    altup.correct(context, w.altup, p, y, h);

    // H[j] = H[j] + post_ple_norm(Wout (gelu(Wgate f) * e)) for j > 0, with f = H[a] * output_scale
    if (const Rows e = per_layer_input(); e.cols > 0) {
      for (std::size_t t = 0; t < h.rows; ++t) {
        std::copy_n(altup.stream(h, altup.active).row(t), x.cols, x.row(t));
        if (has_output_scale) B::multiply(output_scale.data(), x.cols, x.row(t));
      }
      per_layer(context, x, e, w.ple_gate.slice(0, h.rows), y);
      for (std::size_t j = 1; j < altup.streams; ++j) add<B>(context, y, altup.stream(h, j));
    }
  }

  template <class F>
  void parameters(F&& f) {
    f(Parameter::altup_router, altup.router.weight);
    f(Parameter::altup_router_norm, altup.router_norm.weight);
    f(Parameter::altup_prediction, altup.prediction.weight);
    f(Parameter::altup_correction, altup.correction.weight);
    if (has_output_scale) f(Parameter::altup_output_scale, output_scale);
    f(Parameter::input_norm, input_norm.weight);
    f(Parameter::laurel_left, laurel.left.weight);
    f(Parameter::laurel_right, laurel.right.weight);
    f(Parameter::post_laurel_norm, laurel.norm.weight);
    attention_and_mlp_parameters(*this, f);
    f(Parameter::ple_gate, per_layer.gate.weight);
    f(Parameter::ple_output, per_layer.output.weight);
    f(Parameter::post_ple_norm, per_layer.norm.weight);
  }

  /// Repacks a parameter, which has values, into a layout of the block's own. Returns whether it did.
  bool repack(Parameter parameter, Executor& executor, Arena& arena) {
    if (parameter == Parameter::up) return mlp.repack_up(executor, arena);
    return parameter == Parameter::down && mlp.repack_down(executor, arena);
  }

  void finalize() { mlp.finalize(); }  ///< once all parameters have their values
  std::size_t workspace_bytes(std::size_t tokens) const { return mlp.workspace_bytes(tokens); }  ///< as in SparseMlp
};

/// Gemma 3n of any size: T is the weights' stored type (Any: whatever the file has), B the backend.
template <class T = Any, Backend B = DefaultBackend>
using Gemma3n = Decoder<Gemma3nBlock<T, B>>;

template <class T, Backend B>
Gemma3nBlock<T, B>::Gemma3nBlock(const Gemma3nConfig& config, std::size_t l) {
  const Gemma3nLayerConfig& layer = config.layers[l];
  const std::size_t d = config.hidden_size;
  const float epsilon = config.rms_norm_eps;
  type = layer.attention;
  altup = AltUp<T, B>(d, config.altup_num_inputs, config.altup_active_idx, epsilon);
  input_norm = post_attention_norm = pre_feed_forward_norm = post_feed_forward_norm = RmsNorm<B>(d, epsilon);
  laurel = Laurel<T, B>(d, config.laurel_rank, epsilon);
  attention = make_attention<T, B>(config, l);
  mlp = SparseMlp<T, B>(d, layer.intermediate_size, layer.activation_sparsity);
  per_layer = PerLayer<T, B>(d, config.hidden_size_per_layer_input, epsilon);
  output_scale.assign(d, 1.0f);
  has_output_scale = config.altup_correct_scale;
}

}  // namespace ple::inline PLE_ABI
