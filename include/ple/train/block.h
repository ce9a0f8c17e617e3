// SPDX-License-Identifier: Apache-2.0
// A decoder's block in training: forward, with what its gradient needs, and the gradient. For blocks with the parts
// that nn/attention.h, nn/mlp.h and nn/per_layer.h have: Gemma 4's and Gemma 3's.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <optional>
#include <span>

#include "ple/core/config.h"
#include "ple/model/block_parts.h"
#include "ple/model/decoder_block.h"
#include "ple/nn/per_layer.h"
#include "ple/nn/rope.h"
#include "ple/tensor/rows.h"
#include "ple/train/attention.h"
#include "ple/train/block_workspace.h"
#include "ple/train/linear.h"
#include "ple/train/parameters.h"
#include "ple/train/rms_norm.h"

namespace ple::inline PLE_ABI {

/// Which blocks can be trained.
template <class Block>
concept TrainableBlock = std::same_as<typename Block::Streams, OneStream> && requires(const Block& block) {
  block.attention.query_norm;
  block.mlp.gate;
  block.input_norm;
  block.post_attention_norm;
  block.pre_feed_forward_norm;
  block.post_feed_forward_norm;
};

/// Layer l of a model, for one sequence. `text_begins` and `angles` are those of its tokens.
template <TrainableBlock Block>
class TrainedBlock {
 public:
  using T = typename Block::Dtype;
  using B = typename Block::Simd;

  TrainedBlock(const Block& block, std::size_t l, TrainedParameters& trained, BlockGradientWorkspace& workspace,
               const Angles& angles, std::span<const std::size_t> text_begins)
      : block_(block), l_(l), trained_(trained), w_(workspace), angles_(angles), text_begins_(text_begins) {}

  /// h: [T, d], the layer's input, is kept; out becomes its output. e: [T, p], or none if pruned. `shared`: where K and
  /// V go, or come from, if other layers use them; null: they are this layer's alone.
  void forward(const Context& context, BlockActivations& a, Rows h, Rows e, const SharedKv* shared, Rows out) const {
    const Sizes s(block_);

    // h1 = h + post_attention_norm(Wo attention(input_norm(h)))
    trained(Parameter::input_norm, block_.input_norm).forward(context, h, first(a.x, h));
    attend(context, a, h.rows, shared);
    trained(Parameter::attention_output, block_.attention.output)
        .forward(context, first(a.attended.columns(0, s.q), h), first(a.y, h));
    const Rows h1 = first(a.h1, h);
    trained(Parameter::post_attention_norm, block_.post_attention_norm).forward(context, first(a.y, h), h1);
    add<B>(context, h, h1);

    // h2 = h1 + post_feed_forward_norm(Wdown (gelu(Wgate x) * (Wup x))), x = pre_feed_forward_norm(h1)
    const Rows x1 = first(a.x1, h), gate = first(a.gate.columns(0, s.intermediate), h),
               up = first(a.up.columns(0, s.intermediate), h), gated = first(a.gated.columns(0, s.intermediate), h);
    trained(Parameter::pre_feed_forward_norm, block_.pre_feed_forward_norm).forward(context, h1, x1);
    trained(Parameter::gate, block_.mlp.gate).forward(context, x1, gate);
    trained(Parameter::up, block_.mlp.up).forward(context, x1, up);
    multiply_gelu(context, gate, up, gated);
    trained(Parameter::down, block_.mlp.down).forward(context, gated, first(a.y1, h));
    const Rows h2 = first(a.h2, h);
    trained(Parameter::post_feed_forward_norm, block_.post_feed_forward_norm).forward(context, first(a.y1, h), h2);
    add<B>(context, h1, h2);

    // out = c (h2 + post_ple_norm(Wout (gelu(Wgate h2) * e)))
    if constexpr (has_ple) {
      if (e.cols > 0) {
        const Rows ple_gate = first(a.ple_gate, h), ple_gated = first(a.ple_gated, h), z = first(a.z, h);
        trained(Parameter::ple_gate, block_.per_layer.gate).forward(context, h2, ple_gate);
        multiply_gelu(context, ple_gate, e, ple_gated);
        trained(Parameter::ple_output, block_.per_layer.output).forward(context, ple_gated, z);
        trained(Parameter::post_ple_norm, block_.per_layer.norm).forward(context, z, out);
        add<B>(context, h2, out);
      } else {
        copy(h2, out);
      }
      for (std::size_t t = 0; t < out.rows; ++t) B::scale(block_.layer_scalar[0], out.cols, out.row(t));
    } else {
      copy(h2, out);
    }
  }

