// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/nn/kv_cache.h"

namespace ple::inline PLE_ABI {

/// Where the rows of a pass stand, and the cache of the layer they look at: tokens of one text one after another, or a
/// token each of several texts.
class Places {
 public:
  Places(std::size_t first, KvCache& cache) : first_(first), cache_(&cache) {}
  Places(std::span<const std::size_t> positions, std::span<KvCache* const> caches)
      : positions_(positions), caches_(caches) {}

  bool several_texts() const { return !caches_.empty(); }
  std::size_t position(std::size_t t) const { return several_texts() ? positions_[t] : first_ + t; }
  KvCache& cache(std::size_t t) const { return several_texts() ? *caches_[t] : *cache_; }

 private:
  std::size_t first_ = 0;
  KvCache* cache_ = nullptr;
  std::span<const std::size_t> positions_;
  std::span<KvCache* const> caches_;
};

}  // namespace ple::inline PLE_ABI
