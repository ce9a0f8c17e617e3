// SPDX-License-Identifier: Apache-2.0
// GGUF keys and shapes of architecture gemma3n -> Gemma3nConfig. Source: llama.cpp's converter and its loader.
#pragma once

#include <cmath>
#include <cstddef>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/family/gemma3n/config.h"
#include "ple/family/gguf_keys.h"
#include "ple/formats/gguf_shards.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

/// Errors: ErrorCode::missing, config, shape; ErrorCode::not_supported for other models.
inline Gemma3nConfig gemma3n_config(const GgufShards& file) {
  const GgufMetadata& keys = file.metadata();
  const std::string prefix = "gemma3n.";
  expect_gguf_model<Gemma3nConfig>(file);
  refuse_gguf_rope_scaling(keys, prefix);
  const auto count = [&](const char* name) { return keys.count(prefix + name); };
  const auto number = [&](const char* name, std::optional<double> otherwise) {
    return keys.number(prefix + name, otherwise);
  };

  const std::size_t layers = keys.count(prefix + "block_count", std::nullopt, 4096);
  Gemma3nConfig config;
  config.vocab_size = gguf_rows(file, Parameter::token_embedding);
  config.hidden_size = count("embedding_length");
  config.num_attention_heads = count("attention.head_count");
  config.num_key_value_heads = count("attention.head_count_kv");
  config.head_dim = count("attention.key_length");
  config.num_kv_shared_layers = count("attention.shared_kv_layers");
  config.sliding_window = count("attention.sliding_window");
  config.max_position_embeddings = count("context_length");
  config.vocab_size_per_layer_input = gguf_rows(file, Parameter::ple_table);
  config.hidden_size_per_layer_input = count("embedding_length_per_layer_input");
  config.altup_num_inputs = count("altup.num_inputs");
  config.altup_active_idx = count("altup.active_idx");
  config.altup_correct_scale = file.contains(gguf_name(Parameter::altup_output_scale, 0));
  config.laurel_rank = gguf_rows(file, Parameter::laurel_left);
  config.tie_word_embeddings = !file.contains(gguf_name(Parameter::head, 0));
  config.rms_norm_eps = static_cast<float>(number("attention.layer_norm_rms_epsilon", std::nullopt));
  config.final_logit_softcapping = static_cast<float>(number("final_logit_softcapping", 0));
  config.sliding_rope.theta = number("rope.freq_base_swa", 10000);
  config.full_rope.theta = number("rope.freq_base", 1000000);
  check_gguf_layers(keys, prefix, layers, config.num_kv_shared_layers);

  const std::string pattern = prefix + "attention.sliding_window_pattern",
                    scales = prefix + "activation_sparsity_scale";
  const std::vector<bool> sliding = keys.booleans(pattern);
  keys.check_length(pattern, sliding.size(), layers);
  const std::vector<double> quantiles = keys.numbers(scales);  // normal, of the shares made 0; -infinity: none
  keys.check_length(scales, quantiles.size(), layers);
  const std::vector<std::size_t> widths = keys.per_layer(prefix + "feed_forward_length", layers);
  for (std::size_t l = 0; l < layers; ++l) {
    config.layers.push_back({sliding[l] ? AttentionType::sliding : AttentionType::full, widths[l],
                             static_cast<float>(std::erfc(-quantiles[l] / std::numbers::sqrt2) / 2)});
  }
  validate(config, keys.file());
  return config;
}

}  // namespace ple::inline PLE_ABI
