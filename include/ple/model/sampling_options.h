// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"

namespace ple {
inline namespace PLE_ABI {

/// How the next token is drawn, with the meaning these words have in Hugging Face's transformers. The steps apply in
/// this order: repetition penalty, temperature, top-k, top-p, min-p.
struct SamplingOptions {
  float temperature = 0;         ///< logits are divided by it; 0 takes the likeliest token
  std::size_t top_k = 0;         ///< keep the k likeliest; 0: all
  float top_p = 1;               ///< keep the likeliest that together reach this probability
  float min_p = 0;               ///< keep those with at least this share of the likeliest one's probability
  float repetition_penalty = 1;  ///< logits of tokens seen before are divided by it where positive, else multiplied
  std::uint64_t seed = 0;        ///< the same seed draws the same tokens from the same logits
};

}  // namespace PLE_ABI
}  // namespace ple
