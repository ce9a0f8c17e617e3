// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// Every parameter of a decoder by its role. What a file calls it stands in one table per file format, in io/.
enum class Parameter : std::uint8_t {
  // once per model
  token_embedding,         ///< [vocab_size, d]
  head,                    ///< [vocab_size, d], only where it is not the token embedding
  final_norm,              ///< [d]
  ple_table,               ///< [vocab_size_per_layer_input, layers * p]
  ple_context_projection,  ///< [layers * p, d]
  ple_context_norm,        ///< [p]
  altup_projection,        ///< [d, d], Gemma 3n: of stream layer + 1
  altup_unembedding,       ///< [d, d], Gemma 3n: of stream layer + 1
  // once per layer
  input_norm,              ///< [d]
  query,                   ///< [heads * head_dim, d]
  key,                     ///< [kv_heads * head_dim, d]
  value,                   ///< [kv_heads * head_dim, d]
  attention_output,        ///< [d, heads * head_dim]
  query_norm,              ///< [head_dim]
  key_norm,                ///< [head_dim]
  post_attention_norm,     ///< [d]
  pre_feed_forward_norm,   ///< [d]
  gate,                    ///< [intermediate_size, d]
  up,                      ///< [intermediate_size, d]
  down,                    ///< [d, intermediate_size]
  post_feed_forward_norm,  ///< [d]
  ple_gate,                ///< [p, d]
  ple_output,              ///< [d, p]
  post_ple_norm,           ///< [d]
  layer_scalar,            ///< [1]
  // once per layer, Gemma 3n; n streams
  altup_router,        ///< [n, d]
  altup_router_norm,   ///< [d]
  altup_prediction,    ///< [n * n, n]
  altup_correction,    ///< [n, n]
  altup_output_scale,  ///< [d]
  laurel_left,         ///< [laurel_rank, d]
  laurel_right,        ///< [d, laurel_rank]
  post_laurel_norm,    ///< [d]
};

/// Whether every layer has one.
inline bool is_of_layer(Parameter parameter) { return parameter >= Parameter::input_norm; }

}  // namespace ple::inline PLE_ABI
