// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace ple::testing {

/// How often this program has allocated memory with operator new.
std::size_t allocations();

/// And how many bytes.
std::size_t allocated_bytes();

/// Pieces of memory from operator new that were not given back yet.
std::size_t live_allocations();

/// The `n`-th allocation of this thread from now on fails, counted from 1; 0: none does.
void fail_allocation(std::size_t n);

/// Whether it came to that. Ends what fail_allocation began.
bool allocation_failed();

}  // namespace ple::testing
