// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// The learning rate's factor: a linear warm-up to 1, then half a cosine down to 0 at `steps`. Without steps it
/// stays 1.
struct CosineSchedule {
  std::uint64_t steps = 0, warm_up = 0;

  /// step: from 0
  double factor(std::uint64_t step) const {
    if (step < warm_up) return static_cast<double>(step + 1) / static_cast<double>(warm_up);
    if (steps == 0) return 1;
    if (step >= steps) return 0;
    constexpr double pi = 3.14159265358979323846;
    return 0.5 * (1 + std::cos(pi * static_cast<double>(step - warm_up) / static_cast<double>(steps - warm_up)));
  }
};

}  // namespace ple::inline PLE_ABI
