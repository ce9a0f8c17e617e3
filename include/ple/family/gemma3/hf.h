// SPDX-License-Identifier: Apache-2.0
// config.json of Hugging Face -> Gemma3Config. Names, defaults and rules are those of transformers' Gemma3TextConfig.
#pragma once

#include <cstddef>
#include <string>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/family/gemma3/config.h"
#include "ple/family/hf_fields.h"
#include "ple/formats/json_field.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// What divides every frequency: 1, or `factor` for positions that are scaled linearly.
inline double gemma3_rope_factor(const JsonField& rope) {
  const std::string old = rope.text("type", "default"), kind = rope.text("rope_type", old);
  if (kind == "default") return 1;
  if (kind == "linear") return rope.number("factor");
  fail(ErrorCode::not_supported, rope.source(), ": ", rope.full_name(rope.find("rope_type") ? "rope_type" : "type"),
       " is '", kind, "', expected 'default' or 'linear'");
}

/// Newer files have rope_parameters for each attention type. In others each theta is a field of its own, and
/// rope_scaling is for full layers only.
inline void read_gemma3_rope(const JsonField& text, Gemma3Config& config) {
  if (const auto all = text.object("rope_parameters")) {
    const auto read = [&](const char* type, RopeConfig& rope) {
      const auto fields = all->object(type);
      if (fields) rope = {fields->number("rope_theta", rope.theta), 1, gemma3_rope_factor(*fields)};
    };
    read("sliding_attention", config.sliding_rope);
    read("full_attention", config.full_rope);
    return;
  }
  config.sliding_rope.theta = text.number("rope_local_base_freq", config.sliding_rope.theta);
  config.full_rope.theta = text.number("rope_theta", config.full_rope.theta);
  if (const auto scaling = text.object("rope_scaling")) config.full_rope.factor = gemma3_rope_factor(*scaling);
}

inline void refuse_unsupported_gemma3(const JsonField& text) {
  refuse_other_blocks(text);
  // The reference's attention ignores the field: a file that has it is for another model.
  if (const Json* cap = text.find("attn_logit_softcapping")) {
    fail(ErrorCode::not_supported, text.source(), ": ", text.full_name("attn_logit_softcapping"), " is ", cap->brief(),
         ", expected none, as in every Gemma 3");
  }
  if (text.boolean("use_bidirectional_attention", false)) {
    fail(ErrorCode::not_supported, text.source(), ": ", text.full_name("use_bidirectional_attention"),
         " is true: only causal models are supported");
  }
}

}  // namespace detail

/// The text model's configuration: `config_json` itself or its text_config. `source` names the file in messages.
/// Errors: ErrorCode::config; ErrorCode::not_supported for other models and unsupported features.
inline Gemma3Config gemma3_config(const Json& config_json, const std::string& source) {
  const JsonField top(config_json, source);
  const JsonField text = top.object("text_config").value_or(top);
  expect_hf_model<Gemma3Config>(config_json, source);
  detail::refuse_unsupported_gemma3(text);

  Gemma3Config config;
  config.vocab_size = text.count("vocab_size", config.vocab_size);
  config.hidden_size = text.count("hidden_size", config.hidden_size);
  config.num_attention_heads = text.count("num_attention_heads", config.num_attention_heads);
  config.sliding_window = text.count("sliding_window", config.sliding_window);
  config.max_position_embeddings = text.count("max_position_embeddings", config.max_position_embeddings);
  config.hidden_size_per_layer_input = text.count("hidden_size_per_layer_input", 0);
  config.vocab_size_per_layer_input = text.count("vocab_size_per_layer_input", 0);
  config.query_pre_attn_scalar = text.number("query_pre_attn_scalar", config.query_pre_attn_scalar);
  config.tie_word_embeddings = hf_tie_word_embeddings(config_json, source);
  config.rms_norm_eps = static_cast<float>(text.number("rms_norm_eps", 1e-6));
  config.final_logit_softcapping = static_cast<float>(text.number("final_logit_softcapping", 0.0));
  detail::read_gemma3_rope(text, config);

  const std::size_t layers = detail::layer_count(text, 26, 0);
  const std::size_t period = text.count("sliding_window_pattern", 6);
  if (period == 0) text.wrong("sliding_window_pattern", *text.find("sliding_window_pattern"), "at least 1");
  config.layers.assign(layers, {.head_dim = text.count("head_dim", 256),
                                .num_key_value_heads = text.count("num_key_value_heads", 4),
                                .intermediate_size = text.count("intermediate_size", 9216)});
  const auto types = detail::layer_types(text, layers, period);
  for (std::size_t l = 0; l < layers; ++l) config.layers[l].attention = types[l];
  validate(config, source);
  return config;
}

}  // namespace ple::inline PLE_ABI
