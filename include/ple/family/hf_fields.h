// SPDX-License-Identifier: Apache-2.0
// Fields of config.json that mean the same in every family.
#pragma once

#include <charconv>
#include <cstddef>
#include <string>
#include <system_error>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/formats/json_field.h"
#include "ple/model/config.h"

namespace ple::inline PLE_ABI {

namespace detail {

inline RopeConfig rope_config(const JsonField& text, const std::string& type, RopeConfig rope) {
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

/// Each layer's attention type. Without layer_types, every `period`-th layer is full.
inline std::vector<AttentionType> layer_types(const JsonField& text, std::size_t layers, std::size_t period) {
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

/// num_hidden_layers, which must leave at least one layer before the shared ones.
inline std::size_t layer_count(const JsonField& text, std::size_t otherwise, std::size_t shared) {
  const std::size_t layers = text.count("num_hidden_layers", otherwise, 4096);
  if (layers == 0) {
    fail(ErrorCode::config, text.source(), ": ", text.full_name("num_hidden_layers"), " is 0, expected at least 1");
  }
  if (shared >= layers) {
    fail(ErrorCode::config, text.source(), ": ", text.full_name("num_kv_shared_layers"), " is ", shared,
         ", expected less than num_hidden_layers, which is ", layers);
  }
  return layers;
}

/// Replaces head widths and K/V heads of the layers that per_layer_config names. Returns whether the file has it.
inline bool read_per_layer_config(const JsonField& text, std::vector<LayerConfig>& layers) {
  if (!text.object("per_layer_config")) return false;
  for (const Json& member : text.find("per_layer_config")->members()) {
    const std::string key(member.key());
    std::size_t l = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), l);
    if (error != std::errc() || end != key.data() + key.size() || l >= layers.size()) {
      fail(ErrorCode::config, text.source(), ": ", text.full_name("per_layer_config"), " has the key '", key,
           "', expected a layer from 0 to ", layers.size() - 1);
    }
    const JsonField fields(member, text.source(), text.full_name("per_layer_config") + "." + key);
    layers[l].head_dim = fields.count("head_dim", layers[l].head_dim);
    layers[l].num_key_value_heads = fields.count("num_key_value_heads", layers[l].num_key_value_heads);
  }
  return true;
}

/// Refuses features that no family here has.
inline void refuse_other_blocks(const JsonField& text) {
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

}  // namespace detail

/// The text model's name in config.json: "gemma4_text", "gemma3n_text", ...; empty if there is none.
inline std::string hf_model_type(const Json& config_json, const std::string& source) {
  const JsonField top(config_json, source);
  return top.object("text_config").value_or(top).text("model_type", top.text("model_type", ""));
}

/// The family's names of whole models in config.json; those of text models end in "_text".
template <class Config>
std::vector<std::string> hf_model_types() {
  std::vector<std::string> types{Config::model_type};
  if constexpr (requires { Config::grafted_model_type; }) types.emplace_back(Config::grafted_model_type);
  if constexpr (requires { Config::unified_model_type; }) types.emplace_back(Config::unified_model_type);
  return types;
}

/// Whether the model and its text model belong to Config's family.
template <class Config>
bool is_hf_model_of(const Json& config_json, const std::string& source) {
  const std::string whole = JsonField(config_json, source).text("model_type", "");
  const auto is_of = [&](const std::string& type) {
    for (const std::string& family : hf_model_types<Config>()) {
      if (type == family || type == family + "_text") return true;
    }
    return false;
  };
  return is_of(hf_model_type(config_json, source)) && (whole.empty() || is_of(whole));
}

/// Errors: ErrorCode::not_supported for a model of another family.
template <class Config>
void expect_hf_model(const Json& config_json, const std::string& source) {
  if (is_hf_model_of<Config>(config_json, source)) return;
  fail(ErrorCode::not_supported, source, ": model_type is '", hf_model_type(config_json, source), "', expected '",
       Config::model_type, "'");
}

/// Whether the head is the token embedding. A text_config has no say: the head belongs to the whole model.
inline bool hf_tie_word_embeddings(const Json& config_json, const std::string& source) {
  return JsonField(config_json, source).boolean("tie_word_embeddings", true);
}

}  // namespace ple::inline PLE_ABI
