// SPDX-License-Identifier: Apache-2.0
// The caches of keys and values that a configuration asks for, and how large they are.
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

/// Positions that a layer's cache has room for. A chunk's first token still sees a whole window when its last one has
/// been written, so a sliding layer's ring is that much longer, and SessionOptions::keep.
inline std::size_t kv_cache_slots(AttentionType type, std::size_t sliding_window, const SessionOptions& options) {
  const std::size_t context = options.context_of(4096), ring = sliding_window + options.chunk - 1;
  if (type == AttentionType::full || ring >= context) return context;
  return ring + (std::min)(options.keep, context - ring);
}

/// Bytes of layer l's cache; 0 for one that attends over another layer's K and V.
template <class Config>
std::uint64_t kv_cache_bytes(const Config& config, std::size_t l, const SessionOptions& options) {
  if (config.kv_layer(l) != l) return 0;
  const LayerConfig layer = config.layer(l);
  return KvCache::bytes(layer.num_key_value_heads, layer.head_dim,
                        kv_cache_slots(layer.attention, config.sliding_window, options), options.kv_cache_dtype);
}

/// Room for layer l's K and V; none if it attends over another layer's.
template <class Config>
KvCache make_kv_cache(const Config& config, std::size_t l, const SessionOptions& options, Arena& arena) {
  if (config.kv_layer(l) != l) return {};
  const LayerConfig layer = config.layer(l);
  return {layer.num_key_value_heads, layer.head_dim, kv_cache_slots(layer.attention, config.sliding_window, options),
          options.kv_cache_dtype, arena};
}

/// The positions that a token sees in layer l, itself included: a full layer sees all.
template <class Config>
std::size_t positions_seen(const Config& config, std::size_t l) {
  return config.layer(l).attention == AttentionType::full ? config.max_position_embeddings : config.sliding_window;
}

}  // namespace ple::inline PLE_ABI