  /// Whether something below the PLE step is trained.
  bool trains_below_ple() const {
    for (const auto& entry : trained_.adapters) {
      if (is_mine(entry.first) && entry.first.parameter < Parameter::ple_gate) return true;
    }
    for (const auto& entry : trained_.weights) {
      if (is_mine(entry.first) && entry.first.parameter < Parameter::ple_gate) return true;
    }
    return false;
  }

  /// dh: [T, d], the gradient of the layer's output, becomes that of its input. de becomes e's. A layer that others
  /// share K and V with adds their gradients to its own, which are complete by then; other layers add theirs there.
  /// `below`: whether the gradient of what lies below the PLE step is wanted; without, dh is only that of h2.
  void backward(const Context& context, const BlockActivations& a, Rows h, Rows e, const SharedKv* shared, bool below,
                Rows dh, Rows de) const {
    const Sizes s(block_);
    const Rows dx = first(w_.dx, h), h1 = first(a.h1, h), h2 = first(a.h2, h);
    if constexpr (has_ple) {
      for (std::size_t t = 0; t < dh.rows; ++t) B::scale(block_.layer_scalar[0], dh.cols, dh.row(t));
      if (e.cols > 0) {
        // dz = norm'(dh), dg = dz Wout; (dgate, de) = gated_gelu'(dg); dh += dgate Wgate
        const Rows z = first(a.z, h), dg = first(w_.dple, h), gate = first(a.ple_gate, h);
        trained(Parameter::post_ple_norm, block_.per_layer.norm).backward(context, z, dh, dx);
        clear(dg);
        trained(Parameter::ple_output, block_.per_layer.output).backward(context, first(a.ple_gated, h), dx, dg);
        const Rows dgate = first(w_.ple_gate, h);
        copy(gate, dgate);
        copy(e, de);
        gated_gelu_backward(context, dg, dgate, de);
        trained(Parameter::ple_gate, block_.per_layer.gate).backward(context, h2, dgate, dh);
      }
    }
    if (!below) return;

    // dy = norm'(dh), dgated = dy Wdown; (dgate, dup) = gated_gelu'(dgated); dx = dgate Wgate + dup Wup; dh +=
    // norm'(dx)
    trained(Parameter::post_feed_forward_norm, block_.post_feed_forward_norm).backward(context, first(a.y1, h), dh, dx);
    const Rows gated = first(a.gated.columns(0, s.intermediate), h),
               dgated = first(w_.dgated.columns(0, s.intermediate), h),
               dgate = first(w_.gate.columns(0, s.intermediate), h), dup = first(w_.up.columns(0, s.intermediate), h);
    clear(dgated);
    trained(Parameter::down, block_.mlp.down).backward(context, gated, dx, dgated);
    copy(first(a.gate.columns(0, s.intermediate), h), dgate);
    copy(first(a.up.columns(0, s.intermediate), h), dup);
    gated_gelu_backward(context, dgated, dgate, dup);
    clear(dx);
    trained(Parameter::gate, block_.mlp.gate).backward(context, first(a.x1, h), dgate, dx);
    trained(Parameter::up, block_.mlp.up).backward(context, first(a.x1, h), dup, dx);
    trained(Parameter::pre_feed_forward_norm, block_.pre_feed_forward_norm).backward(context, h1, dx, dx);
    add<B>(context, dx, dh);

    // dy = norm'(dh), dattended = dy Wo; (dq, dk, dv) = attention'(dattended); dx = dq Wq + dk Wk + dv Wv
    trained(Parameter::post_attention_norm, block_.post_attention_norm).backward(context, first(a.y, h), dh, dx);
    const Rows attended = first(a.attended.columns(0, s.q), h), dattended = first(w_.dattended.columns(0, s.q), h);
    clear(dattended);
    trained(Parameter::attention_output, block_.attention.output).backward(context, attended, dx, dattended);
    clear(dx);
    attend_backward(context, a, shared, dattended, dx);
    trained(Parameter::input_norm, block_.input_norm).backward(context, h, dx, dx);
    add<B>(context, dx, dh);
  }

