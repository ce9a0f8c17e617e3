// SPDX-License-Identifier: Apache-2.0
// What a layer does with its slice of a PLE row, and how the slice is made.
#pragma once

#include <cmath>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/nn/linear.h"
#include "ple/nn/rms_norm.h"

namespace ple::inline PLE_ABI {

/// y = norm(Wout (gelu(Wgate h) * e)): what a layer adds to h for its per-layer input e.
template <class T, Backend B>
struct PerLayer {
  Linear<T, B> gate;    ///< [p, d]
  Linear<T, B> output;  ///< [d, p]
  RmsNorm<B> norm;      ///< [d]

  PerLayer() = default;
  PerLayer(std::size_t d, std::size_t p, float epsilon) : gate(p, d), output(d, p), norm(d, epsilon) {}

  /// h, y: [T, d]; e: [T, p]; g: [T, p], room for the gate.
  void operator()(Executor& executor, Rows h, Rows e, Rows g, Rows y) const {
    gate(executor, h, g, [&](std::size_t begin, std::size_t end) {
      for (std::size_t t = 0; t < h.rows; ++t) {
        B::gelu(end - begin, g.row(t) + begin);
        B::multiply(e.row(t) + begin, end - begin, g.row(t) + begin);
      }
    });
    output(executor, g, y);
    norm(executor, y, y);
  }
};

/// per_layer_input = (norm(Wproj h0 / sqrt(d)) + identity) / sqrt(2), for all layers at once.
/// h0 is the scaled token embedding, `identity` the token's row of the PLE table times sqrt(p).
template <class T, Backend B>
struct PerLayerInput {
  Linear<T, B> context_projection;  ///< [layers * p, d]
  RmsNorm<B> context_norm;          ///< [p]

  PerLayerInput() = default;
  PerLayerInput(std::size_t d, std::size_t layers, std::size_t p, float epsilon)
      : context_projection(layers * p, d), context_norm(p, epsilon) {}

  /// context = norm(Wproj h0 / sqrt(d)), for the layers whose columns of the table start at `first`.
  /// h0: [T, d]; context: [T, columns].
  void project(Executor& executor, std::size_t first, Rows h0, Rows context) const {
    const Product<T> product{context_projection.weight, context, first};
    multiply<B, T>(executor, h0, std::span(&product, 1));
    const float per_root_d = 1.0f / std::sqrt(static_cast<float>(h0.cols));
    for_each_row(executor, context.rows, context.cols, [&](std::size_t t) {
      B::scale(per_root_d, context.cols, context.row(t));
      context_norm.row(context.row(t), context.cols, context.row(t));
    });
  }

  /// e = (context + e) / sqrt(2): e holds the identity and becomes the per-layer input. [T, columns]
  static void combine(Executor& executor, Rows context, Rows e) {
    const float per_root_2 = 1.0f / std::sqrt(2.0f);
    for_each_row(executor, e.rows, e.cols, [&](std::size_t t) {
      B::add(context.row(t), e.cols, e.row(t));
      B::scale(per_root_2, e.cols, e.row(t));
    });
  }
};

}  // namespace ple::inline PLE_ABI
