// SPDX-License-Identifier: Apache-2.0
// The configuration of a Gemma 3 text model: nothing here computes.
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

/// Names and defaults are those of Hugging Face's config.json.
struct Gemma3Config {
  static constexpr const char* family = "Gemma 3";
  static constexpr const char* model_type = "gemma3";  ///< GGUF's; config.json also has "gemma3_text", the text model
  /// Of config.json only: with PLE, which no published model has (convert/graft.h). transformers does not know the
  /// name, so that it cannot take such a model for one without.
  static constexpr const char* grafted_model_type = "gemma3_ple";

  static constexpr std::size_t num_kv_shared_layers = 0;  // this family shares no keys and values

  std::size_t vocab_size = 262208;
  std::size_t hidden_size = 2304;
  std::size_t num_attention_heads = 8;
  std::size_t sliding_window = 4096;  ///< positions that a sliding layer sees, the token's own included
  std::size_t max_position_embeddings = 131072;
  std::size_t vocab_size_per_layer_input = 0;
  std::size_t hidden_size_per_layer_input = 0;  ///< p; 0 for a model without PLE
  double query_pre_attn_scalar = 256;           ///< scores are divided by its square root
  bool tie_word_embeddings = true;
  float rms_norm_eps = 1e-6f;
  float final_logit_softcapping = 0;  ///< 0 for none
  RopeConfig sliding_rope{10000, 1, 1};
  RopeConfig full_rope{1000000, 1, 1};
  std::vector<LayerConfig> layers = {};

  const LayerConfig& layer(std::size_t l) const { return layers[l]; }
  std::size_t num_layers() const { return layers.size(); }
  std::size_t first_shared_layer() const { return layers.size(); }
  const RopeConfig& rope(AttentionType type) const { return type == AttentionType::full ? full_rope : sliding_rope; }
  /// Tokens below it have an embedding and a row.
  std::size_t token_limit() const {
    return hidden_size_per_layer_input > 0 ? (std::min)(vocab_size, vocab_size_per_layer_input) : vocab_size;
  }
  static constexpr std::int32_t pad_token() { return 0; }
  std::optional<std::size_t> kv_layer(std::size_t l) const { return l; }
};

/// Calls f with every number of the configuration.
template <class F>
void for_each_field(const Gemma3Config& c, F&& f) {
  const auto all = [&](const auto&... fields) { (f(fields), ...); };
  all(c.vocab_size, c.hidden_size, c.num_attention_heads, c.sliding_window, c.max_position_embeddings,
      c.query_pre_attn_scalar, c.tie_word_embeddings, c.rms_norm_eps, c.final_logit_softcapping, c.layers.size());
  if (c.hidden_size_per_layer_input > 0) all(c.hidden_size_per_layer_input, c.vocab_size_per_layer_input);
  for (const RopeConfig& rope : {c.sliding_rope, c.full_rope}) all(rope.theta, rope.fraction, rope.factor);
  for (const LayerConfig& layer : c.layers) {
    all(layer.attention, layer.head_dim, layer.num_key_value_heads, layer.intermediate_size);
  }
}

/// The published models' layers: every sixth is full.
inline std::vector<LayerConfig> gemma3_layers(std::size_t layers, LayerConfig each) {
  std::vector<LayerConfig> list(layers, each);
  for (std::size_t l = 5; l < layers; l += 6) list[l].attention = AttentionType::full;
  return list;
}

/// Gemma 3 270M, 1B, and the text models of 4B, 12B and 27B, as published.
inline Gemma3Config gemma3_270m() {
  return {.vocab_size = 262144,
          .hidden_size = 640,
          .num_attention_heads = 4,
          .sliding_window = 512,
          .max_position_embeddings = 32768,
          .layers = gemma3_layers(18, {.num_key_value_heads = 1, .intermediate_size = 2048})};
}

inline Gemma3Config gemma3_1b() {
  return {.vocab_size = 262144,
          .hidden_size = 1152,
          .num_attention_heads = 4,
          .sliding_window = 512,
          .max_position_embeddings = 32768,
          .layers = gemma3_layers(26, {.num_key_value_heads = 1, .intermediate_size = 6912})};
}

inline Gemma3Config gemma3_4b() {
  return {.hidden_size = 2560,
          .num_attention_heads = 8,
          .sliding_window = 1024,
          .full_rope = {1000000, 1, 8},
          .layers = gemma3_layers(34, {.num_key_value_heads = 4, .intermediate_size = 10240})};
}

inline Gemma3Config gemma3_12b() {
  return {.hidden_size = 3840,
          .num_attention_heads = 16,
          .sliding_window = 1024,
          .full_rope = {1000000, 1, 8},
          .layers = gemma3_layers(48, {.num_key_value_heads = 8, .intermediate_size = 15360})};
}

inline Gemma3Config gemma3_27b() {
  return {.hidden_size = 5376,
          .num_attention_heads = 32,
          .sliding_window = 1024,
          .query_pre_attn_scalar = 168,  // hidden_size / num_attention_heads
          .full_rope = {1000000, 1, 8},
          .layers = gemma3_layers(62, {.head_dim = 128, .num_key_value_heads = 16, .intermediate_size = 21504})};
}

/// Refuses impossible numbers before they are used. `source` names the file in messages. Errors: ErrorCode::config.
inline void validate(const Gemma3Config& config, const std::string& source) {
  const detail::ConfigChecks check{source};
  check.decoder(config);
  check.per_layer_inputs(config);
  check.number("query_pre_attn_scalar", config.query_pre_attn_scalar, 1e-6, 1e9);
}

}  // namespace ple::inline PLE_ABI
