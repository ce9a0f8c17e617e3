// SPDX-License-Identifier: Apache-2.0
// config.json of Hugging Face -> Gemma4Config. Names, defaults and rules are those of transformers' Gemma4TextConfig.
#pragma once

#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/token.h"
#include "ple/io/json.h"
#include "ple/model/gemma4_config.h"

namespace ple::inline PLE_ABI {

namespace detail {

constexpr std::size_t most_layers = 4096;

inline RopeConfig rope_config(const JsonFields& text, const std::string& type, RopeConfig rope) {
  const auto all = text.object("rope_parameters");
  const auto fields = all ? all->object(type) : std::nullopt;
  if (!fields) return rope;
  const std::string kind = fields->text("rope_type", "default");
  if (kind != "default" && kind != "proportional") {
    fail(ErrorCode::not_supported, text.source(), ": ", fields->full_name("rope_type"), " is '", kind,
         "', expected 'default' or 'proportional': others are not supported yet");
  }
  const bool proportional = kind == "proportional";  // the default type knows neither fraction nor factor
  return {fields->number("rope_theta", rope.theta), proportional ? fields->number("partial_rotary_factor", 1.0) : 1.0,
          proportional ? fields->number("factor", 1.0) : 1.0};
}

/// Every layer's attention type; where the file does not say, every `period`-th is full.
inline std::vector<AttentionType> layer_types(const JsonFields& text, std::size_t layers, std::size_t period) {
  std::vector<AttentionType> types;
  if (const Json* list = text.find("layer_types")) {
    if (!list->is_array()) text.wrong("layer_types", *list, "an array");
    if (list->items().size() != layers) {
      fail(ErrorCode::config, text.source(), ": ", text.full_name("layer_types"), " has ", list->items().size(),
           " entries, expected num_hidden_layers, which is ", layers);
    }
    for (const Json& entry : list->items()) {
      const bool full = entry.text() == "full_attention";
      if (!full && entry.text() != "sliding_attention")
        text.wrong("layer_types", entry, "'sliding_attention' or 'full_attention'");
      types.push_back(full ? AttentionType::full : AttentionType::sliding);
    }
  } else {
    for (std::size_t l = 0; l < layers; ++l)
      types.push_back((l + 1) % period ? AttentionType::sliding : AttentionType::full);
  }
  return types;
}

/// num_hidden_layers, which must leave a layer before the shared ones.
inline std::size_t layer_count(const JsonFields& text, std::size_t otherwise, std::size_t shared) {
  const std::size_t layers = text.count("num_hidden_layers", otherwise, most_layers);
  if (layers == 0) {
    fail(ErrorCode::config, text.source(), ": ", text.full_name("num_hidden_layers"), " is 0, expected at least 1");
  }
  if (shared >= layers) {
    fail(ErrorCode::config, text.source(), ": ", text.full_name("num_kv_shared_layers"), " is ", shared,
         ", expected less than num_hidden_layers, which is ", layers);
  }
  return layers;
}

/// Head width and K/V heads of the full layers: the published files name them once, newer transformers per layer.
inline void override_layers(const JsonFields& text, Gemma4Config& config) {
  const auto per_layer = text.object("per_layer_config");
  if (!per_layer) {
    const std::size_t head_dim = text.count("global_head_dim", 512);
    for (Gemma4LayerConfig& layer : config.layers) {
      if (layer.attention != AttentionType::full) continue;
      layer.head_dim = head_dim;
      if (config.attention_k_eq_v)
        layer.num_key_value_heads = text.count("num_global_key_value_heads", layer.num_key_value_heads);
    }
    return;
  }
  for (const Json& member : text.find("per_layer_config")->members()) {
    const std::string key(member.key());
    std::size_t l = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), l);
    if (error != std::errc() || end != key.data() + key.size() || l >= config.num_layers()) {
      fail(ErrorCode::config, text.source(), ": ", text.full_name("per_layer_config"), " has the key '", key,
           "', expected a layer from 0 to ", config.num_layers() - 1);
    }
    const JsonFields fields(member, text.source(), text.full_name("per_layer_config.") + key + ".");
    config.layers[l].head_dim = fields.count("head_dim", config.layers[l].head_dim);
    config.layers[l].num_key_value_heads = fields.count("num_key_value_heads", config.layers[l].num_key_value_heads);
  }
}

/// Of every family.
inline void refuse_other_blocks(const JsonFields& text) {
  if (text.boolean("attention_bias", false)) {
    fail(ErrorCode::not_supported, text.source(), ": ", text.full_name("attention_bias"),
         " is true: models with biases are not supported");
  }
  const std::string activation = text.text("hidden_activation", "gelu_pytorch_tanh");
  if (activation != "gelu_pytorch_tanh") {
    fail(ErrorCode::not_supported, text.source(), ": ", text.full_name("hidden_activation"), " is '", activation,
         "': only 'gelu_pytorch_tanh' is supported");
  }
}