 private:
  static constexpr bool has_ple = requires(const Block& block) { block.per_layer.gate; };

  struct Sizes {
    std::size_t q, kv, intermediate;
    explicit Sizes(const Block& block)
        : q(block.attention.heads * block.attention.head_dim),
          kv(block.attention.kv_heads * block.attention.head_dim),
          intermediate(block.mlp.gate.weight.rows()) {}
  };

  bool is_mine(const TrainedParameters::Key& key) const { return is_of_layer(key.parameter) && key.layer == l_; }

  TrainedLinear<T, B> trained(Parameter parameter, const Linear<T, B>& linear) const {
    return {linear, trained_.weight(parameter, l_), trained_.adapter(parameter, l_), w_.linear};
  }
  TrainedNorm<B> trained(Parameter parameter, const RmsNorm<B>& norm) const {
    return {norm, trained_.weight(parameter, l_)};
  }

  static Rows first(Rows all, Rows like) { return all.slice(0, like.rows); }
  static void copy(Rows from, Rows to) {
    for (std::size_t t = 0; t < to.rows; ++t) std::copy_n(from.row(t), to.cols, to.row(t));
  }
  static void clear(Rows rows) {
    for (std::size_t t = 0; t < rows.rows; ++t) std::fill_n(rows.row(t), rows.cols, 0.0f);
  }

  /// out = gelu(gate) * up
  static void multiply_gelu(const Context& context, Rows gate, Rows up, Rows out) {
    for_each_row(context, out.rows, out.cols, [&](std::size_t t) {
      std::copy_n(gate.row(t), out.cols, out.row(t));
      B::gelu(out.cols, out.row(t));
      B::multiply(up.row(t), out.cols, out.row(t));
    });
  }
  /// Of gelu(gate) * up: gate becomes dgate, up becomes dup.
  static void gated_gelu_backward(const Context& context, Rows dout, Rows gate, Rows up) {
    for_each_row(context, dout.rows, dout.cols, [&](std::size_t t) {
      B::gated_gelu_backward(dout.cols, const_cast<const float*>(dout.row(t)), gate.row(t), up.row(t));
    });
  }

  TextAttention<B> text_attention(const BlockActivations& a, std::size_t rows, const SharedKv* shared) const {
    const auto& attention = block_.attention;
    const Sizes s(block_);
    return {attention.heads,
            attention.kv_heads,
            attention.head_dim,
            attention.window,
            text_begins_,
            w_.attention,
            a.q.columns(0, s.q).slice(0, rows),
            shared ? shared->k : a.k.columns(0, s.kv).slice(0, rows),
            shared ? shared->v : a.v.columns(0, s.kv).slice(0, rows),
            a.attended.columns(0, s.q).slice(0, rows)};
  }

  /// q = s rope(query_norm(Wq x)), k = rope(key_norm(Wk x)), v = value_norm(Wv x); attended = attention(q, k, v)
  void attend(const Context& context, BlockActivations& a, std::size_t rows, const SharedKv* shared) const {
    const auto& attention = block_.attention;
    const Sizes s(block_);
    const Rows x = a.x.slice(0, rows), q0 = a.q0.columns(0, s.q).slice(0, rows),
               k0 = a.k0.columns(0, s.kv).slice(0, rows), v0 = a.v0.columns(0, s.kv).slice(0, rows);
    const TextAttention<B> text = text_attention(a, rows, shared);
    trained(Parameter::query, attention.query).forward(context, x, q0);
    trained(Parameter::query_norm, attention.query_norm).forward(context, q0, text.q);
    for_each_row(context, rows, s.q, [&](std::size_t t) {
      rope<B>(angles_, t, attention.head_dim, text.q.row(t), s.q);
      if (attention.score_scale != 1) B::scale(attention.score_scale, s.q, text.q.row(t));
    });
    if (attention.owns_kv) {
      trained(Parameter::key, attention.key).forward(context, x, k0);
      if (!attention.value_is_key) trained(Parameter::value, attention.value).forward(context, x, v0);
      trained(Parameter::key_norm, attention.key_norm).forward(context, k0, text.k);
      for_each_row(context, rows, s.kv, [&](std::size_t t) {
        rope<B>(angles_, t, attention.head_dim, text.k.row(t), s.kv);
        const float* from = attention.value_is_key ? k0.row(t) : v0.row(t);
        for (std::size_t i = 0; i < s.kv; i += attention.head_dim) {
          if (attention.has_value_norm) {
            B::rms_norm(from + i, nullptr, attention.head_dim, attention.key_norm.epsilon, text.v.row(t) + i);
          } else {
            std::copy_n(from + i, attention.head_dim, text.v.row(t) + i);
          }
        }
      });
    }
    text.forward(context);
  }

