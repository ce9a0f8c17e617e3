// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"

namespace ple::inline PLE_ABI {

/// One or more texts, one after another, that do not see each other.
struct TrainingSequence {
  std::span<const Token> tokens;
  std::span<const std::uint8_t> learnt;      ///< of each token: 1 if it counts. A text's first token never does
  std::span<const std::size_t> begins = {};  ///< where the texts begin, ascending, the first at 0; empty: one text

  /// Calls f(t) for tokens that count.
  template <class F>
  void for_each_learnt(F&& f) const {
    std::size_t text = 0;
    for (std::size_t t = 1; t < tokens.size(); ++t) {
      while (text + 1 < begins.size() && begins[text + 1] <= t) ++text;
      const bool is_first = !begins.empty() && begins[text] == t;
      if (learnt[t] != 0 && !is_first) f(t);
    }
  }
  std::size_t learnt_count() const {
    std::size_t count = 0;
    for_each_learnt([&](std::size_t) { ++count; });
    return count;
  }

  /// Errors: ErrorCode::argument for more tokens than max_tokens, or parts that do not fit together.
  void check(std::size_t max_tokens) const {
    const auto refuse = [](const auto&... why) { fail(ErrorCode::argument, "training: ", why...); };
    if (tokens.size() > max_tokens) refuse("a sequence of ", tokens.size(), " tokens, at most ", max_tokens);
    if (learnt.size() != tokens.size()) refuse(learnt.size(), " marks for ", tokens.size(), " tokens");
    for (std::size_t i = 0; i < begins.size(); ++i) {
      const std::size_t least = i == 0 ? 0 : begins[i - 1] + 1;
      if (begins[i] < least || begins[i] >= tokens.size() || (i == 0 && begins[i] != 0)) {
        refuse("text ", i, " begins at ", begins[i], " of ", tokens.size(), " tokens");
      }
    }
  }
};

}  // namespace ple::inline PLE_ABI