/// Of Gemma 4.
inline void refuse_what_is_not_supported(const JsonFields& text) {
  const auto refuse = [&](const char* field, const std::string& found, const char* why) {
    fail(ErrorCode::not_supported, text.source(), ": ", text.full_name(field), " is ", found, ": ", why);
  };
  if (text.boolean("enable_moe_block", false))
    refuse("enable_moe_block", "true", "mixture-of-experts models are not supported yet");
  refuse_other_blocks(text);
  if (text.text("use_bidirectional_attention", "") == "all") {
    refuse("use_bidirectional_attention", "'all'", "only causal models are supported");
  }
}

}  // namespace detail

/// What config.json calls the text model: "gemma4_text", "gemma3n_text", ...; empty if it does not say.
inline std::string hf_model_type(const Json& config_json, const std::string& source) {
  const JsonFields top(config_json, source);
  return top.object("text_config").value_or(top).text("model_type", top.text("model_type", ""));
}

/// "gemma4" or "gemma3n". Errors: ErrorCode::not_supported for any other model; config.
inline std::string hf_family(const Json& config_json, const std::string& source) {
  const JsonFields top(config_json, source);
  const std::string whole = top.text("model_type", ""), text = hf_model_type(config_json, source);
  for (std::string family : {"gemma4", "gemma3n"}) {
    const auto is_of = [&](const std::string& type) { return type == family || type == family + "_text"; };
    if (is_of(text) && (whole.empty() || is_of(whole))) return family;
  }
  fail(ErrorCode::not_supported, source, ": model_type is '", whole.empty() ? text : whole, "'",
       whole.empty() || whole == text ? "" : " with the text model '" + text + "'",
       ": supported are 'gemma4', 'gemma4_text', 'gemma3n' and 'gemma3n_text'");
}

/// Whether the head is the token embedding. Where there is a text_config, its word does not count: the head belongs to
/// the whole model.
inline bool hf_tie_word_embeddings(const Json& config_json, const std::string& source) {
  return JsonFields(config_json, source).boolean("tie_word_embeddings", true);
}

/// The text model's configuration: `config_json` itself, or its text_config. `source` names the file in errors.
/// Errors: ErrorCode::config; ErrorCode::not_supported for other models, and for what a later version may add.
inline Gemma4Config gemma4_config(const Json& config_json, const std::string& source) {
  const JsonFields top(config_json, source);
  const JsonFields text = top.object("text_config").value_or(top);
  if (const std::string family = hf_family(config_json, source); family != "gemma4") {
    fail(ErrorCode::not_supported, source, ": is a ", family, " model, expected gemma4");
  }
  detail::refuse_what_is_not_supported(text);

  Gemma4Config config;
  config.vocab_size = text.count("vocab_size", 262144);
  config.hidden_size = text.count("hidden_size", 2304);
  config.num_attention_heads = text.count("num_attention_heads", 8);
  config.num_kv_shared_layers = text.count("num_kv_shared_layers", 0);
  config.sliding_window = text.count("sliding_window", 512);
  config.max_position_embeddings = text.count("max_position_embeddings", 131072);
  config.vocab_size_per_layer_input = text.count("vocab_size_per_layer_input", 262144);
  config.hidden_size_per_layer_input = text.count("hidden_size_per_layer_input", 256);
  config.pad_token_id = static_cast<Token>(text.count("pad_token_id", 0, config.vocab_size - 1));
  config.attention_k_eq_v = text.boolean("attention_k_eq_v", false);
  config.tie_word_embeddings = hf_tie_word_embeddings(config_json, source);
  config.rms_norm_eps = static_cast<float>(text.number("rms_norm_eps", 1e-6));
  config.final_logit_softcapping = static_cast<float>(text.number("final_logit_softcapping", 0.0));
  config.sliding_rope = detail::rope_config(text, "sliding_attention", config.sliding_rope);
  config.full_rope = detail::rope_config(text, "full_attention", config.full_rope);

  const std::size_t layers = detail::layer_count(text, 30, config.num_kv_shared_layers);
  const bool double_wide = text.boolean("use_double_wide_mlp", false);
  const Gemma4LayerConfig common{AttentionType::sliding, text.count("head_dim", 256),
                                 text.count("num_key_value_heads", 4), text.count("intermediate_size", 9216)};
  config.layers.assign(layers, common);
  auto types = detail::layer_types(text, layers, 6);
  types.back() = AttentionType::full;  // whatever the file says
  for (std::size_t l = 0; l < layers; ++l) {
    config.layers[l].attention = types[l];
    if (double_wide && l >= config.first_shared_layer()) config.layers[l].intermediate_size *= 2;
  }
  detail::override_layers(text, config);
  validate(config, source);
  return config;
}

/// The same by the configuration's type: Gemma4Config, or with ple/io/hf_gemma3n_config.h Gemma3nConfig.
template <class Config>
Config hf_config(const Json& config_json, const std::string& source) = delete;
template <>
inline Gemma4Config hf_config(const Json& config_json, const std::string& source) {
  return gemma4_config(config_json, source);
}

}  // namespace ple::inline PLE_ABI
