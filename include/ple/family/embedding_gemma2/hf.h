// SPDX-License-Identifier: Apache-2.0
// config.json of Hugging Face -> EmbeddingGemma2Config, and the names of its tensors. Names, defaults and rules are
// those of transformers' EmbeddingGemma2TextConfig and EmbeddingGemma2TextModel.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/core/token.h"
#include "ple/family/embedding_gemma2/config.h"
#include "ple/family/hf_fields.h"
#include "ple/formats/json_field.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

/// As hf_name(), but what belongs to PLE is in modules of its own.
inline std::string embedding_gemma2_name(std::string_view prefix, Parameter parameter, std::size_t layer) {
  std::string name = hf_name(prefix, parameter, layer);
  if (part_of(parameter) == ParameterPart::ple_step)
    name.insert(name.size() - role_of(parameter).hf.size(), is_of_layer(parameter) ? "ple_block." : "ple.");
  return name;
}

/// The text model's configuration: `config_json` itself or its text_config. `source` names the file in messages.
/// Errors: ErrorCode::config; ErrorCode::not_supported for other models and unsupported features.
inline EmbeddingGemma2Config embedding_gemma2_config(const Json& config_json, const std::string& source) {
  const JsonField top(config_json, source);
  const auto text_config = top.object("text_config");
  const JsonField text = text_config.value_or(top);
  expect_hf_model<EmbeddingGemma2Config>(config_json, source);
  detail::refuse_other_blocks(text);

  EmbeddingGemma2Config config;
  config.vocab_size = text.count("vocab_size", config.vocab_size);
  config.hidden_size = text.count("hidden_size", config.hidden_size);
  config.num_attention_heads = text.count("num_attention_heads", config.num_attention_heads);
  config.sliding_window = text.count("sliding_window", config.sliding_window);
  config.max_position_embeddings = text.count("max_position_embeddings", config.max_position_embeddings);
  config.hidden_size_per_layer_input = text.count("hidden_size_per_layer_input", config.hidden_size_per_layer_input);
  config.embedding_dim = text.count("embedding_dim", config.embedding_dim);
  config.pad_token_id = static_cast<Token>(text.count("pad_token_id", 0));
  config.rms_norm_eps = static_cast<float>(text.number("rms_norm_eps", 1e-6));
  config.sliding_rope = detail::rope_config(text, "sliding_attention", config.sliding_rope);
  config.full_rope = detail::rope_config(text, "full_attention", config.full_rope);
  if (text_config) {  // the text model alone knows no images
    for (const auto& [name, otherwise] : {std::pair("image_token_id", 258880), std::pair("video_token_id", 258884),
                                          std::pair("audio_token_id", 258881)}) {
      config.soft_tokens.push_back(static_cast<Token>(top.count(name, static_cast<std::size_t>(otherwise))));
    }
  }

  const std::size_t layers = detail::layer_count(text, 24, 0);
  config.layers.assign(layers, {.head_dim = text.count("head_dim", 256),
                                .num_key_value_heads = text.count("num_key_value_heads", 2),
                                .intermediate_size = text.count("intermediate_size", 2048)});
  auto types = detail::layer_types(text, layers, 6);
  types.back() = AttentionType::full;  // the last layer is full, whatever the file says
  for (std::size_t l = 0; l < layers; ++l) config.layers[l].attention = types[l];
  if (!detail::read_per_layer_config(text, config.layers)) {
    for (LayerConfig& layer : config.layers) {
      if (layer.attention != AttentionType::full) continue;
      layer.head_dim = text.count("global_head_dim", 512);
      layer.num_key_value_heads = text.count("num_global_key_value_heads", 1);
    }
  }
  validate(config, source);
  return config;
}

}  // namespace ple::inline PLE_ABI
