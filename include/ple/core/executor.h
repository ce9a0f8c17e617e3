// SPDX-License-Identifier: Apache-2.0
// Who runs the tasks of a computation.
#pragma once

#include <cstddef>

#include "ple/core/config.h"
#include "ple/core/function_ref.h"

namespace ple::inline PLE_ABI {

using TaskRef = FunctionRef<void(std::size_t i)>;

/// Runs tasks 0..count-1 in any order, perhaps at once, and returns when all are done. Tasks of ple do not throw: what
/// can fail is checked before. Should another's throw, tasks that have not begun may be left out, and the first
/// exception comes out of run() once those that have begun are done.
class Executor {
 public:
  virtual ~Executor() = default;
  virtual std::size_t concurrency() const = 0;
  virtual void run(std::size_t count, TaskRef task) = 0;
};

/// Everything on the calling thread.
class InlineExecutor final : public Executor {
 public:
  std::size_t concurrency() const override { return 1; }
  void run(std::size_t count, TaskRef task) override {
    for (std::size_t i = 0; i < count; ++i) task(i);
  }
};

/// The most tasks parallel_for makes: a few for each thread, so that uneven loads even out.
inline std::size_t tasks(const Executor& executor) {
  return executor.concurrency() == 1 ? 1 : 4 * executor.concurrency();
}

/// As many of them as short work is worth: each costs the time in which cores tell each other who takes it.
inline std::size_t few_tasks(const Executor& executor) {
  return executor.concurrency() == 1 ? 1 : 2 * executor.concurrency();
}

/// Old names; go with the next version.
inline std::size_t parts(const Executor& executor) { return tasks(executor); }
inline std::size_t few_parts(const Executor& executor) { return few_tasks(executor); }

}  // namespace ple::inline PLE_ABI
