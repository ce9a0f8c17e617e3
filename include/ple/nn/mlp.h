// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ple/nn/linear.h"

namespace ple {

/// Room for one chunk of tokens: [T, intermediate_size] each.
struct MlpWorkspace {
  Rows gate, up;
};

/// The gated feed-forward: y = Wdown (gelu(Wgate x) * (Wup x)). Source: Shazeer 2020 (GEGLU).
template <class T, Backend B>
struct Mlp {
  Linear<T, B> gate, up, down;

  Mlp() = default;
  Mlp(std::size_t d, std::size_t intermediate_size)
      : gate(intermediate_size, d), up(intermediate_size, d), down(d, intermediate_size) {}

  /// x, y: [T, d]
  void operator()(Executor& executor, const MlpWorkspace& all, Rows x, Rows y) const {
    const Rows g = all.gate.slice(0, x.rows).columns(0, gate.weight.rows());
    const Rows u = all.up.slice(0, x.rows).columns(0, g.cols);
    const Product<T> both[] = {{gate.weight, g}, {up.weight, u}};
    multiply<B, T>(executor, x, both);
    for_each_row(executor, x.rows, g.cols, [&](std::size_t t) {
      B::gelu(g.cols, g.row(t));
      B::multiply(u.row(t), g.cols, g.row(t));
    });
    down(executor, g, y);
  }
};

}  // namespace ple
