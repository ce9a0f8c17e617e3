// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

using Token = std::int32_t;  ///< a row number in the vocabulary

/// A position without text, such as part of an image: its embedding comes from elsewhere.
inline constexpr Token soft_token = -1;

}  // namespace ple::inline PLE_ABI
