// SPDX-License-Identifier: Apache-2.0
// config.json of Hugging Face -> Gemma3nConfig. Names, defaults and rules are those of transformers' Gemma3nTextConfig.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/family/gemma3n/config.h"
#include "ple/family/hf_fields.h"
#include "ple/formats/json_field.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// Calls set(layer, number) for a field with one number for all layers, or a list with one for each.
template <class F>
void each_layer(const JsonField& text, std::string_view name, std::size_t layers, F&& set) {
  const Json& field = *text.find(name);
  if (!field.is_array()) {
    for (std::size_t l = 0; l < layers; ++l) set(l, field);
    return;
  }
  if (field.items().size() != layers) {
    fail(ErrorCode::config, text.source(), ": ", text.full_name(name), " has ", field.items().size(),
         " entries, expected num_hidden_layers, which is ", layers);
  }
  for (std::size_t l = 0; l < layers; ++l) set(l, field.items()[l]);
}

/// As rope_config; without rope_parameters, each attention type's theta is a field of its own.
inline RopeConfig gemma3n_rope(const JsonField& text, const std::string& type, const char* theta, RopeConfig rope) {
  if (!text.find("rope_parameters")) rope.theta = text.number(theta, rope.theta);
  return rope_config(text, type, rope);
}

}  // namespace detail

/// The text model's configuration: `config_json` itself or its text_config. `source` names the file in messages.
/// Errors: ErrorCode::config; ErrorCode::not_supported for other models and unsupported features.
inline Gemma3nConfig gemma3n_config(const Json& config_json, const std::string& source) {
  const JsonField top(config_json, source);
  const JsonField text = top.object("text_config").value_or(top);
  expect_hf_model<Gemma3nConfig>(config_json, source);
  detail::refuse_other_blocks(text);
  if (text.find("rope_scaling")) {
    fail(ErrorCode::not_supported, source, ": ", text.full_name("rope_scaling"), " is ",
         text.find("rope_scaling")->brief(), ", expected none: it is not supported yet");
  }

  Gemma3nConfig config;
  config.vocab_size = text.count("vocab_size", config.vocab_size);
  config.hidden_size = text.count("hidden_size", config.hidden_size);
  config.num_attention_heads = text.count("num_attention_heads", config.num_attention_heads);
  config.num_key_value_heads = text.count("num_key_value_heads", config.num_key_value_heads);
  config.head_dim = text.count("head_dim", config.head_dim);
  config.num_kv_shared_layers = text.count("num_kv_shared_layers", 15);
  config.sliding_window = text.count("sliding_window", config.sliding_window);
  config.max_position_embeddings = text.count("max_position_embeddings", config.max_position_embeddings);
  config.vocab_size_per_layer_input = text.count("vocab_size_per_layer_input", config.vocab_size_per_layer_input);
  config.hidden_size_per_layer_input = text.count("hidden_size_per_layer_input", config.hidden_size_per_layer_input);
  config.pad_token_id = static_cast<Token>(text.count("pad_token_id", 0, config.vocab_size - 1));
  config.altup_num_inputs = text.count("altup_num_inputs", config.altup_num_inputs);
  config.altup_active_idx = text.count("altup_active_idx", config.altup_active_idx);
  config.altup_coef_clip = static_cast<float>(text.number("altup_coef_clip", config.altup_coef_clip));
  config.altup_correct_scale = text.boolean("altup_correct_scale", config.altup_correct_scale);
  config.laurel_rank = text.count("laurel_rank", config.laurel_rank);
  config.tie_word_embeddings = hf_tie_word_embeddings(config_json, source);
  config.rms_norm_eps = static_cast<float>(text.number("rms_norm_eps", 1e-6));
  config.final_logit_softcapping = static_cast<float>(text.number("final_logit_softcapping", 30.0));
  config.sliding_rope = detail::gemma3n_rope(text, "sliding_attention", "rope_local_base_freq", config.sliding_rope);
  config.full_rope = detail::gemma3n_rope(text, "full_attention", "rope_theta", config.full_rope);

  const std::size_t layers = detail::layer_count(text, 35, config.num_kv_shared_layers);
  config.layers.resize(layers);
  const auto types = detail::layer_types(text, layers, 5);
  for (std::size_t l = 0; l < layers; ++l) config.layers[l].attention = types[l];
  if (text.find("intermediate_size")) {
    detail::each_layer(text, "intermediate_size", layers, [&](std::size_t l, const Json& size) {
      const auto width = size.whole();
      if (!width) text.wrong("intermediate_size", size, "whole numbers from 1 on");
      config.layers[l].intermediate_size = static_cast<std::size_t>(*width);
    });
  }
  if (text.find("activation_sparsity_pattern")) {
    detail::each_layer(text, "activation_sparsity_pattern", layers, [&](std::size_t l, const Json& sparsity) {
      if (!sparsity.is_number()) text.wrong("activation_sparsity_pattern", sparsity, "numbers from 0 to less than 1");
      config.layers[l].activation_sparsity = static_cast<float>(sparsity.number());
    });
  } else if (layers > 10) {
    for (std::size_t l = 0; l < 10; ++l) config.layers[l].activation_sparsity = 0.95f;
  }
  validate(config, source);
  return config;
}

}  // namespace ple::inline PLE_ABI
