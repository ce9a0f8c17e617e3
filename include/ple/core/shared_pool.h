// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/fork_guard.h"
#include "ple/core/thread_pool.h"

namespace ple::inline PLE_ABI {

/// The pool of `threads` threads (0: one per hardware thread) that all callers in this process share. It lives from its
/// first caller to its last holder. A child process after fork() has its own. Errors: those of ThreadPool.
inline std::shared_ptr<ThreadPool> shared_pool(std::size_t threads = 0) {
  struct Pools {
    std::mutex mutex;
    std::vector<std::weak_ptr<ThreadPool>> all;  // at most one of each size
  };
  struct Shelf {
    ForkGuard guard;
    std::unique_ptr<Pools> pools = std::make_unique<Pools>();
  };
  static Shelf& shelf = *new Shelf;  // never destroyed: code that runs after main may still ask
  // In a child process, another thread's lock may be held: leak what it guards, like the parent's threads.
  if (!shelf.guard.same_process()) {
    shelf.guard.renew([] {
      auto pools = std::make_unique<Pools>();
      static_cast<void>(shelf.pools.release());
      shelf.pools = std::move(pools);
    });
  }
  if (threads == 0) threads = (std::max)(1u, std::thread::hardware_concurrency());
  Pools& pools = *shelf.pools;
  const std::lock_guard lock(pools.mutex);
  for (const auto& pool : pools.all) {
    if (auto found = pool.lock(); found && found->concurrency() == threads) return found;
  }
  std::erase_if(pools.all, [](const auto& pool) { return pool.expired(); });
  std::shared_ptr<ThreadPool> made(new ThreadPool(threads));  // not make_shared: weak_ptrs would keep its memory
  pools.all.push_back(made);
  return made;
}

}  // namespace ple::inline PLE_ABI
