// SPDX-License-Identifier: Apache-2.0
// Splits work into ranges for a context's threads, where that is worthwhile.
#pragma once

#include <algorithm>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/core/context.h"

namespace ple::inline PLE_ABI {

/// Work of fewer multiplications is not worth waking a thread.
inline constexpr std::size_t parallel_threshold = 32768;

/// Nor are fewer bytes of weights: one core reads them before two agree on a split. Below the second, few tasks pay.
inline constexpr std::size_t parallel_bytes = std::size_t{256} << 10, many_tasks_bytes = std::size_t{4} << 20;

/// A range [begin, end) of something, and its number.
using RangeRef = FunctionRef<void(std::size_t begin, std::size_t end, std::size_t task)>;

/// Splits [0, n) into at most `most` contiguous ranges, each a multiple of `grain` except the last, and calls f(begin,
/// end, task) for each, with task < most. What f computes for an index must not depend on the range.
inline void parallel_for(const Context& context, std::size_t n, std::size_t grain, std::size_t most, RangeRef f) {
  const std::size_t grains = (n + grain - 1) / grain, ranges = (std::min)(most, grains);
  if (ranges <= 1) {
    if (n > 0) f(0, n, 0);
    return;
  }
  // Later ranges are smaller (15, 13, ... 3, 1 of 64), so that nobody waits long for the last one.
  const auto begin = [&](std::size_t i) {
    const std::size_t left = ranges - i;
    return (std::min)(n, (grains - grains * left / ranges * left / ranges) * grain);
  };
  auto task = [&](std::size_t i) {
    if (begin(i) < begin(i + 1)) f(begin(i), begin(i + 1), i);
  };
  context.threads.run(ranges, task);
}

inline void parallel_for(const Context& context, std::size_t n, std::size_t grain, RangeRef f) {
  parallel_for(context, n, grain, tasks(context.threads), f);
}

/// Calls f(row) for every row, in parallel if `cost`, the operations per row, makes it worthwhile.
inline void for_each_row(const Context& context, std::size_t rows, std::size_t cost, TaskRef f) {
  const auto some = [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t r = begin; r < end; ++r) f(r);
  };
  if (rows * cost < parallel_threshold) {
    some(0, rows, 0);
  } else {
    parallel_for(context, rows, 1, some);
  }
}

}  // namespace ple::inline PLE_ABI
