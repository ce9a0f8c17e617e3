// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/token.h"

namespace ple::inline PLE_ABI {

/// A text to learn from. Token i is predicted from those before it, and counts for the loss if learnt[i] != 0. The
/// first has none before it and never counts.
struct TrainingText {
  std::vector<Token> tokens = {};
  std::vector<std::uint8_t> learnt = {};  ///< one for each token

  /// Tokens that count.
  std::size_t learnt_count() const {
    std::size_t count = 0;
    for (std::size_t i = 1; i < learnt.size(); ++i) count += learnt[i] != 0 ? 1 : 0;
    return count;
  }
};

}  // namespace ple::inline PLE_ABI
