// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "ple/core/config.h"
#include "ple/core/function_ref.h"

namespace ple::inline PLE_ABI {

using TaskRef = FunctionRef<void(std::size_t i)>;

/// Runs tasks 0 to count - 1 in any order, perhaps at once, and returns when all are done. ple's tasks do not throw. If
/// another does, tasks not yet begun may be skipped; run() rethrows the first exception once the begun ones are done.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual std::size_t concurrency() const = 0;
  virtual void run(std::size_t count, TaskRef task) = 0;
};

/// Runs everything on the calling thread.
class InlineExecutor final : public Executor {
 public:
  std::size_t concurrency() const override { return 1; }
  void run(std::size_t count, TaskRef task) override {
    for (std::size_t i = 0; i < count; ++i) task(i);
  }
};

/// The most tasks parallel_for makes: a few per thread, which evens out unequal loads.
inline std::size_t tasks(const Executor& executor) {
  return executor.concurrency() == 1 ? 1 : 4 * executor.concurrency();
}

/// The same for short work: each task costs the time that cores need to agree on who takes it.
inline std::size_t few_tasks(const Executor& executor) {
  return executor.concurrency() == 1 ? 1 : 2 * executor.concurrency();
}

/// Old names; go with the next version.
inline std::size_t parts(const Executor& executor) { return tasks(executor); }
inline std::size_t few_parts(const Executor& executor) { return few_tasks(executor); }

}  // namespace ple::inline PLE_ABI
