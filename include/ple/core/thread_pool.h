// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/fork_guard.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace ple::inline PLE_ABI {

namespace detail {

/// A pool's threads, in the process that started them.
class Workers {
 public:
  Workers(std::size_t count, const ForkGuard& guard) : guard_(guard) {
    try {
      for (std::size_t i = 0; i < count; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      const std::size_t started = threads_.size();
      stop();
      fail(ErrorCode::system, "ThreadPool: only ", started + 1, " of ", count + 1, " threads run: ", error.what());
    } catch (...) {
      stop();
      throw;
    }
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  ~Workers() { stop(); }

  void run(std::size_t count, TaskRef task) {
    const std::thread::id me = std::this_thread::get_id();
    if (holder_.load(std::memory_order_relaxed) == me) return run_here(count, task);
    std::unique_lock turn(turn_, std::try_to_lock);
    if (!turn.owns_lock()) {
      // One of our threads already runs a task for the caller that has the turn and waits for it.
      const auto is_me = [me](const std::thread& thread) { return thread.get_id() == me; };
      if (std::any_of(threads_.begin(), threads_.end(), is_me)) return run_here(count, task);
      turn.lock();
    }
    const Holder holder(holder_, me);
    for (std::size_t begin = 0; begin < count; begin += most_tasks) {
      auto shifted = [&](std::size_t i) { task(begin + i); };
      run_job(std::min<std::uint64_t>(count - begin, most_tasks), begin == 0 ? task : TaskRef(shifted));
    }
  }

 private:
  static constexpr std::uint64_t most_tasks = 0xffff;
  static constexpr int spins = 4000;  // about 50 microseconds: longer than the gap between two layers' products

  /// Records who has the turn.
  struct Holder {
    std::atomic<std::thread::id>& id;
    Holder(std::atomic<std::thread::id>& holder, std::thread::id me) : id(holder) {
      id.store(me, std::memory_order_relaxed);
    }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;
    ~Holder() { id.store({}, std::memory_order_relaxed); }
  };

  static void run_here(std::size_t count, TaskRef task) {
    for (std::size_t i = 0; i < count; ++i) task(i);
  }

  /// Waits for the i-th time in a row; after `spins`, yields: the awaited thread may need this core.
  static void wait_a_little([[maybe_unused]] int i) {
#if defined(__x86_64__) || defined(__i386__)
    if (i < spins) return _mm_pause();
#endif
    std::this_thread::yield();
  }

  /// A ticket changes as a whole: the job's number (32 bits), its task count (16) and the next unclaimed task (16).
  static std::uint64_t first_ticket(std::uint64_t last, std::uint64_t tasks) {
    return ((last >> 32) + 1) << 32 | tasks << 16;
  }
  static std::uint64_t next_task(std::uint64_t ticket) { return ticket & most_tasks; }
  static bool has_tasks(std::uint64_t ticket) { return next_task(ticket) < (ticket >> 16 & most_tasks); }

  void run_job(std::uint64_t count, const TaskRef& task) {
    done_.store(0, std::memory_order_relaxed);
    failed_.store(false, std::memory_order_relaxed);
    task_.store(&task, std::memory_order_relaxed);
    ticket_.store(first_ticket(ticket_.load(std::memory_order_relaxed), count));
    if (sleeping_.load() > 0) {
      { const std::lock_guard lock(mutex_); }  // each that counted itself now sleeps, or has seen the ticket
      wake_.notify_all();
    }
    const std::size_t mine = work_on_tasks();
    for (int i = 0; done_.load(std::memory_order_acquire) != count - mine; i = (std::min)(i + 1, spins)) {
      if (i == spins && !guard_.same_process())
        fail(ErrorCode::system, "ThreadPool: a task called fork(), and this process lacks the pool's other threads");
      wait_a_little(i);
    }
    if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  /// Claims tasks until none is left and runs them; skips them once one has thrown. Returns how many it claimed.
  std::size_t work_on_tasks() {
    std::size_t ran = 0;
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (has_tasks(ticket)) {
      const TaskRef* task = task_.load(std::memory_order_relaxed);
      // Succeeds only if the ticket, and so the task, is unchanged: a job ends once all its tasks were claimed and ran.
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire))
        continue;
      try {
        if (!failed_.load(std::memory_order_relaxed)) (*task)(next_task(ticket));
      } catch (...) {
        if (!failed_.exchange(true)) error_ = std::current_exception();
      }
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
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

  alignas(64) std::atomic<std::uint64_t> ticket_{0};  // alignas(64): writes to one do not slow waiting for another
  std::atomic<const TaskRef*> task_{nullptr};
  std::atomic<bool> failed_{false};               // a task has thrown
  alignas(64) std::atomic<std::size_t> done_{0};  // tasks that workers ran, added when they find no more
  std::exception_ptr error_;                      // of the first task that threw; read when all tasks are done
  alignas(64) const ForkGuard& guard_;
  std::vector<std::thread> threads_;
  std::mutex turn_;  // held by the caller whose tasks run
  std::atomic<std::thread::id> holder_{};
  std::mutex mutex_;  // guards the sleep on wake_
  std::condition_variable wake_;
  std::atomic<std::size_t> sleeping_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace detail

/// A fixed set of threads, the caller's included. Tasks are claimed one at a time, and the caller waits for tasks, not
/// for threads: a thread that loses its core delays only its current task, and one without a core delays nothing.
/// Several callers may share a pool: they take turns. A task that calls run() of its own pool runs it on its own thread
/// alone. After fork(), the child's pool starts new threads when it is used; a task must not fork.
class ThreadPool final : public Executor {
 public:
  /// `threads` includes the caller; 0: one per hardware thread. Errors: ErrorCode::argument; ErrorCode::system if the
  /// system starts no more threads, also in run() after fork().
  explicit ThreadPool(std::size_t threads = 0) : threads_(threads) {
    if (threads_ == 0) threads_ = (std::max)(1u, std::thread::hardware_concurrency());
    if (threads_ > max_threads)
      fail(ErrorCode::argument, "ThreadPool: ", threads_, " threads asked for, expected at most ", max_threads);
    start();
  }
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool() override {
    if (!guard_.same_process()) abandon();
  }

  std::size_t concurrency() const override { return threads_; }

  void run(std::size_t count, TaskRef task) override {
    if (threads_ == 1 || count <= 1) {
      for (std::size_t i = 0; i < count; ++i) task(i);
      return;
    }
    if (!guard_.same_process()) guard_.renew([this] { start(); });
    workers_->run(count, task);
  }

 private:
  static constexpr std::size_t max_threads = 1024;

  void start() {
    if (threads_ == 1) return;
    auto workers = std::make_unique<detail::Workers>(threads_ - 1, guard_);
    abandon();
    workers_ = std::move(workers);
  }

  /// In a child process the threads cannot be joined and locks may be held: leak them.
  void abandon() { static_cast<void>(workers_.release()); }

  std::size_t threads_;
  ForkGuard guard_;
  std::unique_ptr<detail::Workers> workers_;
};

}  // namespace ple::inline PLE_ABI
