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

#include "ple/core/error.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace ple {

/// A borrowed callable: two pointers, no allocation.
class TaskRef {
 public:
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, TaskRef>)
      TaskRef(F& f)  // NOLINT(google-explicit-constructor): converts as std::function does
      : object_(&f), call_([](void* object, std::size_t i) { (*static_cast<F*>(object))(i); }) {}
  void operator()(std::size_t i) const { call_(object_, i); }

 private:
  void* object_;
  void (*call_)(void*, std::size_t);
};

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

/// A fixed set of threads; the caller is one of them. Tasks are claimed one at a time, so a thread that loses its core
/// delays one task, not all. Several callers may share a pool: they take turns.
class ThreadPool final : public Executor {
 public:
  /// `threads` counts the calling thread; 0 means one for every hardware thread.
  /// Errors: ErrorCode::argument; ErrorCode::system if the system starts no more.
  explicit ThreadPool(std::size_t threads = 0) {
    if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
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
    task_ = &task;
    count_ = count;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(workers_.size(), std::memory_order_relaxed);
    {
      const std::lock_guard lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    claim();
    while (busy_.load(std::memory_order_acquire) != 0) pause();
  }

 private:
  static constexpr std::size_t max_threads = 1024;
  static constexpr int spins = 4000;  // about 50 microseconds: longer than the gap between two layers' products

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#else
    std::this_thread::yield();
#endif
  }

  void claim() {
    for (std::size_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) (*task_)(i);
  }

  void work() {
    std::uint64_t seen = 0;
    while (true) {
      for (int i = 0; i < spins && generation_.load(std::memory_order_acquire) == seen; ++i) pause();
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      claim();
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  void stop() {
    stopping_.store(true, std::memory_order_release);
    {
      const std::lock_guard lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
  }

  std::vector<std::thread> workers_;
  std::mutex turn_;   // held by the caller whose tasks run
  std::mutex mutex_;  // guards the sleep on wake_
  std::condition_variable wake_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<std::size_t> next_{0}, busy_{0};
  std::atomic<bool> stopping_{false};
  const TaskRef* task_ = nullptr;
  std::size_t count_ = 0;
};

/// Splits [0, n) into contiguous ranges whose size is a multiple of `grain` (but for the last) and calls f(begin, end,
/// part) for each, with part < parts(executor). What f computes for one index must not depend on the range it is in.
template <class F>
void parallel_for(Executor& executor, std::size_t n, std::size_t grain, F&& f);

/// The most ranges parallel_for makes: a few for each thread, so that uneven loads even out.
inline std::size_t parts(const Executor& executor) {
  return executor.concurrency() == 1 ? 1 : 4 * executor.concurrency();
}

template <class F>
void parallel_for(Executor& executor, std::size_t n, std::size_t grain, F&& f) {
  const std::size_t grains = (n + grain - 1) / grain, ranges = std::min(parts(executor), grains);
  if (ranges <= 1) {
    if (n > 0) f(std::size_t{0}, n, std::size_t{0});
    return;
  }
  // Later ranges are smaller, 15, 13, ... 3, 1 of 64: whoever takes the last one is not waited for long.
  const auto begin = [&](std::size_t i) {
    const std::size_t left = ranges - i;
    return std::min(n, (grains - grains * left / ranges * left / ranges) * grain);
  };
  auto task = [&](std::size_t i) {
    if (begin(i) < begin(i + 1)) f(begin(i), begin(i + 1), i);
  };
  executor.run(ranges, task);
}

}  // namespace ple
