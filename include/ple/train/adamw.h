// SPDX-License-Identifier: Apache-2.0
// AdamW. Source: Loshchilov and Hutter 2019, in the order of torch.optim.AdamW.
#pragma once

#include <cmath>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/train/parameters.h"

namespace ple::inline PLE_ABI {

struct AdamW {
  float beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f;

  /// One step down gradient * factor. The bias is corrected by the number of steps that these values have made: a row
  /// that a text needs for the first time moves by `rate`, however late that is.
  void step(TrainedValues& w, double rate, double decay, float factor) const {
    ++w.steps;
    const auto n = static_cast<double>(w.steps);
    const double mean_part = 1 - std::pow(static_cast<double>(beta1), n),
                 root_part = std::sqrt(1 - std::pow(static_cast<double>(beta2), n));
    const auto kept = static_cast<float>(1 - rate * decay), move = static_cast<float>(rate / mean_part),
               per_root = static_cast<float>(1 / root_part);
    for (std::size_t i = 0; i < w.values.size(); ++i) {
      const float g = w.gradient[i] * factor;
      w.mean[i] += (1 - beta1) * (g - w.mean[i]);
      w.variance[i] = beta2 * w.variance[i] + (1 - beta2) * g * g;
      w.values[i] = w.values[i] * kept - move * w.mean[i] / (std::sqrt(w.variance[i]) * per_root + epsilon);
    }
  }
};

}  // namespace ple::inline PLE_ABI
