// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/parallel.h"
#include "ple/simd/backend.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// y = x / sqrt(mean(x^2) + epsilon) * weight, for each group of weight.size() values of a row. A norm over heads has
/// head_dim weights. Source: Zhang and Sennrich 2019.
template <Backend B>
struct RmsNorm {
  std::vector<float> weight;
  float epsilon = 1e-6f;

  RmsNorm() = default;
  RmsNorm(std::size_t width, float eps) : weight(width, 1.0f), epsilon(eps) {}

  /// y may be x.
  void operator()(const Context& context, Rows x, Rows y) const {
    for_each_row(context, x.rows, x.cols, [&](std::size_t t) { row(x.row(t), x.cols, y.row(t)); });
  }
  void row(const float* x, std::size_t cols, float* y) const {
    for (std::size_t i = 0; i < cols; i += weight.size())
      B::rms_norm(x + i, weight.data(), weight.size(), epsilon, y + i);
  }
};

}  // namespace ple::inline PLE_ABI
