// SPDX-License-Identifier: Apache-2.0
// The threads that a program's sessions share.
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

/// The pool of so many threads, which everyone who asks for it in this process shares: made for the first, gone with
/// the last who holds it. In a process that fork() made it is another one. 0: one for every hardware thread.
/// Errors: those of ThreadPool.
inline std::shared_ptr<ThreadPool> shared_pool(std::size_t threads = 0) {
  struct Pools {
    std::mutex mutex;
    std::vector<std::weak_ptr<ThreadPool>> all;  // at most one of each size
  };
  struct Shelf {
    ForkGuard guard;
    std::unique_ptr<Pools> pools = std::make_unique<Pools>();
  };
  static Shelf& shelf = *new Shelf;  // never destroyed: whoever ends after main may still ask
  // In a copy another thread may have held the lock. What it guards is lost, as the original's threads are.
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
  std::shared_ptr<ThreadPool> made(new ThreadPool(threads));  // not in one piece with its count, which weak_ptrs keep
  pools.all.push_back(made);
  return made;
}

}  // namespace ple::inline PLE_ABI
