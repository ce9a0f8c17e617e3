// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// A row of the vocabulary.
using Token = std::int32_t;

/// Stands where a position is no text but, say, part of an image: its embedding comes from elsewhere.
inline constexpr Token soft_token = -1;

}  // namespace ple::inline PLE_ABI
