// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace ple::testing {

/// The `n`-th thread that this one starts from now on, and all after it, cannot be started; 0: all can.
void fail_threads(std::size_t n);

}  // namespace ple::testing
