// SPDX-License-Identifier: Apache-2.0
// Experts that live in a file: those in use are repacked into memory, up to a number of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <mutex>

#include "ple/core/config.h"
#include "ple/core/function_ref.h"
#include "ple/nn/mlp.h"

namespace ple::inline PLE_ABI {

/// What a cache of experts has done since it was made.
struct ExpertCounters {
  std::uint64_t hits = 0, misses = 0;
  std::uint64_t bytes = 0;  ///< of the experts in memory now
};

/// The experts of all layers of a model that were used last. For any number of threads.
template <class T, Backend B>
class ExpertCache {
 public:
  /// budget: bytes of packed weights that are kept. While a token's expert is made or used, it comes on top.
  explicit ExpertCache(std::uint64_t budget) : budget_(budget) {}

  /// An expert's name: the address of its weights in the mapped file.
  using Key = const std::byte*;

  /// An expert, which `make` packs if it is not there. It stays valid while the caller holds it.
  std::shared_ptr<const Mlp<T, B>> get(Key key, FunctionRef<Mlp<T, B>()> make) {
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = entries_.find(key); found != entries_.end()) {
        ++counters_.hits;
        uses_.splice(uses_.end(), uses_, found->second.use);
        return found->second.mlp;
      }
      ++counters_.misses;
    }
    // Two threads that miss the same expert both make it; one of them is kept.
    auto made = std::make_shared<const Mlp<T, B>>(make());
    const std::lock_guard lock(mutex_);
    if (entries_.contains(key)) return made;
    const std::uint64_t bytes = packed_bytes(*made);
    while (!uses_.empty() && counters_.bytes + bytes > budget_) drop_oldest();
    if (bytes > budget_) return made;
    uses_.push_back(key);
    entries_.emplace(key, Entry{made, std::prev(uses_.end())});
    counters_.bytes += bytes;
    return made;
  }

  bool has(Key key) const {
    const std::lock_guard lock(mutex_);
    return entries_.contains(key);
  }

  ExpertCounters counters() const {
    const std::lock_guard lock(mutex_);
    return counters_;
  }

 private:
  struct Entry {
    std::shared_ptr<const Mlp<T, B>> mlp;
    std::list<Key>::iterator use;
  };

  /// Weights of float types stay in the file.
  static std::uint64_t packed_bytes(const Mlp<T, B>& mlp) {
    std::uint64_t bytes = 0;
    for (const auto* linear : {&mlp.gate, &mlp.up, &mlp.down})
      bytes += linear->weight.packed() ? linear->weight.bytes() : 0;
    return bytes;
  }

  void drop_oldest() {
    const auto oldest = entries_.find(uses_.front());
    counters_.bytes -= packed_bytes(*oldest->second.mlp);
    entries_.erase(oldest);
    uses_.pop_front();
  }

  std::uint64_t budget_;
  mutable std::mutex mutex_;
  std::map<Key, Entry> entries_;
  std::list<Key> uses_;  // the least recent first
  ExpertCounters counters_;
};

}  // namespace ple::inline PLE_ABI
