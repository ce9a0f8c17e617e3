// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/nn/linear.h"

namespace ple::inline PLE_ABI {

/// For one chunk of tokens: [T, intermediate_size] each.
struct MlpWorkspace {
  Rows gate, up;
};

/// down.y = Wdown (gelu(Wgate x) * (Wup x)). gate.y and up.y are workspace, of equal size.
template <class T, Backend B>
void gated_feed_forward(const Context& context, Rows x, const Product<T, B>& gate, const Product<T, B>& up,
                        const Product<T, B>& down) {
  const Rows g = gate.y, u = up.y;
  const Product<T, B> both[] = {gate, up};
  multiply<B, T>(context, x, both, [&](std::size_t begin, std::size_t end) {
    for (std::size_t t = 0; t < x.rows; ++t) {
      B::gelu(end - begin, g.row(t) + begin);
      B::multiply(u.row(t) + begin, end - begin, g.row(t) + begin);
    }
  });
  multiply<B, T>(context, g, std::span(&down, 1));
}

/// The gated feed-forward: y = Wdown (gelu(Wgate x) * (Wup x)). Source: Shazeer 2020 (GEGLU).
template <class T, Backend B>
struct Mlp {
  Linear<T, B> gate, up, down;

  Mlp() = default;
  Mlp(std::size_t d, std::size_t intermediate_size)
      : gate(intermediate_size, d), up(intermediate_size, d), down(d, intermediate_size) {}

  /// x, y: [T, d]
  void operator()(const Context& context, const MlpWorkspace& all, Rows x, Rows y) const {
    const Rows g = all.gate.slice(0, x.rows).columns(0, gate.weight.rows());
    const Rows u = all.up.slice(0, x.rows).columns(0, g.cols);
    gated_feed_forward<T, B>(context, x, {gate, g}, {up, u}, {down, y});
  }
};

}  // namespace ple::inline PLE_ABI
