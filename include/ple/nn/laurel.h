// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "ple/core/config.h"
#include "ple/nn/linear.h"
#include "ple/nn/rms_norm.h"

namespace ple::inline PLE_ABI {

/// A learned augmented residual: y = x + norm(Wright (Wleft x)). Source: Menghani et al. 2024 (LAuReL).
template <class T, Backend B>
struct Laurel {
  Linear<T, B> left;   ///< [rank, d]
  Linear<T, B> right;  ///< [d, rank]
  RmsNorm<B> norm;     ///< [d]

  Laurel() = default;
  Laurel(std::size_t d, std::size_t rank, float epsilon) : left(rank, d), right(d, rank), norm(d, epsilon) {}

  /// x, y: [T, d]; low: [T, rank], workspace for Wleft x.
  void operator()(const Context& context, Rows x, Rows low, Rows y) const {
    left(context, x, low);
    right(context, low, y);
    norm(context, y, y);
    add<B>(context, x, y);
  }
};

}  // namespace ple::inline PLE_ABI
