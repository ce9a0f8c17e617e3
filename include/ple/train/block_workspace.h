// SPDX-License-Identifier: Apache-2.0
// What a block in training keeps of its forward pass, and what its gradient is computed in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/model/config.h"
#include "ple/tensor/rows.h"
#include "ple/train/attention.h"
#include "ple/train/linear.h"

namespace ple::inline PLE_ABI {

/// What the gradient of a block needs of its forward pass. [T, ...]
struct BlockActivations {
  Rows x, q0, k0, v0, q, k, v, attended, y;  ///< attention: of its input norm on. 0: before the heads' norms
  Rows h1, x1, gate, up, gated, y1;          ///< feed-forward
  Rows h2, ple_gate, ple_gated, z;           ///< PLE step
  AlignedVector<float> memory;

  /// Widths: the widest of all layers.
  template <class Config>
  BlockActivations(const Config& config, std::size_t T) {
    std::size_t heads = 0, kv = 0, intermediate = 0;
    const std::size_t d = config.hidden_size, p = config.hidden_size_per_layer_input;
    for (std::size_t l = 0; l < config.num_layers(); ++l) {
      const LayerConfig layer = config.layer(l);
      heads = (std::max)(heads, config.num_attention_heads * layer.head_dim);
      kv = (std::max)(kv, layer.num_key_value_heads * layer.head_dim);
      intermediate = (std::max)(intermediate, layer.intermediate_size);
    }
    RowsRequest all[] = {{&x, T, d},
                         {&q0, T, heads},
                         {&k0, T, kv},
                         {&v0, T, kv},
                         {&q, T, heads},
                         {&k, T, kv},
                         {&v, T, kv},
                         {&attended, T, heads},
                         {&y, T, d},
                         {&h1, T, d},
                         {&x1, T, d},
                         {&gate, T, intermediate},
                         {&up, T, intermediate},
                         {&gated, T, intermediate},
                         {&y1, T, d},
                         {&h2, T, d},
                         {&ple_gate, T, p},
                         {&ple_gated, T, p},
                         {&z, T, d}};
    memory = allocate_spaced_rows(all);
  }

  /// Of activations of T tokens, with these widths.
  std::uint64_t bytes(std::size_t T) const {
    std::uint64_t sum = 0;
    for (const Rows* rows : {&x, &q0, &k0, &v0, &q, &k, &v, &attended, &y, &h1, &x1, &gate, &up, &gated, &y1, &h2,
                             &ple_gate, &ple_gated, &z}) {
      sum += T * aligned_size(rows->cols * sizeof(float));
    }
    return sum;
  }
};

/// What gradients of a block are computed in. [T, ...]
struct BlockGradientWorkspace {
  LinearWorkspace linear;
  AttentionGradientWorkspace attention;
  Rows dx, dq, dk, dv, dattended, dgated, gate, up, dple, ple_gate;
  AlignedVector<float> memory;

  template <class Config>
  BlockGradientWorkspace(const Config& config, std::size_t T, std::size_t tasks) {
    const BlockActivations widths(config, 0);
    RowsRequest all[] = {{&attention.scores, tasks * attention_tile, T},
                         {&attention.weights, T, T},
                         {&attention.dscores, T, T},
                         {&dx, T, widths.x.cols},
                         {&dq, T, widths.q.cols},
                         {&dk, T, widths.k.cols},
                         {&dv, T, widths.k.cols},
                         {&dattended, T, widths.q.cols},
                         {&dgated, T, widths.gate.cols},
                         {&gate, T, widths.gate.cols},
                         {&up, T, widths.gate.cols},
                         {&dple, T, widths.ple_gate.cols},
                         {&ple_gate, T, widths.ple_gate.cols}};
    memory = allocate_spaced_rows(all);
  }
};

/// K and V that several layers use, and their gradients: [T, kv_heads * head_dim] each.
struct SharedKv {
  Rows k, v, dk, dv;
};

}  // namespace ple::inline PLE_ABI
