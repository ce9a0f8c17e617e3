// SPDX-License-Identifier: Apache-2.0
// Who runs the parts of a computation. Nothing here is global: a caller makes an executor and passes it on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/function_ref.h"

namespace ple::inline PLE_ABI {

using TaskRef = FunctionRef<void(std::size_t i)>;

/// A range [begin, end) of something, and which of the ranges it is.
using RangeRef = FunctionRef<void(std::size_t begin, std::size_t end, std::size_t part)>;

/// Runs tasks 0..count-1 in any order, perhaps at once, and returns when all are done. Should one throw, tasks that
/// have not begun may be left out, and the first exception comes out of run() once those that have begun are done.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual std::size_t concurrency() const = 0;
  virtual void run(std::size_t count, TaskRef task) = 0;

  /// Memory for what a computation needs on its way, the same for every call: only one caller at a time may use it.
  /// Aligned to a cache line; empty where there is none. A model's state brings its own.
  virtual std::span<std::byte> scratch() { return {}; }
};

/// Everything on the calling thread.
class InlineExecutor final : public Executor {
 public:
  std::size_t concurrency() const override { return 1; }
  void run(std::size_t count, TaskRef task) override {
    for (std::size_t i = 0; i < count; ++i) task(i);
  }
};

/// The most ranges parallel_for makes: a few for each thread, so that uneven loads even out.
inline std::size_t parts(const Executor& executor) {
  return executor.concurrency() == 1 ? 1 : 4 * executor.concurrency();
}

/// As many of them as short work is worth: each costs the time in which cores tell each other who takes it.
inline std::size_t few_parts(const Executor& executor) {
  return executor.concurrency() == 1 ? 1 : 2 * executor.concurrency();
}

/// Splits [0, n) into at most `most` contiguous ranges, whose size is a multiple of `grain` (but for the last), and
/// calls f(begin, end, part) for each, with part < most. What f computes for one index must not depend on the range it
/// is in.
inline void parallel_for(Executor& executor, std::size_t n, std::size_t grain, std::size_t most, RangeRef f) {
  const std::size_t grains = (n + grain - 1) / grain, ranges = (std::min)(most, grains);
  if (ranges <= 1) {
    if (n > 0) f(0, n, 0);
    return;
  }
  // Later ranges are smaller, 15, 13, ... 3, 1 of 64: whoever takes the last one is not waited for long.
  const auto begin = [&](std::size_t i) {
    const std::size_t left = ranges - i;
    return (std::min)(n, (grains - grains * left / ranges * left / ranges) * grain);
  };
  auto task = [&](std::size_t i) {
    if (begin(i) < begin(i + 1)) f(begin(i), begin(i + 1), i);
  };
  executor.run(ranges, task);
}

inline void parallel_for(Executor& executor, std::size_t n, std::size_t grain, RangeRef f) {
  parallel_for(executor, n, grain, parts(executor), f);
}

}  // namespace ple::inline PLE_ABI
