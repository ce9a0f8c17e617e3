// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/nn/kv_cache.h"

namespace ple::inline PLE_ABI {

/// Positions of a pass's rows, and the current layer's cache of each. The rows are consecutive tokens of one text, or a
/// batch: one token of each of several texts, or for an encoder several whole texts, one after another.
class Positions {
 public:
  Positions(std::size_t first, KvCache& cache) : first_(first), cache_(&cache) {}
  Positions(std::span<const std::size_t> positions, std::span<KvCache* const> caches)
      : positions_(positions), caches_(caches) {}

  bool batched() const { return !caches_.empty(); }
  bool several_texts() const { return batched(); }  ///< Old name; goes with the next version.
  std::size_t position(std::size_t t) const { return batched() ? positions_[t] : first_ + t; }
  KvCache& cache(std::size_t t) const { return batched() ? *caches_[t] : *cache_; }

 private:
  std::size_t first_ = 0;
  KvCache* cache_ = nullptr;
  std::span<const std::size_t> positions_;
  std::span<KvCache* const> caches_;
};
using Places = Positions;  ///< Old name; goes with the next version.

}  // namespace ple::inline PLE_ABI
