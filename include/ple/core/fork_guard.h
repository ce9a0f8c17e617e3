// SPDX-License-Identifier: Apache-2.0
// fork() copies a process, but only the calling thread. In the child, the other threads' work never ends, their locks
// stay locked, and the kernel's work for the parent is done for the parent alone.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>

#include "ple/core/config.h"
#include "ple/core/os.h"

namespace ple::inline PLE_ABI {

/// Tells the owner of threads or of a kernel queue that it is in a child process and must make them anew. Nothing runs
/// at fork(). Asking costs a load, or a system call where there are no pages that fork() wipes.
class ForkGuard {
 public:
  ForkGuard() : page_(os::map_wiped_page()) {
    static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
    if (page_ != nullptr) word_ = ::new (page_) std::atomic<std::uint64_t>(0);
    word_->store(ready(key()), std::memory_order_release);
  }
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;
  ~ForkGuard() {
    if (page_ != nullptr) os::unmap(page_, os::page_size());
  }

  /// Whether this is the process that made the guard or renewed it last.
  bool same_process() const noexcept { return word_->load(std::memory_order_acquire) == ready(key()); }

  /// In a child: calls f once, then same_process() is true. Other threads wait. If f throws, it stays false.
  template <class F>
  void renew(F&& f) {
    const std::uint64_t mine = key();
    std::uint64_t seen = word_->load(std::memory_order_acquire);
    while (seen != ready(mine)) {
      if (seen == renewing(mine)) {
        std::this_thread::yield();
        seen = word_->load(std::memory_order_acquire);
      } else if (word_->compare_exchange_weak(seen, renewing(mine), std::memory_order_acquire)) {
        try {
          f();
        } catch (...) {
          word_->store(0, std::memory_order_release);
          throw;
        }
        word_->store(ready(mine), std::memory_order_release);
        return;
      }
    }
  }

 private:
  // The process and its ready bit, or 0. A child forked during a renewal sees an older process' state, like any child.
  static std::uint64_t ready(std::uint64_t key) { return key << 1 | 1; }
  static std::uint64_t renewing(std::uint64_t key) { return key << 1; }
  std::uint64_t key() const noexcept { return page_ != nullptr ? 1 : os::process_id(); }

  std::byte* page_;
  std::atomic<std::uint64_t> own_{0};
  std::atomic<std::uint64_t>* word_ = &own_;
};

}  // namespace ple::inline PLE_ABI
