// SPDX-License-Identifier: Apache-2.0
// The configuration of a Gemma 4 text model: nothing here computes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/model/config.h"

namespace ple::inline PLE_ABI {

using Gemma4LayerConfig = LayerConfig;  ///< Old name; goes with the next version.

/// Names are those of Hugging Face's config.json.
struct Gemma4Config {
  static constexpr const char* family = "Gemma 4";
  static constexpr const char* model_type = "gemma4";  ///< GGUF's; config.json also has "gemma4_text", the text model
  /// Of config.json only, with "_text" too: 12B, whose text model has no PLE and other defaults.
  static constexpr const char* unified_model_type = "gemma4_unified";

  std::size_t vocab_size = 262144;
  std::size_t hidden_size = 1536;
  std::size_t num_attention_heads = 8;
  std::size_t num_kv_shared_layers = 0;  ///< the last layers, which use the K and V of an earlier layer
  std::size_t sliding_window = 512;      ///< positions that a sliding layer sees, the token's own included
  std::size_t max_position_embeddings = 131072;
  std::size_t vocab_size_per_layer_input = 262144;
  std::size_t hidden_size_per_layer_input = 256;  ///< p; 0 for a model without PLE
  std::size_t num_experts = 0;                    ///< of every layer, beside its dense feed-forward; 0: none
  std::size_t top_k_experts = 0;                  ///< experts that a token goes to
  std::size_t moe_intermediate_size = 0;          ///< width of an expert
  bool fused_expert_gate_up = true;  ///< the experts' gate and up are one tensor; in some GGUF files they are two
  std::int32_t pad_token_id = 0;
  bool attention_k_eq_v = false;  ///< full layers use the key projection's output as V
  bool tie_word_embeddings = true;
  float rms_norm_eps = 1e-6f;
  float final_logit_softcapping = 30;  ///< 0 for none
  RopeConfig sliding_rope{10000, 1, 1};
  RopeConfig full_rope{1000000, 0.25, 1};
  std::vector<LayerConfig> layers = {};

  const LayerConfig& layer(std::size_t l) const { return layers[l]; }
  std::size_t num_layers() const { return layers.size(); }
  std::size_t first_shared_layer() const { return layers.size() - num_kv_shared_layers; }
  const RopeConfig& rope(AttentionType type) const { return type == AttentionType::full ? full_rope : sliding_rope; }

  /// Tokens below it have an embedding and a row.
  std::size_t token_limit() const {
    return hidden_size_per_layer_input > 0 ? (std::min)(vocab_size, vocab_size_per_layer_input) : vocab_size;
  }
  std::int32_t pad_token() const { return pad_token_id; }  ///< the token whose PLE row is used where there is no text
  std::optional<std::size_t> kv_layer(std::size_t l) const { return detail::kv_layer(layers, first_shared_layer(), l); }
};

/// Calls f with every number of the configuration.
template <class F>
void for_each_field(const Gemma4Config& c, F&& f) {
  const auto all = [&](const auto&... fields) { (f(fields), ...); };
  all(c.vocab_size, c.hidden_size, c.num_attention_heads, c.num_kv_shared_layers, c.sliding_window,
      c.max_position_embeddings, c.vocab_size_per_layer_input, c.hidden_size_per_layer_input, c.pad_token_id,
      c.attention_k_eq_v, c.tie_word_embeddings, c.rms_norm_eps, c.final_logit_softcapping, c.layers.size());
  if (c.num_experts > 0) all(c.num_experts, c.top_k_experts, c.moe_intermediate_size);
  for (const RopeConfig& rope : {c.sliding_rope, c.full_rope}) all(rope.theta, rope.fraction, rope.factor);
  for (const LayerConfig& layer : c.layers) {
    all(layer.attention, layer.head_dim, layer.num_key_value_heads, layer.intermediate_size);
  }
}

/// The published models' layers: every `period`-th is full.
inline std::vector<LayerConfig> gemma4_layers(std::size_t layers, std::size_t period, LayerConfig sliding,
                                              std::size_t full_kv_heads) {
  std::vector<LayerConfig> list(layers, sliding);
  for (std::size_t l = period - 1; l < layers; l += period) {
    list[l].attention = AttentionType::full;
    list[l].head_dim = 512;
    list[l].num_key_value_heads = full_kv_heads;
  }
  return list;
}

/// Gemma 4 as published: E2B, E4B, and those without PLE.
inline Gemma4Config gemma4_e2b() {
  Gemma4Config config{.hidden_size = 1536, .num_attention_heads = 8, .num_kv_shared_layers = 20, .layers = {}};
  config.layers = gemma4_layers(35, 5, {.num_key_value_heads = 1, .intermediate_size = 6144}, 1);
  for (std::size_t l = config.first_shared_layer(); l < config.num_layers(); ++l)
    config.layers[l].intermediate_size *= 2;
  return config;
}

inline Gemma4Config gemma4_e4b() {
  return {.hidden_size = 2560,
          .num_attention_heads = 8,
          .num_kv_shared_layers = 18,
          .layers = gemma4_layers(42, 6, {.num_key_value_heads = 2, .intermediate_size = 10240}, 2)};
}

inline Gemma4Config gemma4_12b() {
  return {.hidden_size = 3840,
          .num_attention_heads = 16,
          .sliding_window = 1024,
          .max_position_embeddings = 262144,
          .hidden_size_per_layer_input = 0,
          .attention_k_eq_v = true,
          .layers = gemma4_layers(48, 6, {.num_key_value_heads = 8, .intermediate_size = 15360}, 1)};
}

inline Gemma4Config gemma4_26b_a4b() {
  return {.hidden_size = 2816,
          .num_attention_heads = 16,
          .sliding_window = 1024,
          .max_position_embeddings = 262144,
          .hidden_size_per_layer_input = 0,
          .num_experts = 128,
          .top_k_experts = 8,
          .moe_intermediate_size = 704,
          .attention_k_eq_v = true,
          .layers = gemma4_layers(30, 6, {.num_key_value_heads = 8, .intermediate_size = 2112}, 2)};
}

inline Gemma4Config gemma4_31b() {
  return {.hidden_size = 5376,
          .num_attention_heads = 32,
          .sliding_window = 1024,
          .max_position_embeddings = 262144,
          .hidden_size_per_layer_input = 0,
          .attention_k_eq_v = true,
          .layers = gemma4_layers(60, 6, {.num_key_value_heads = 16, .intermediate_size = 21504}, 4)};
}

/// Refuses impossible numbers before they are used. `source` names the file in messages. Errors: ErrorCode::config.
inline void validate(const Gemma4Config& config, const std::string& source) {
  const detail::ConfigChecks check{source};
  check.decoder(config);
  check.per_layer_inputs(config);
  if (config.num_experts > 0) {
    check.count("num_experts", config.num_experts, 1, 4096);
    check.count("top_k_experts", config.top_k_experts, 1, config.num_experts);
    check.count("moe_intermediate_size", config.moe_intermediate_size, 1, 65536);
  }
  check.token("pad_token_id", config.pad_token_id, config.token_limit());
}

}  // namespace ple::inline PLE_ABI
