// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/token.h"

namespace ple::inline PLE_ABI {

/// How the next token is drawn. Names mean what they mean in Hugging Face's transformers. Order: repetition penalty,
/// n-grams, suppressed tokens, temperature, top-k, top-p, min-p. The first three apply at temperature 0, too.
struct SamplingOptions {
  float temperature = 0;         ///< logits are divided by it; 0 takes the likeliest token
  std::size_t top_k = 0;         ///< keep the k likeliest; 0: all
  float top_p = 1;               ///< keep the likeliest that together reach this probability; 0: the likeliest one
  float min_p = 0;               ///< keep those with at least this share of the likeliest one's probability
  float repetition_penalty = 1;  ///< divides positive logits of tokens seen before, multiplies their other logits
  std::uint64_t seed = 0;        ///< the same seed draws the same tokens from the same logits
  std::size_t no_repeat_ngram_size = 0;     ///< no run of this many tokens comes twice; 0: off
  std::vector<Token> suppress_tokens = {};  ///< never drawn
};

}  // namespace ple::inline PLE_ABI
