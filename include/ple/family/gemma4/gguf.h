// SPDX-License-Identifier: Apache-2.0
// GGUF keys and shapes of architecture gemma4 -> Gemma4Config. Source: llama.cpp's converter and its loader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/family/gemma4/config.h"
#include "ple/family/gguf_keys.h"
#include "ple/formats/gguf_shards.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// Whether V is Wk x in full layers: those that own their K and V have no value projection.
inline bool gguf_k_eq_v(const GgufShards& file, const Gemma4Config& config) {
  bool any = false;
  for (std::size_t l = 0; l < config.first_shared_layer(); ++l) {
    if (config.layers[l].attention != AttentionType::full) continue;
    if (file.contains(gguf_name(Parameter::value, l))) return false;
    any = true;
  }
  return any;
}

}  // namespace detail

/// Errors: ErrorCode::missing, config, shape; ErrorCode::not_supported for other models.
inline Gemma4Config gemma4_config(const GgufShards& file) {
  const GgufMetadata& keys = file.metadata();
  const std::string prefix = "gemma4.";
  expect_gguf_model<Gemma4Config>(file);
  refuse_gguf_rope_scaling(keys, prefix);
  const auto count = [&](const char* name, std::optional<std::size_t> otherwise = std::nullopt) {
    return keys.count(prefix + name, otherwise);
  };
  const auto number = [&](const char* name, std::optional<double> otherwise = std::nullopt) {
    return keys.number(prefix + name, otherwise);
  };
  const auto same = [&](const char* name, std::size_t expected, const char* other) {
    const std::size_t found = count(name, expected);
    if (found != expected) {
      fail(ErrorCode::not_supported, keys.file(), ": ", prefix, name, " is ", found, ", expected ", expected, " as ",
           prefix, other);
    }
  };

  const std::size_t layers = keys.count(prefix + "block_count", std::nullopt, 4096);
  Gemma4Config config;
  config.vocab_size = gguf_rows(file, Parameter::token_embedding);
  config.hidden_size = count("embedding_length");
  config.max_position_embeddings = count("context_length");
  config.sliding_window = count("attention.sliding_window");
  config.num_kv_shared_layers = count("attention.shared_kv_layers", 0);
  config.hidden_size_per_layer_input = count("embedding_length_per_layer_input", 0);
  if (config.hidden_size_per_layer_input > 0) config.vocab_size_per_layer_input = gguf_rows(file, Parameter::ple_table);
  config.num_experts = count("expert_count", 0);
  if (config.num_experts > 0) {
    config.top_k_experts = count("expert_used_count");
    config.moe_intermediate_size = count("expert_feed_forward_length");
    config.fused_expert_gate_up = file.contains(gguf_name(Parameter::expert_gate_up, 0));
  }
  config.pad_token_id = static_cast<Token>(keys.count("tokenizer.ggml.padding_token_id", 0, config.vocab_size - 1));
  config.tie_word_embeddings = !file.contains(gguf_name(Parameter::head, 0));
  config.rms_norm_eps = static_cast<float>(number("attention.layer_norm_rms_epsilon"));
  config.final_logit_softcapping = static_cast<float>(number("final_logit_softcapping", 0));
  check_gguf_layers(keys, prefix, layers, config.num_kv_shared_layers);

  const std::vector<std::size_t> heads = keys.per_layer(prefix + "attention.head_count", layers);
  config.num_attention_heads = heads[0];
  for (const std::size_t n : heads) {
    if (n != heads[0]) {
      fail(ErrorCode::not_supported, keys.file(), ": ", prefix, "attention.head_count has ", n, " and ", heads[0],
           ", expected the same number for all layers");
    }
  }
  const std::string pattern = prefix + "attention.sliding_window_pattern";
  const std::vector<bool> sliding = keys.booleans(pattern);
  keys.check_length(pattern, sliding.size(), layers);
  const std::vector<std::size_t> kv_heads = keys.per_layer(prefix + "attention.head_count_kv", layers, heads[0]);
  const std::vector<std::size_t> widths = keys.per_layer(prefix + "feed_forward_length", layers);
  const std::size_t full_head = count("attention.key_length"), sliding_head = count("attention.key_length_swa");
  same("attention.value_length", full_head, "attention.key_length");
  same("attention.value_length_swa", sliding_head, "attention.key_length_swa");
  same("rope.dimension_count", full_head, "attention.key_length");
  same("rope.dimension_count_swa", sliding_head, "attention.key_length_swa");
  bool any_full = false;
  for (std::size_t l = 0; l < layers; ++l) {
    config.layers.push_back({sliding[l] ? AttentionType::sliding : AttentionType::full,
                             sliding[l] ? sliding_head : full_head, kv_heads[l], widths[l]});
    any_full = any_full || !sliding[l];
  }
  config.sliding_rope = {number("rope.freq_base_swa", 10000), 1, 1};
  if (any_full) config.full_rope = gguf_full_rope(file, number("rope.freq_base", 10000), full_head);
  config.attention_k_eq_v = detail::gguf_k_eq_v(file, config);
  validate(config, keys.file());
  return config;
}

}  // namespace ple::inline PLE_ABI
