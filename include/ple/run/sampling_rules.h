// SPDX-License-Identifier: Apache-2.0
// Rules that change logits before a token is drawn, a function each. Forbidden tokens get -infinity.
// Source: the logits processors of Hugging Face's transformers, whose results these give bit for bit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"

namespace ple::inline PLE_ABI {

namespace detail {

inline float& score_of(std::span<float> scores, Token token, const char* where) {
  const auto i = static_cast<std::size_t>(token);
  if (token < 0 || i >= scores.size())
    fail(ErrorCode::argument, "Sampler: token ", token, " in ", where, ", expected 0 to ", scores.size() - 1);
  return scores[i];
}

constexpr float forbidden = -std::numeric_limits<float>::infinity();

}  // namespace detail

/// Makes each token of `history` less likely, once: divides positive logits by `penalty`, multiplies others. Skips soft
/// tokens. scores: [vocab_size], a copy of `logits`. Errors: ErrorCode::argument for a token outside the vocabulary.
inline void penalize_repetition(std::span<const float> logits, std::span<const Token> history, float penalty,
                                std::span<float> scores) {
  for (const Token token : history) {
    if (token == soft_token) continue;
    float& score = detail::score_of(scores, token, "the history");
    const float logit = logits[static_cast<std::size_t>(token)];
    score = logit > 0 ? logit / penalty : logit * penalty;
  }
}

/// Forbids each token that would complete `size` tokens in a row that `history` has already. scores: [vocab_size].
/// Errors: ErrorCode::argument for a token outside the vocabulary.
inline void forbid_repeated_ngrams(std::span<const Token> history, std::size_t size, std::span<float> scores) {
  if (size == 0 || history.size() < size) return;
  const auto end = history.last(size - 1);
  for (std::size_t i = 0; i + size <= history.size(); ++i) {
    const Token last = history[i + size - 1];
    if (last == soft_token || !std::equal(end.begin(), end.end(), history.begin() + static_cast<std::ptrdiff_t>(i)))
      continue;
    detail::score_of(scores, last, "the history") = detail::forbidden;
  }
}

/// Forbids tokens. scores: [vocab_size]. Errors: ErrorCode::argument for a token outside the vocabulary.
inline void suppress_tokens(std::span<const Token> tokens, std::span<float> scores) {
  for (const Token token : tokens)
    detail::score_of(scores, token, "SamplingOptions::suppress_tokens") = detail::forbidden;
}

}  // namespace ple::inline PLE_ABI
