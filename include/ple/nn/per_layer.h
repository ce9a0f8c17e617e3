// SPDX-License-Identifier: Apache-2.0
// A layer's PLE step, and the projection that makes its per-layer input.
#pragma once

#include <cmath>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/nn/linear.h"
#include "ple/nn/rms_norm.h"

namespace ple::inline PLE_ABI {

/// y = norm(Wout (gelu(Wgate h) * e)), which a layer adds to h. e is its per-layer input.
template <class T, Backend B>
struct PerLayer {
  Linear<T, B> gate;    ///< [p, d]
  Linear<T, B> output;  ///< [d, p]
  RmsNorm<B> norm;      ///< [d]

  PerLayer() = default;
  PerLayer(std::size_t d, std::size_t p, float epsilon) : gate(p, d), output(d, p), norm(d, epsilon) {}

  /// h, y: [T, d]; e: [T, p]; g: [T, p], workspace.
  void operator()(const Context& context, Rows h, Rows e, Rows g, Rows y) const {
    gate(context, h, g, [&](std::size_t begin, std::size_t end) {
      for (std::size_t t = 0; t < h.rows; ++t) {
        B::gelu(end - begin, g.row(t) + begin);
        B::multiply(e.row(t) + begin, end - begin, g.row(t) + begin);
      }
    });
    output(context, g, y);
    norm(context, y, y);
  }
};

/// transformers' project_per_layer_inputs, for all layers at once: (norm(Wproj h0 / sqrt(d)) + identity) / sqrt(2). h0
/// is the scaled token embedding, `identity` the token's row of the PLE table times sqrt(p).
template <class T, Backend B>
struct PerLayerProjection {
  Linear<T, B> context_projection;  ///< [layers * p, d]
  RmsNorm<B> context_norm;          ///< [p]

  PerLayerProjection() = default;
  PerLayerProjection(std::size_t d, std::size_t layers, std::size_t p, float epsilon)
      : context_projection(layers * p, d), context_norm(p, epsilon) {}

  /// projected = norm(Wproj h0 / sqrt(d)), for layers from table column `first` on. h0: [T, d]; projected: [T, columns]
  void project(const Context& context, std::size_t first, Rows h0, Rows projected) const {
    const Product<T, B> product{context_projection, projected, first};
    multiply<B, T>(context, h0, std::span(&product, 1));
    const float per_root_d = 1.0f / std::sqrt(static_cast<float>(h0.cols));
    for_each_row(context, projected.rows, projected.cols, [&](std::size_t t) {
      B::scale(per_root_d, projected.cols, projected.row(t));
      context_norm.row(projected.row(t), projected.cols, projected.row(t));
    });
  }

  /// e = (projected + e) / sqrt(2), [T, columns]: e holds the identity and becomes the per-layer input.
  static void combine(const Context& context, Rows projected, Rows e) {
    const float per_root_2 = 1.0f / std::sqrt(2.0f);
    for_each_row(context, e.rows, e.cols, [&](std::size_t t) {
      B::add(projected.row(t), e.cols, e.row(t));
      B::scale(per_root_2, e.cols, e.row(t));
    });
  }
};

/// Old name; goes with the next version.
template <class T, Backend B>
using PerLayerInput = PerLayerProjection<T, B>;

}  // namespace ple::inline PLE_ABI
