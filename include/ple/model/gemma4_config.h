// SPDX-License-Identifier: Apache-2.0
// The numbers that make a Gemma 4 text model: nothing here computes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ple/core/error.h"

namespace ple {

enum class AttentionType : std::uint8_t { sliding, full };

struct RopeConfig {
  double theta = 10000;  ///< base of the wavelengths
  double fraction = 1;   ///< share of the pairs that turn ('partial_rotary_factor'); the others keep their angle
  double factor = 1;     ///< every frequency is divided by it
};

/// What may differ from layer to layer.
struct Gemma4LayerConfig {
  AttentionType attention = AttentionType::sliding;
  std::size_t head_dim = 256;
  std::size_t num_key_value_heads = 1;
  std::size_t intermediate_size = 6144;
};

/// Names are those of Hugging Face's config.json.
struct Gemma4Config {
  std::size_t vocab_size = 262144;
  std::size_t hidden_size = 1536;
  std::size_t num_attention_heads = 8;
  std::size_t num_kv_shared_layers = 0;  ///< the last layers, which attend over an earlier layer's K and V
  std::size_t sliding_window = 512;      ///< positions a sliding layer sees, the token itself included
  std::size_t max_position_embeddings = 131072;
  std::size_t vocab_size_per_layer_input = 262144;
  std::size_t hidden_size_per_layer_input = 256;  ///< p; 0 for a model without PLE
  std::int32_t pad_token_id = 0;                  ///< whose PLE row positions have that are no text
  bool attention_k_eq_v = false;                  ///< full layers use the key projection's output as V
  bool tie_word_embeddings = true;
  float rms_norm_eps = 1e-6f;
  float final_logit_softcapping = 30;  ///< 0 for none
  RopeConfig sliding_rope{10000, 1, 1};
  RopeConfig full_rope{1000000, 0.25, 1};
  std::vector<Gemma4LayerConfig> layers = {};

  std::size_t num_layers() const { return layers.size(); }
  std::size_t first_shared_layer() const { return layers.size() - num_kv_shared_layers; }
  const RopeConfig& rope(AttentionType type) const { return type == AttentionType::full ? full_rope : sliding_rope; }

