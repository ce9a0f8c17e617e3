// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace ple {

/// A row of the vocabulary.
using Token = std::int32_t;

}  // namespace ple
