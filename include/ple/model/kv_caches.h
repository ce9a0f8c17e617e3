// SPDX-License-Identifier: Apache-2.0
// The K/V caches of a configuration, and their sizes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ple/core/arena.h"
#include "ple/core/config.h"
#include "ple/model/config.h"
#include "ple/model/language_model.h"
#include "ple/nn/kv_cache.h"

namespace ple::inline PLE_ABI {

/// Slots of a layer's cache. A sliding layer needs chunk - 1 more than its window: the chunk's first token needs its
/// whole window when the last one is written already. SessionOptions::keep comes on top.
inline std::size_t kv_cache_slots(AttentionType type, std::size_t sliding_window, const SessionOptions& options) {
  const std::size_t context = options.context_of(4096), ring = sliding_window + options.chunk - 1;
  if (type == AttentionType::full || ring >= context) return context;
  return ring + (std::min)(options.keep, context - ring);
}

/// Bytes of layer l's cache; 0 if it uses another layer's K and V.
template <class Config>
std::uint64_t kv_cache_bytes(const Config& config, std::size_t l, const SessionOptions& options) {
  if (config.kv_layer(l) != l) return 0;
  const LayerConfig layer = config.layer(l);
  return KvCache::bytes(layer.num_key_value_heads, layer.head_dim,
                        kv_cache_slots(layer.attention, config.sliding_window, options), options.kv_cache_dtype);
}

/// Layer l's cache; empty if it uses another layer's K and V.
template <class Config>
KvCache make_kv_cache(const Config& config, std::size_t l, const SessionOptions& options, Arena& arena) {
  if (config.kv_layer(l) != l) return {};
  const LayerConfig layer = config.layer(l);
  return {layer.num_key_value_heads, layer.head_dim, kv_cache_slots(layer.attention, config.sliding_window, options),
          options.kv_cache_dtype, arena};
}

/// How many positions a token sees in layer l, itself included.
template <class Config>
std::size_t positions_seen(const Config& config, std::size_t l) {
  return config.layer(l).attention == AttentionType::full ? config.max_position_embeddings : config.sliding_window;
}

}  // namespace ple::inline PLE_ABI
