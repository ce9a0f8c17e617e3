// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace ple::testing {

/// How often this program has allocated memory with operator new.
std::size_t allocations();

}  // namespace ple::testing
