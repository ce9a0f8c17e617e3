// SPDX-License-Identifier: Apache-2.0
// GGUF keys and shapes of architecture gemma3 -> Gemma3Config. Source: llama.cpp's converter and its loader.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/family/gemma3/config.h"
#include "ple/family/gguf_keys.h"
#include "ple/formats/gguf_shards.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// Each layer's attention type: a list, or every n-th is full, n being 6 unless the file says otherwise. A converter
/// that finds all layers full writes no window.
inline std::vector<AttentionType> gemma3_layer_types(const GgufMetadata& keys, const std::string& prefix,
                                                     std::size_t layers) {
  std::vector<AttentionType> types(layers, AttentionType::full);
  if (!keys.has(prefix + "attention.sliding_window")) return types;
  const std::string pattern = prefix + "attention.sliding_window_pattern";
  if (const GgufValue* value = keys.find(pattern); value != nullptr && value->is_array()) {
    const std::vector<bool> sliding = keys.booleans(pattern);
    keys.check_length(pattern, sliding.size(), layers);
    for (std::size_t l = 0; l < layers; ++l) {
      if (sliding[l]) types[l] = AttentionType::sliding;
    }
    return types;
  }
  const std::size_t period = keys.count(pattern, 6);
  for (std::size_t l = 0; l < layers; ++l) {
    if (period == 0 || (l + 1) % period != 0) types[l] = AttentionType::sliding;
  }
  return types;
}

/// What divides the full layers' frequencies.
inline double gemma3_rope_factor(const GgufMetadata& keys, const std::string& prefix) {
  const std::string key = prefix + "rope.scaling.type";
  const std::string_view type = keys.text(key, "linear");
  if (type == "none") return 1;
  if (type != "linear")
    fail(ErrorCode::not_supported, keys.file(), ": ", key, " is '", type, "', expected 'none' or 'linear'");
  const double factor = keys.number(prefix + "rope.scaling.factor", 1);
  return factor == 0 ? 1 : factor;  // 0 is llama.cpp's word for none
}

}  // namespace detail

/// Errors: ErrorCode::missing, config, shape; ErrorCode::not_supported for other models.
inline Gemma3Config gemma3_config(const GgufShards& file) {
  const GgufMetadata& keys = file.metadata();
  const std::string prefix = "gemma3.";
  expect_gguf_model<Gemma3Config>(file);
  const auto count = [&](const char* name, std::optional<std::size_t> otherwise = std::nullopt) {
    return keys.count(prefix + name, otherwise);
  };
  const auto number = [&](const char* name, std::optional<double> otherwise = std::nullopt) {
    return keys.number(prefix + name, otherwise);
  };
  if (number("attn_logit_softcapping", 0) != 0) {
    fail(ErrorCode::not_supported, keys.file(), ": ", prefix, "attn_logit_softcapping is ",
         number("attn_logit_softcapping"), ", expected none, as in every Gemma 3");
  }

  const std::size_t layers = keys.count(prefix + "block_count", std::nullopt, 4096);
  Gemma3Config config;
  config.vocab_size = gguf_rows(file, Parameter::token_embedding);
  config.hidden_size = count("embedding_length");
  config.max_position_embeddings = count("context_length");
  config.num_attention_heads = count("attention.head_count");
  config.sliding_window = count("attention.sliding_window", config.max_position_embeddings);
  config.hidden_size_per_layer_input = count("embedding_length_per_layer_input", 0);
  if (config.hidden_size_per_layer_input > 0) config.vocab_size_per_layer_input = gguf_rows(file, Parameter::ple_table);
  config.tie_word_embeddings = !file.contains(gguf_name(Parameter::head, 0));
  config.rms_norm_eps = static_cast<float>(number("attention.layer_norm_rms_epsilon"));
  config.final_logit_softcapping = static_cast<float>(number("final_logit_softcapping", 0));
  config.sliding_rope.theta = number("rope.freq_base_swa", 10000);
  config.full_rope = {number("rope.freq_base", 10000), 1, detail::gemma3_rope_factor(keys, prefix)};

  const std::size_t heads = config.num_attention_heads;
  if (heads == 0) fail(ErrorCode::config, keys.file(), ": ", prefix, "attention.head_count is 0, expected at least 1");
  const std::size_t head_dim = count("attention.key_length", config.hidden_size / heads),
                    value_dim = count("attention.value_length", head_dim);
  if (value_dim != head_dim) {
    fail(ErrorCode::not_supported, keys.file(), ": ", prefix, "attention.value_length is ", value_dim, ", expected ",
         head_dim, " as ", prefix, "attention.key_length");
  }
  // No key says how scores are scaled. As in llama.cpp, 27B is known by its layers.
  config.query_pre_attn_scalar =
      layers == 62 ? static_cast<double>(config.hidden_size) / static_cast<double>(heads) : double(head_dim);

  const auto types = detail::gemma3_layer_types(keys, prefix, layers);
  const std::vector<std::size_t> kv_heads = keys.per_layer(prefix + "attention.head_count_kv", layers, heads),
                                 widths = keys.per_layer(prefix + "feed_forward_length", layers);
  for (std::size_t l = 0; l < layers; ++l) config.layers.push_back({types[l], head_dim, kv_heads[l], widths[l]});
  validate(config, keys.file());
  return config;
}

}  // namespace ple::inline PLE_ABI
