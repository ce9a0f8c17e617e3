// SPDX-License-Identifier: Apache-2.0
// Short texts side by side in one sequence, so that a step learns from as many tokens as it has room for.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/train/training_text.h"

namespace ple::inline PLE_ABI {

/// Texts one after another. A text must not see those before it: its positions begin at 0, and it attends to itself
/// only.
struct PackedTexts {
  std::vector<Token> tokens = {};
  std::vector<std::uint8_t> learnt = {};  ///< one for each token; 0 for the first of each text
  std::vector<std::size_t> begins = {};   ///< the tokens at which the texts begin; the first is 0

  /// Tokens that count.
  std::size_t learnt_count() const {
    std::size_t count = 0;
    for (const std::uint8_t each : learnt) count += each != 0 ? 1 : 0;
    return count;
  }
};

/// Packs texts into sequences of at most `max_length` tokens, by best-fit decreasing: a text goes, longest first, where
/// it leaves the least room. In a sequence the texts keep their order, and the sequences that of their first texts.
/// Empty texts are left out. Errors: ErrorCode::argument for a longer text, or one with more or fewer `learnt` than
/// tokens.
inline std::vector<PackedTexts> pack_texts(std::span<const TrainingText> texts, std::size_t max_length) {
  std::vector<std::size_t> by_length(texts.size());
  std::iota(by_length.begin(), by_length.end(), std::size_t{0});
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::size_t tokens = texts[i].tokens.size();
    if (tokens > max_length)
      fail(ErrorCode::argument, "pack_texts: text ", i, " has ", tokens, " tokens, expected at most ", max_length);
    if (texts[i].learnt.size() != tokens) {
      fail(ErrorCode::argument, "pack_texts: text ", i, " has ", tokens, " tokens, but ", texts[i].learnt.size(),
           " values of `learnt`");
    }
  }
  std::stable_sort(by_length.begin(), by_length.end(),
                   [&](std::size_t a, std::size_t b) { return texts[a].tokens.size() > texts[b].tokens.size(); });

  std::vector<std::vector<std::size_t>> packs;        // the texts of each
  std::multimap<std::size_t, std::size_t> with_room;  // tokens that are free -> pack; equal ones in order of insertion
  for (const std::size_t i : by_length) {
    const std::size_t tokens = texts[i].tokens.size();
    if (tokens == 0) continue;
    std::size_t pack = packs.size(), room = max_length;
    const auto best = with_room.lower_bound(tokens);
    if (best != with_room.end()) {
      room = best->first;
      pack = best->second;
      with_room.erase(best);
    } else {
      packs.emplace_back();
    }
    packs[pack].push_back(i);
    if (room > tokens) with_room.emplace(room - tokens, pack);
  }

  for (std::vector<std::size_t>& pack : packs) std::sort(pack.begin(), pack.end());
  std::sort(packs.begin(), packs.end());
  std::vector<PackedTexts> packed;
  packed.reserve(packs.size());
  for (const std::vector<std::size_t>& pack : packs) {
    PackedTexts& sequence = packed.emplace_back();
    for (const std::size_t i : pack) {
      sequence.begins.push_back(sequence.tokens.size());
      sequence.tokens.insert(sequence.tokens.end(), texts[i].tokens.begin(), texts[i].tokens.end());
      sequence.learnt.insert(sequence.learnt.end(), texts[i].learnt.begin(), texts[i].learnt.end());
      sequence.learnt[sequence.begins.back()] = 0;
    }
  }
  return packed;
}

}  // namespace ple::inline PLE_ABI