  /// The layer whose K and V layer `l` attends over: itself, or for a shared layer the last non-shared one of its type.
  std::optional<std::size_t> kv_layer(std::size_t l) const {
    if (l < first_shared_layer()) return l;
    for (std::size_t i = first_shared_layer(); i-- > 0;) {
      if (layers[i].attention == layers[l].attention) return i;
    }
    return std::nullopt;
  }
};

/// What the published models have in common, for `layers` layers of which every `period`-th is full.
inline std::vector<Gemma4LayerConfig> gemma4_layers(std::size_t layers, std::size_t period, Gemma4LayerConfig sliding,
                                                    std::size_t full_kv_heads) {
  std::vector<Gemma4LayerConfig> list(layers, sliding);
  for (std::size_t l = period - 1; l < layers; l += period) {
    list[l].attention = AttentionType::full;
    list[l].head_dim = 512;
    list[l].num_key_value_heads = full_kv_heads;
  }
  return list;
}

/// Gemma 4 E2B, as published.
inline Gemma4Config gemma4_e2b() {
  Gemma4Config config{.hidden_size = 1536, .num_attention_heads = 8, .num_kv_shared_layers = 20, .layers = {}};
  config.layers = gemma4_layers(35, 5, {.num_key_value_heads = 1, .intermediate_size = 6144}, 1);
  for (std::size_t l = config.first_shared_layer(); l < config.num_layers(); ++l)
    config.layers[l].intermediate_size *= 2;
  return config;
}

/// Gemma 4 E4B, as published.
inline Gemma4Config gemma4_e4b() {
  return {.hidden_size = 2560,
          .num_attention_heads = 8,
          .num_kv_shared_layers = 18,
          .layers = gemma4_layers(42, 6, {.num_key_value_heads = 2, .intermediate_size = 10240}, 2)};
}

/// Gemma 4 31B, as published: the same block without PLE.
inline Gemma4Config gemma4_31b() {
  return {.hidden_size = 5376,
          .num_attention_heads = 32,
          .sliding_window = 1024,
          .max_position_embeddings = 262144,
          .hidden_size_per_layer_input = 0,
          .attention_k_eq_v = true,
          .layers = gemma4_layers(60, 6, {.num_key_value_heads = 16, .intermediate_size = 21504}, 4)};
}

/// Refuses numbers that no model can have, before anything is computed or allocated from them.
/// `source` names the file for the message. Errors: ErrorCode::config.
inline void validate(const Gemma4Config& config, const std::string& source) {
  const auto in_range = [&](const std::string& field, double value, double least, double most) {
    if (!(value >= least && value <= most)) {
      fail(ErrorCode::config, source, ": ", field, " is ", value, ", expected ", least, " to ", most);
    }
  };
  const auto count = [&](const std::string& field, std::size_t value, std::size_t least, std::size_t most) {
    if (value < least || value > most) {
      fail(ErrorCode::config, source, ": ", field, " is ", value, ", expected ", least, " to ", most);
    }
  };
  constexpr std::size_t most_tokens = std::size_t{1} << 30, most_width = std::size_t{1} << 20;
  count("vocab_size", config.vocab_size, 1, most_tokens);
  count("hidden_size", config.hidden_size, 1, most_width);
  count("num_hidden_layers", config.num_layers(), 1, 4096);
  count("num_attention_heads", config.num_attention_heads, 1, 4096);
  count("num_kv_shared_layers", config.num_kv_shared_layers, 0, config.num_layers() - 1);
  count("sliding_window", config.sliding_window, 1, most_tokens);
  count("max_position_embeddings", config.max_position_embeddings, 1, most_tokens);
  count("hidden_size_per_layer_input", config.hidden_size_per_layer_input, 0, 65536);
  if (config.hidden_size_per_layer_input > 0) {
    count("vocab_size_per_layer_input", config.vocab_size_per_layer_input, 1, most_tokens);
  }
  in_range("rms_norm_eps", config.rms_norm_eps, 0, 1);
  in_range("final_logit_softcapping", config.final_logit_softcapping, 0, 1e9);
  for (const AttentionType type : {AttentionType::sliding, AttentionType::full}) {
    const std::string name = type == AttentionType::full ? "full_attention" : "sliding_attention";
    in_range("rope_parameters." + name + ".rope_theta", config.rope(type).theta, 1, 1e15);
    in_range("rope_parameters." + name + ".partial_rotary_factor", config.rope(type).fraction, 0, 1);
    in_range("rope_parameters." + name + ".factor", config.rope(type).factor, 1e-6, 1e6);
  }
  for (std::size_t l = 0; l < config.num_layers(); ++l) {
    const Gemma4LayerConfig& layer = config.layers[l];
    const std::string at = "layer " + std::to_string(l) + ": ";
    count(at + "head_dim", layer.head_dim, 2, 65536);
    if (layer.head_dim % 2 != 0)
      fail(ErrorCode::config, source, ": ", at, "head_dim is ", layer.head_dim, ", expected an even number");
    count(at + "num_key_value_heads", layer.num_key_value_heads, 1, config.num_attention_heads);
    if (config.num_attention_heads % layer.num_key_value_heads != 0) {
      fail(ErrorCode::config, source, ": ", at, "num_key_value_heads is ", layer.num_key_value_heads,
           ", expected a divisor of num_attention_heads, which is ", config.num_attention_heads);
    }
    count(at + "intermediate_size", layer.intermediate_size, 1, most_width * 16);
    for (std::size_t i = 0; i < l; ++i) {
      if (config.layers[i].attention == layer.attention && config.layers[i].head_dim != layer.head_dim) {
        fail(ErrorCode::config, source, ": ", at, "head_dim is ", layer.head_dim, ", expected ",
             config.layers[i].head_dim, " as in layer ", i, ", which has the same attention type");
      }
    }
    const std::optional<std::size_t> donor = config.kv_layer(l);
    if (!donor) {
      fail(ErrorCode::config, source, ": ", at,
           "shares the K and V of an earlier layer of its attention type, but none of the ",
           config.first_shared_layer(), " layers before the shared ones has that type");
    }
    const Gemma4LayerConfig& kv = config.layers[*donor];
    if (kv.head_dim != layer.head_dim || kv.num_key_value_heads != layer.num_key_value_heads) {
      fail(ErrorCode::config, source, ": ", at, "head_dim ", layer.head_dim, " and num_key_value_heads ",
           layer.num_key_value_heads, " differ from those of layer ", *donor,
           ", whose K and V it shares: ", kv.head_dim, " and ", kv.num_key_value_heads);
    }
  }
}

}  // namespace ple
