// SPDX-License-Identifier: Apache-2.0
// How large the caches of keys and values are.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/model/config.h"
#include "ple/model/gemma3n_config.h"
#include "ple/model/gemma4_config.h"
#include "ple/model/language_model.h"
#include "ple/nn/kv_cache.h"

namespace ple::inline PLE_ABI {

/// Positions that a layer's cache has room for. A chunk's first token still sees a whole window when its last one has
/// been written, so a sliding layer's ring is that much longer, and by SessionOptions::keep.
template <class Config>
std::size_t kv_cache_slots(const Config& config, AttentionType type, const SessionOptions& options) {
  const std::size_t context = options.context_of(config.max_position_embeddings);
  if (type == AttentionType::full) return context;
  const std::size_t ring = config.sliding_window + options.chunk - 1;
  return ring < context ? ring + (std::min)(options.keep, context - ring) : context;
}

/// Bytes of layer l's cache; 0 for one that attends over another layer's K and V.
inline std::uint64_t kv_cache_bytes(const Gemma4Config& config, std::size_t l, const SessionOptions& options) {
  if (config.kv_layer(l) != l) return 0;
  const Gemma4LayerConfig& layer = config.layers[l];
  return KvCache::bytes(layer.num_key_value_heads, layer.head_dim, kv_cache_slots(config, layer.attention, options),
                        options.kv_cache_dtype);
}

inline std::uint64_t kv_cache_bytes(const Gemma3nConfig& config, std::size_t l, const SessionOptions& options) {
  if (config.kv_layer(l) != l) return 0;
  return KvCache::bytes(config.num_key_value_heads, config.head_dim,
                        kv_cache_slots(config, config.layers[l].attention, options), options.kv_cache_dtype);
}

}  // namespace ple::inline PLE_ABI
