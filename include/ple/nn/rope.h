// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding, half-split pairs (x[i], x[i + head_dim / 2]). Source: Su et al. 2021.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "ple/core/config.h"
#include "ple/simd/backend.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// Cosine and sine of each pair's angle: [positions, head_dim / 2] each.
struct Angles {
  Rows cosine, sine;
  Angles slice(std::size_t first, std::size_t count) const {
    return {cosine.slice(first, count), sine.slice(first, count)};
  }
};

/// Rotates the first `fraction` of the pairs, with wavelengths computed from the whole head_dim. The others keep their
/// angle ('proportional' RoPE). A fraction of 1 is the usual RoPE.
class Rope {
 public:
  Rope() = default;
  Rope(double theta, double fraction, double factor, std::size_t head_dim) : frequencies_(head_dim / 2, 0.0f) {
    // f32 and this order are the reference's: at position 100,000 the last bit of a frequency shows.
    const auto turning = static_cast<std::size_t>(fraction * static_cast<double>(head_dim) / 2);
    for (std::size_t i = 0; i < turning; ++i) {
      const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
      frequencies_[i] = 1.0f / std::pow(static_cast<float>(theta), exponent) / static_cast<float>(factor);
    }
  }

  /// The angles of positions first, first + 1, ...
  void angles(std::size_t first, Angles out) const {
    for (std::size_t t = 0; t < out.cosine.rows; ++t) {
      for (std::size_t i = 0; i < frequencies_.size(); ++i) {
        const float angle = static_cast<float>(first + t) * frequencies_[i];
        out.cosine.row(t)[i] = frequencies_[i] == 0 ? 1.0f : std::cos(angle);
        out.sine.row(t)[i] = frequencies_[i] == 0 ? 0.0f : std::sin(angle);
      }
    }
  }

 private:
  std::vector<float> frequencies_;  // radians per position
};

/// Rotates every head of one row.
template <Backend B>
void rope(const Angles& angles, std::size_t t, std::size_t head_dim, float* x, std::size_t cols) {
  for (std::size_t i = 0; i < cols; i += head_dim)
    B::rope(angles.cosine.row(t), angles.sine.row(t), head_dim / 2, x + i);
}

}  // namespace ple::inline PLE_ABI