  /// dx += the gradient of attention's input, from that of its result.
  void attend_backward(const Context& context, const BlockActivations& a, const SharedKv* shared, Rows dattended,
                       Rows dx) const {
    const auto& attention = block_.attention;
    const Sizes s(block_);
    const std::size_t rows = dx.rows;
    const TextAttention<B> text = text_attention(a, rows, shared);
    const Rows x = a.x.slice(0, rows), q0 = a.q0.columns(0, s.q).slice(0, rows),
               k0 = a.k0.columns(0, s.kv).slice(0, rows), v0 = a.v0.columns(0, s.kv).slice(0, rows);
    const Rows dq = w_.dq.columns(0, s.q).slice(0, rows),
               dk = shared ? shared->dk : w_.dk.columns(0, s.kv).slice(0, rows),
               dv = shared ? shared->dv : w_.dv.columns(0, s.kv).slice(0, rows);
    if (shared == nullptr) clear(dk), clear(dv);
    text.backward(context, dattended, dq, dk, dv);
    for_each_row(context, rows, s.q, [&](std::size_t t) {
      if (attention.score_scale != 1) B::scale(attention.score_scale, s.q, dq.row(t));
      rotate_back(t, dq.row(t), s.q);
    });
    trained(Parameter::query_norm, attention.query_norm).backward(context, q0, dq, dq);
    trained(Parameter::query, attention.query).backward(context, x, dq, dx);
    if (!attention.owns_kv) return;
    for_each_row(context, rows, s.kv, [&](std::size_t t) {
      rotate_back(t, dk.row(t), s.kv);
      const float* from = attention.value_is_key ? k0.row(t) : v0.row(t);
      for (std::size_t i = 0; attention.has_value_norm && i < s.kv; i += attention.head_dim) {
        B::rms_norm_backward(from + i, static_cast<const float*>(nullptr), attention.head_dim,
                             attention.key_norm.epsilon, const_cast<const float*>(dv.row(t)) + i, dv.row(t) + i);
      }
    });
    trained(Parameter::key_norm, attention.key_norm).backward(context, k0, dk, dk);
    if (attention.value_is_key) {
      add<B>(context, dv, dk);
    } else {
      trained(Parameter::value, attention.value).backward(context, x, dv, dx);
    }
    trained(Parameter::key, attention.key).backward(context, x, dk, dx);
  }

  /// The gradient of a rotation is the rotation by the opposite angle: of (b, a) by the angle of (a, b).
  void rotate_back(std::size_t t, float* row, std::size_t cols) const {
    const std::size_t half = block_.attention.head_dim / 2;
    for (std::size_t i = 0; i < cols; i += 2 * half) {
      std::swap_ranges(row + i, row + i + half, row + i + half);
      B::rope(angles_.cosine.row(t), angles_.sine.row(t), half, row + i);
      std::swap_ranges(row + i, row + i + half, row + i + half);
    }
  }

  const Block& block_;
  std::size_t l_;
  TrainedParameters& trained_;
  BlockGradientWorkspace& w_;
  Angles angles_;
  std::span<const std::size_t> text_begins_;
};

}  // namespace ple::inline PLE_ABI
