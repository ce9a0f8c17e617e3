// SPDX-License-Identifier: Apache-2.0
// SentencePiece's BPE has no merges, but a score for each piece: of all neighbours that form a piece, those with the
// highest score merge first. That equals a BPE whose merges are all ways to cut a piece in two.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/token.h"
#include "ple/text/bpe.h"
#include "ple/text/utf8.h"

namespace ple::inline PLE_ABI {

/// Adds the merges that follow from pieces and scores (by id; no NaN). Text never becomes a piece whose `from_text` is
/// false. A character that is not a piece merges with nothing.
inline void add_scored_merges(Bpe& bpe, std::span<const float> scores, const std::vector<bool>& from_text) {
  const Vocabulary& vocabulary = bpe.vocabulary();
  // Equal scores share a rank, so that the leftmost of them merges first.
  std::vector<float> order(scores.begin(), scores.end());
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  const auto known = [&](std::string_view part) -> std::optional<Token> {
    const auto id = vocabulary.find(part);
    return id && from_text[static_cast<std::size_t>(*id)] ? id : std::nullopt;
  };
  for (std::size_t row = 0; row < scores.size(); ++row) {
    const auto id = static_cast<Token>(row);
    const auto piece = vocabulary.piece(id);
    if (!piece || !from_text[row]) continue;
    const auto place = std::lower_bound(order.begin(), order.end(), scores[row], std::greater<>());
    const auto rank = static_cast<std::uint32_t>(place - order.begin());
    for (std::size_t cut = utf8_length(*piece); cut > 0 && cut < piece->size();) {
      const auto left = known(piece->substr(0, cut)), right = left ? known(piece->substr(cut)) : std::nullopt;
      if (left && right) bpe.add_merge(*left, *right, id, rank);
      const std::size_t next = utf8_length(piece->substr(cut));
      cut = next == 0 ? 0 : cut + next;
    }
  }
}

}  // namespace ple::inline PLE_ABI
