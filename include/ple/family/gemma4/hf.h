// SPDX-License-Identifier: Apache-2.0
// config.json of Hugging Face -> Gemma4Config. Names, defaults and rules are those of transformers' Gemma4TextConfig
// and Gemma4UnifiedTextConfig.
#pragma once

#include <cstddef>
#include <string>

#include "ple/core/config.h"
#include "ple/core/token.h"
#include "ple/family/gemma4/config.h"
#include "ple/family/hf_fields.h"
#include "ple/formats/json_field.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// Head width and K/V heads of the full layers. Published files have them once, newer transformers for each layer.
inline void override_layers(const JsonField& text, Gemma4Config& config) {
  if (read_per_layer_config(text, config.layers)) return;
  const std::size_t head_dim = text.count("global_head_dim", 512);
  for (LayerConfig& layer : config.layers) {
    if (layer.attention != AttentionType::full) continue;
    layer.head_dim = head_dim;
    if (config.attention_k_eq_v)
      layer.num_key_value_heads = text.count("num_global_key_value_heads", layer.num_key_value_heads);
  }
}

inline void refuse_unsupported_gemma4(const JsonField& text) {
  const auto refuse = [&](const char* field, const std::string& found, const char* why) {
    fail(ErrorCode::not_supported, text.source(), ": ", text.full_name(field), " is ", found, ": ", why);
  };
  refuse_other_blocks(text);
  if (text.text("use_bidirectional_attention", "") == "all") {
    refuse("use_bidirectional_attention", "'all'", "only causal models are supported");
  }
}

}  // namespace detail

/// The text model's configuration: `config_json` itself or its text_config. `source` names the file in messages.
/// Errors: ErrorCode::config; ErrorCode::not_supported for other models and unsupported features.
inline Gemma4Config gemma4_config(const Json& config_json, const std::string& source) {
  const JsonField top(config_json, source);
  const JsonField text = top.object("text_config").value_or(top);
  expect_hf_model<Gemma4Config>(config_json, source);
  detail::refuse_unsupported_gemma4(text);
  const bool unified = hf_model_type(config_json, source).starts_with(Gemma4Config::unified_model_type);

  Gemma4Config config;
  config.vocab_size = text.count("vocab_size", 262144);
  config.hidden_size = text.count("hidden_size", 2304);
  config.num_attention_heads = text.count("num_attention_heads", 8);
  config.num_kv_shared_layers = text.count("num_kv_shared_layers", 0);
  config.sliding_window = text.count("sliding_window", unified ? 1024 : 512);
  config.max_position_embeddings = text.count("max_position_embeddings", unified ? 262144 : 131072);
  config.vocab_size_per_layer_input = text.count("vocab_size_per_layer_input", 262144);
  config.hidden_size_per_layer_input = text.count("hidden_size_per_layer_input", unified ? 0 : 256);
  if (text.boolean("enable_moe_block", false)) {
    config.num_experts = text.count("num_experts");
    config.top_k_experts = text.count("top_k_experts");
    config.moe_intermediate_size = text.count("moe_intermediate_size");
    detail::ConfigChecks{source}.count(text.full_name("num_experts"), config.num_experts, 1, 4096);  // 0 is none
  }
  config.pad_token_id = static_cast<Token>(text.count("pad_token_id", 0, config.vocab_size - 1));
  config.attention_k_eq_v = text.boolean("attention_k_eq_v", false);
  config.tie_word_embeddings = hf_tie_word_embeddings(config_json, source);
  config.rms_norm_eps = static_cast<float>(text.number("rms_norm_eps", 1e-6));
  config.final_logit_softcapping = static_cast<float>(text.number("final_logit_softcapping", 0.0));
  config.sliding_rope = detail::rope_config(text, "sliding_attention", config.sliding_rope);
  config.full_rope = detail::rope_config(text, "full_attention", config.full_rope);

  const std::size_t layers = detail::layer_count(text, 30, config.num_kv_shared_layers);
  const bool double_wide = text.boolean("use_double_wide_mlp", false);
  const LayerConfig common{AttentionType::sliding, text.count("head_dim", 256), text.count("num_key_value_heads", 4),
                           text.count("intermediate_size", 9216)};
  config.layers.assign(layers, common);
  auto types = detail::layer_types(text, layers, 6);
  types.back() = AttentionType::full;  // the last layer is full, whatever the file says
  for (std::size_t l = 0; l < layers; ++l) {
    config.layers[l].attention = types[l];
    if (double_wide && l >= config.first_shared_layer()) config.layers[l].intermediate_size *= 2;
  }
  detail::override_layers(text, config);
  validate(config, source);
  return config;
}

}  // namespace ple::inline PLE_ABI
