// SPDX-License-Identifier: Apache-2.0
// Who runs the parts of a computation. Nothing here is global: a caller makes an executor and passes it on.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/function_ref.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace ple {
inline namespace PLE_ABI {

using TaskRef = FunctionRef<void(std::size_t i)>;

/// A range [begin, end) of something, and which of the ranges it is.
using RangeRef = FunctionRef<void(std::size_t begin, std::size_t end, std::size_t part)>;

/// Runs tasks 0..count-1 in any order, perhaps at once, and returns when all are done. Tasks must not throw.
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

/// A fixed set of threads; the caller is one of them. Tasks are claimed one at a time, and the caller waits for tasks,
/// not for threads: one that loses its core delays the task it has begun, one that gets none delays nothing. Several
/// callers may share a pool: they take turns.
class ThreadPool final : public Executor {
 public:
  /// `threads` counts the calling thread; 0 means one for every hardware thread.
  /// Errors: ErrorCode::argument; ErrorCode::system if the system starts no more.
  explicit ThreadPool(std::size_t threads = 0) {
    if (threads == 0) threads = (std::max)(1u, std::thread::hardware_concurrency());
    if (threads > max_threads)
      fail(ErrorCode::argument, "ThreadPool: ", threads, " threads asked for, at most ", max_threads);
    try {
      for (std::size_t i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      const std::size_t started = workers_.size();
      stop();
      fail(ErrorCode::system, "ThreadPool: ", started + 1, " threads run, of ", threads, ": ", error.what());
    } catch (...) {
      stop();
      throw;
    }
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() override { stop(); }

  std::size_t concurrency() const override { return workers_.size() + 1; }

  void run(std::size_t count, TaskRef task) override {
    if (workers_.empty() || count <= 1) {
      for (std::size_t i = 0; i < count; ++i) task(i);
      return;
    }
    const std::lock_guard turn(turn_);
    for (std::size_t begin = 0; begin < count; begin += most_tasks) {
      auto shifted = [&](std::size_t i) { task(begin + i); };
      run_job(std::min<std::uint64_t>(count - begin, most_tasks), begin == 0 ? task : TaskRef(shifted));
    }
  }

 private:
  static constexpr std::size_t max_threads = 1024;
  static constexpr std::uint64_t most_tasks = 0xffff;
  static constexpr int spins = 4000;  // about 50 microseconds: longer than the gap between two layers' products

  /// The i-th time in a row. After some, whoever is waited for may need this core.
  static void wait_a_little([[maybe_unused]] int i) {
#if defined(__x86_64__) || defined(__i386__)
    if (i < spins) return _mm_pause();
#endif
    std::this_thread::yield();
  }

  /// A job's number (32 bits), its tasks (16), and the next of them that nobody has (16), all of which change at once.
  static std::uint64_t first_ticket(std::uint64_t last, std::uint64_t tasks) {
    return ((last >> 32) + 1) << 32 | tasks << 16;
  }
  static std::uint64_t next_task(std::uint64_t ticket) { return ticket & most_tasks; }
  static bool has_tasks(std::uint64_t ticket) { return next_task(ticket) < (ticket >> 16 & most_tasks); }

  void run_job(std::uint64_t count, const TaskRef& task) {
    done_.store(0, std::memory_order_relaxed);
    task_.store(&task, std::memory_order_relaxed);
    ticket_.store(first_ticket(ticket_.load(std::memory_order_relaxed), count));
    if (sleeping_.load() > 0) {
      { const std::lock_guard lock(mutex_); }  // whoever counted is asleep by now, or has seen the new ticket
      wake_.notify_all();
    }
    const std::size_t mine = work_on_tasks();
    for (int i = 0; done_.load(std::memory_order_acquire) != count - mine; ++i) wait_a_little(i);
  }

  /// Claims tasks while there are any, and runs them. Returns how many.
  std::size_t work_on_tasks() {
    std::size_t ran = 0;
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (has_tasks(ticket)) {
      const TaskRef* task = task_.load(std::memory_order_relaxed);
      // Succeeds only while the ticket is the same, and so the task: a job ends when all its tasks were claimed and
      // ran.
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire))
        continue;
      (*task)(next_task(ticket));
      ++ran;
      ticket = ticket_.load(std::memory_order_acquire);
    }
    return ran;
  }

  void work() {
    const auto wanted = [&] { return stopping_.load() || has_tasks(ticket_.load()); };
    while (true) {
      for (int i = 0; i < spins && !wanted(); ++i) wait_a_little(i);
      if (!wanted()) {
        std::unique_lock lock(mutex_);
        sleeping_.fetch_add(1);
        wake_.wait(lock, wanted);
        sleeping_.fetch_sub(1);
      }
      if (stopping_.load()) return;
      if (const std::size_t ran = work_on_tasks(); ran > 0) done_.fetch_add(ran, std::memory_order_release);
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_.store(true);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
  }

  // In cache lines of their own: what waits for one value is not held up by changes of another.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  std::atomic<const TaskRef*> task_{nullptr};
  alignas(64) std::atomic<std::size_t> done_{0};  // tasks that workers ran, once they have found no more
  alignas(64) std::vector<std::thread> workers_;
  std::mutex turn_;   // held by the caller whose tasks run
  std::mutex mutex_;  // guards the sleep on wake_
  std::condition_variable wake_;
  std::atomic<std::size_t> sleeping_{0};
  std::atomic<bool> stopping_{false};
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

}  // namespace PLE_ABI
}  // namespace ple
