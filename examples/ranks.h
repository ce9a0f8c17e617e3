// SPDX-License-Identifier: Apache-2.0
// Which rank each depth of a PLE table gets: for an error, or for a number of bytes.
#pragma once

#include <ple/checkpoint/packed_table.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace examples {

/// Depths as they are stored, and the eigenvalues of each, descending. Ranks are whole blocks of a depth's type.
struct RankPlan {
  std::vector<std::optional<ple::Dtype>> dtypes;  ///< none: pruned, and without a rank
  std::vector<std::vector<double>> eigenvalues;   ///< [depth][p]; of pruned depths, any
  std::size_t width = 0;
  std::uint64_t rows = 0;

  std::size_t step(std::size_t depth) const { return dtypes[depth] ? ple::values_per_block(*dtypes[depth]) : 0; }

  /// `rank` rounded up to whole blocks, at least one, of those that the width has room for; 0 for a pruned depth.
  std::size_t rounded(std::size_t depth, std::size_t rank) const {
    const std::size_t step = this->step(depth);
    if (step == 0) return 0;
    return std::clamp((rank + step - 1) / step, std::size_t{1}, std::max<std::size_t>(width / step, 1)) * step;
  }

  /// Of the whole table: its rows and its bases.
  std::uint64_t bytes(const std::vector<std::size_t>& ranks) const {
    const ple::RowLayout layout = ple::packed_layout(dtypes, width, ranks);
    return rows * layout.row_bytes() + std::uint64_t{layout.sum_of_ranks()} * width * sizeof(float);
  }

  std::vector<std::size_t> smallest() const {
    std::vector<std::size_t> ranks;
    for (std::size_t l = 0; l < dtypes.size(); ++l) ranks.push_back(rounded(l, 1));
    return ranks;
  }

  /// The ranks of the least squared error that take at most `most` bytes. Every depth starts with one block; then that
  /// block of eigenvalues is added, of all depths, which holds the most energy for its bytes. Eigenvalues descend, so
  /// no other choice is better, but for blocks that do not fit at the end. None, if not even smallest() fits.
  std::optional<std::vector<std::size_t>> for_bytes(std::uint64_t most) const {
    std::vector<std::size_t> ranks = smallest();
    if (bytes(ranks) > most) return std::nullopt;
    std::vector<bool> full(ranks.size(), false);
    for (;;) {
      std::optional<std::size_t> best;
      double best_price = 0;
      for (std::size_t l = 0; l < ranks.size(); ++l) {
        if (full[l] || step(l) == 0 || ranks[l] + step(l) > width) continue;
        double energy = 0;
        for (std::size_t i = ranks[l]; i < ranks[l] + step(l); ++i) energy += eigenvalues[l][i];
        const double price = energy / (static_cast<double>(rows * ple::bytes_of(*dtypes[l], step(l))) +
                                       static_cast<double>(step(l) * width * sizeof(float)));
        if (!best || price > best_price) best = l, best_price = price;
      }
      if (!best) return ranks;
      ranks[*best] += step(*best);
      if (bytes(ranks) <= most) continue;
      ranks[*best] -= step(*best);
      full[*best] = true;
    }
  }
};

}  // namespace examples
