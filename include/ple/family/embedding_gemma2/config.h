// SPDX-License-Identifier: Apache-2.0
// The configuration of EmbeddingGemma 2's text model: nothing here computes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/model/config.h"

namespace ple::inline PLE_ABI {

/// Names and defaults are those of Hugging Face's config.json.
struct EmbeddingGemma2Config {
  static constexpr const char* family = "EmbeddingGemma 2";
  static constexpr const char* model_type = "embedding_gemma2";  ///< config.json also has "embedding_gemma2_text"

  static constexpr std::size_t num_kv_shared_layers = 0;
  static constexpr float final_logit_softcapping = 0;  // it has no logits

  std::size_t vocab_size = 262144;
  std::size_t hidden_size = 512;
  std::size_t num_attention_heads = 4;
  std::size_t sliding_window = 512;  ///< a radius: a sliding layer's position sees those at most so far away
  std::size_t max_position_embeddings = 262144;
  std::size_t hidden_size_per_layer_input = 512;  ///< p
  std::size_t embedding_dim = 768;                ///< numbers in a text's vector
  Token pad_token_id = 0;
  std::vector<Token> soft_tokens = {};  ///< stand for images, videos and sounds; without these they are the pad token
  float rms_norm_eps = 1e-6f;
  RopeConfig sliding_rope{10000, 1, 1};
  RopeConfig full_rope{1000000, 1, 1};
  std::vector<LayerConfig> layers = {};

  const LayerConfig& layer(std::size_t l) const { return layers[l]; }
  std::size_t num_layers() const { return layers.size(); }
  std::size_t first_shared_layer() const { return layers.size(); }
  const RopeConfig& rope(AttentionType type) const { return type == AttentionType::full ? full_rope : sliding_rope; }
  std::optional<std::size_t> kv_layer(std::size_t l) const { return l; }
};

/// The published layers: every sixth is full, with one K/V head of its own width.
inline std::vector<LayerConfig> embedding_gemma2_layers(std::size_t layers) {
  std::vector<LayerConfig> list(layers, {.head_dim = 256, .num_key_value_heads = 2, .intermediate_size = 2048});
  for (std::size_t l = 5; l < layers; l += 6) list[l] = {AttentionType::full, 512, 1, list[l].intermediate_size};
  return list;
}

/// EmbeddingGemma 2 as published, but for max_position_embeddings, which is the class's.
inline EmbeddingGemma2Config embedding_gemma2() { return {.layers = embedding_gemma2_layers(24)}; }

/// Refuses impossible numbers before they are used. `source` names the file in messages. Errors: ErrorCode::config.
inline void validate(const EmbeddingGemma2Config& config, const std::string& source) {
  const detail::ConfigChecks check{source};
  check.decoder(config);
  check.count("hidden_size_per_layer_input", config.hidden_size_per_layer_input, 1, 65536);
  check.count("embedding_dim", config.embedding_dim, 1, check.most_width);
  check.token("pad_token_id", config.pad_token_id, config.vocab_size);
}

}  // namespace ple::inline PLE_ABI
