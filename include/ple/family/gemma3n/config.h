// SPDX-License-Identifier: Apache-2.0
// The configuration of a Gemma 3n text model: nothing here computes.
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

/// What may differ from layer to layer in this family.
struct Gemma3nLayerConfig {
  AttentionType attention = AttentionType::sliding;
  std::size_t intermediate_size = 16384;
  float activation_sparsity = 0;  ///< share of the gate that becomes 0; 0: none
};

/// Names are those of Hugging Face's config.json.
struct Gemma3nConfig {
  static constexpr const char* family = "Gemma 3n";
  static constexpr const char* model_type = "gemma3n";  ///< GGUF's; config.json also has "gemma3n_text", the text model

  std::size_t vocab_size = 262400;
  std::size_t hidden_size = 2048;
  std::size_t num_attention_heads = 8;
  std::size_t num_key_value_heads = 2;
  std::size_t head_dim = 256;
  std::size_t num_kv_shared_layers = 0;  ///< the last layers, which use the K and V of an earlier layer
  std::size_t sliding_window = 512;      ///< positions that a sliding layer sees, the token's own included
  std::size_t max_position_embeddings = 32768;
  std::size_t vocab_size_per_layer_input = 262144;  ///< tokens from here on have the row of token 0
  std::size_t hidden_size_per_layer_input = 256;    ///< p
  std::int32_t pad_token_id = 0;
  std::size_t altup_num_inputs = 4;  ///< streams
  std::size_t altup_active_idx = 0;  ///< the stream that attention and feed-forward work on
  float altup_coef_clip = 120;       ///< limit of the coefficients' weights in training
  bool altup_correct_scale = true;   ///< whether the PLE step's input is multiplied by correct_output_scale
  std::size_t laurel_rank = 64;
  bool tie_word_embeddings = true;
  float rms_norm_eps = 1e-6f;
  float final_logit_softcapping = 30;  ///< 0 for none
  RopeConfig sliding_rope{10000, 1, 1};
  RopeConfig full_rope{1000000, 1, 1};
  std::vector<Gemma3nLayerConfig> layers = {};

  LayerConfig layer(std::size_t l) const {
    return {layers[l].attention, head_dim, num_key_value_heads, layers[l].intermediate_size,
            layers[l].activation_sparsity};
  }
  std::size_t num_layers() const { return layers.size(); }
  std::size_t first_shared_layer() const { return layers.size() - num_kv_shared_layers; }
  const RopeConfig& rope(AttentionType type) const { return type == AttentionType::full ? full_rope : sliding_rope; }

  /// Tokens below it have an embedding. Those without a PLE row use pad_token()'s.
  std::size_t token_limit() const { return vocab_size; }
  /// The token whose PLE row is used where there is no text: in this family not pad_token_id, whatever that is.
  static constexpr std::int32_t pad_token() { return 0; }
  std::optional<std::size_t> kv_layer(std::size_t l) const { return detail::kv_layer(layers, first_shared_layer(), l); }
};

/// Calls f with every number of the configuration.
template <class F>
void for_each_field(const Gemma3nConfig& c, F&& f) {
  const auto all = [&](const auto&... fields) { (f(fields), ...); };
  all(c.vocab_size, c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.num_kv_shared_layers,
      c.sliding_window, c.max_position_embeddings, c.vocab_size_per_layer_input, c.hidden_size_per_layer_input,
      c.pad_token_id, c.altup_num_inputs, c.altup_active_idx, c.altup_coef_clip, c.altup_correct_scale, c.laurel_rank,
      c.tie_word_embeddings, c.rms_norm_eps, c.final_logit_softcapping, c.layers.size());
  for (const RopeConfig& rope : {c.sliding_rope, c.full_rope}) all(rope.theta, rope.fraction, rope.factor);
  for (const Gemma3nLayerConfig& layer : c.layers) {
    all(layer.attention, layer.intermediate_size, layer.activation_sparsity);
  }
}

/// The published models' layers: every fifth is full, the first ten are sparse.
inline std::vector<Gemma3nLayerConfig> gemma3n_layers(std::size_t layers, std::size_t intermediate_size) {
  std::vector<Gemma3nLayerConfig> list(layers, {.intermediate_size = intermediate_size});
  for (std::size_t l = 4; l < layers; l += 5) list[l].attention = AttentionType::full;
  for (std::size_t l = 0; l < 10 && l < layers; ++l) list[l].activation_sparsity = 0.95f;
  return list;
}

/// Gemma 3n E2B and E4B, as published.
inline Gemma3nConfig gemma3n_e2b() { return {.num_kv_shared_layers = 10, .layers = gemma3n_layers(30, 8192)}; }
inline Gemma3nConfig gemma3n_e4b() { return {.num_kv_shared_layers = 15, .layers = gemma3n_layers(35, 16384)}; }

/// Refuses impossible numbers before they are used. `source` names the file in messages. Errors: ErrorCode::config.
inline void validate(const Gemma3nConfig& config, const std::string& source) {
  const detail::ConfigChecks check{source};
  check.decoder(config);
  check.count("hidden_size_per_layer_input", config.hidden_size_per_layer_input, 1, 65536);
  check.count("vocab_size_per_layer_input", config.vocab_size_per_layer_input, 1, check.most_tokens);
  check.token("pad_token_id", config.pad_token_id, (std::min)(config.vocab_size, config.vocab_size_per_layer_input));
  check.count("altup_num_inputs", config.altup_num_inputs, 1, 64);
  check.count("altup_active_idx", config.altup_active_idx, 0, config.altup_num_inputs - 1);
  check.number("altup_coef_clip", config.altup_coef_clip, 0, 1e9);
  check.count("laurel_rank", config.laurel_rank, 1, check.most_width);
}

}  // namespace ple::inline PLE_ABI
