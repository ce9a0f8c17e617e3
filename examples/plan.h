// SPDX-License-Identifier: Apache-2.0
// Which type each depth of a PLE table gets when the table must become smaller.
#pragma once

#include <ple/checkpoint/packed_table.h>

#include <cstddef>
#include <optional>
#include <vector>

namespace examples {

/// One way to store a depth, and what it costs when nothing else changes.
struct DepthChoice {
  std::optional<ple::Dtype> dtype = {};  ///< none: pruned
  double kl = 0;                         ///< mean KL(original || changed), nats per token
};

/// A choice for every depth such that a packed table's row has at most `row_bytes`, as far as that can be.
///
/// Every depth starts with its first choice, the best. While rows are too long, that step to a smaller choice of one
/// depth is taken which costs the least KL per byte; then, while some step back fits, the one that regains the most KL
/// per byte. Costs of depths are added up, which is an assumption: measure the result.
inline std::vector<std::size_t> plan_depths(const std::vector<std::vector<DepthChoice>>& choices, std::size_t width,
                                            std::size_t row_bytes) {
  std::vector<std::size_t> plan(choices.size(), 0);
  const auto bytes_of = [&](std::size_t l, std::size_t c) {
    const auto& dtype = choices[l][c].dtype;
    return static_cast<double>(dtype ? ple::bytes_of(*dtype, width) : 0);
  };
  const auto fits = [&] {
    std::vector<std::optional<ple::Dtype>> dtypes;
    for (std::size_t l = 0; l < plan.size(); ++l) dtypes.push_back(choices[l][plan[l]].dtype);
    return ple::packed_layout(dtypes, width).row_bytes() <= row_bytes;
  };
  struct Step {
    std::size_t layer, choice;
    double price;  // KL per byte
  };
  // The best step to smaller choices, or to larger ones that fit.
  const auto best_step = [&](bool smaller) {
    std::optional<Step> best;
    for (std::size_t l = 0; l < plan.size(); ++l) {
      const std::size_t before = plan[l];
      for (std::size_t c = 0; c < choices[l].size(); ++c) {
        const double saved = bytes_of(l, before) - bytes_of(l, c);
        if (smaller ? saved <= 0 : saved >= 0) continue;
        const double price = (choices[l][c].kl - choices[l][before].kl) / saved;
        if (best && (smaller ? price >= best->price : price <= best->price)) continue;
        plan[l] = c;
        const bool possible = smaller || (price > 0 && fits());
        plan[l] = before;
        if (possible) best = Step{l, c, price};
      }
    }
    return best;
  };
  for (const bool smaller : {true, false}) {
    while (!smaller || !fits()) {
      const auto step = best_step(smaller);
      if (!step) break;
      plan[step->layer] = step->choice;
    }
  }
  return plan;
}

}  // namespace examples
