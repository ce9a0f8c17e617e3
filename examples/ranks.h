// SPDX-License-Identifier: Apache-2.0
// Which rank each depth of a PLE table gets: for an error, or for a number of bytes.
#pragma once

#include <ple/checkpoint/packed_table.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <vector>

namespace examples {

/// Depths as they are stored, and the eigenvalues of each, descending. Ranks are whole blocks of a depth's type; 0
/// means full: the values themselves are stored, without a basis.
struct RankPlan {
  std::vector<std::optional<ple::Dtype>> dtypes;  ///< none: pruned, and without a rank
  std::vector<std::vector<double>> eigenvalues;   ///< [depth][p]; of pruned depths, any
  std::size_t width = 0;
  std::uint64_t rows = 0;

  /// `rank` rounded up to whole blocks, at least one. Full, if the width has no room for them.
  std::size_t rounded(std::size_t depth, std::size_t rank) const {
    if (!dtypes[depth]) return 0;
    const std::size_t block = ple::values_per_block(*dtypes[depth]);
    const std::size_t whole = std::max<std::size_t>(1, (rank + block - 1) / block) * block;
    return whole > width ? 0 : whole;
  }

  /// As above. Full also where a rank saves nothing: a basis takes bytes, too, many if rows are few.
  std::size_t worthwhile(std::size_t depth, std::size_t rank) const {
    const std::size_t whole = rounded(depth, rank);
    if (whole > 0 && width % ple::values_per_block(*dtypes[depth]) != 0) return whole;  // full cannot be stored
    return whole > 0 && bytes_of(depth, whole) < bytes_of(depth, 0) ? whole : 0;
  }

  std::vector<std::size_t> smallest() const {
    std::vector<std::size_t> ranks;
    for (std::size_t l = 0; l < dtypes.size(); ++l) ranks.push_back(worthwhile(l, 1));
    return ranks;
  }

  /// Of the whole table: its rows and its bases.
  std::uint64_t bytes(const std::vector<std::size_t>& ranks) const {
    const ple::RowLayout layout = ple::packed_layout(dtypes, width, ranks);
    return rows * layout.row_bytes() + std::uint64_t{layout.sum_of_ranks()} * width * sizeof(float);
  }

  /// Ranks of little squared error that take at most `most` bytes. Every depth starts with one block; then that block
  /// of eigenvalues is added, of all depths, which holds the most energy for its bytes. As eigenvalues descend, this is
  /// the least error, but for the last steps, where blocks do not fit or a depth becomes full. smallest(), if not even
  /// that fits.
  std::vector<std::size_t> for_bytes(std::uint64_t most) const {
    std::vector<std::size_t> ranks = smallest();
    std::vector<bool> done(ranks.size());
    for (;;) {
      std::size_t best = ranks.size();
      double best_price = 0;
      for (std::size_t l = 0; l < ranks.size(); ++l) {
        if (done[l] || ranks[l] == 0) continue;
        const std::size_t more = worthwhile(l, ranks[l] + 1);
        const auto from = eigenvalues[l].begin();
        const double energy = std::accumulate(from + static_cast<std::ptrdiff_t>(ranks[l]),
                                              from + static_cast<std::ptrdiff_t>(more > 0 ? more : width), 0.0);
        const double price = energy / static_cast<double>(bytes_of(l, more) - bytes_of(l, ranks[l]));
        if (best == ranks.size() || price > best_price) best = l, best_price = price;
      }
      if (best == ranks.size()) return ranks;
      const std::size_t before = ranks[best];
      ranks[best] = worthwhile(best, before + 1);
      if (bytes(ranks) <= most) continue;
      ranks[best] = before;
      done[best] = true;
    }
  }

 private:
  /// Of one depth that is not pruned: its part of all rows, and its basis.
  std::uint64_t bytes_of(std::size_t depth, std::size_t rank) const {
    return rows * ple::bytes_of(*dtypes[depth], rank > 0 ? rank : width) + std::uint64_t{rank} * width * sizeof(float);
  }
};

}  // namespace examples
