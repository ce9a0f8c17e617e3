// SPDX-License-Identifier: Apache-2.0
// What all families' configurations have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"

namespace ple::inline PLE_ABI {

enum class AttentionType : std::uint8_t { sliding, full };

struct RopeConfig {
  double theta = 10000;  ///< base of the wavelengths
  double fraction = 1;   ///< share of the pairs that rotate ('partial_rotary_factor'); the others keep their angle
  double factor = 1;     ///< divides every frequency
};

/// What may differ from layer to layer, in any family.
struct LayerConfig {
  AttentionType attention = AttentionType::sliding;
  std::size_t head_dim = 256;
  std::size_t num_key_value_heads = 1;
  std::size_t intermediate_size = 6144;
  float activation_sparsity = 0;  ///< share of the feed-forward's gate that becomes 0; 0: none
};

namespace detail {

/// The layer whose K and V layer l uses: itself, or for a shared layer the last unshared one of its type, if any.
template <class Layer>
std::optional<std::size_t> kv_layer(const std::vector<Layer>& layers, std::size_t first_shared, std::size_t l) {
  if (l < first_shared) return l;
  for (std::size_t i = first_shared; i-- > 0;) {
    if (layers[i].attention == layers[l].attention) return i;
  }
  return std::nullopt;
}

/// Range checks. `source` names the file in messages. Errors: ErrorCode::config.
struct ConfigChecks {
  const std::string& source;

  void number(const std::string& field, double value, double least, double most) const {
    if (!(value >= least && value <= most)) {  // NaN is out of range too
      fail(ErrorCode::config, source, ": ", field, " is ", value, ", expected ", least, " to ", most);
    }
  }
  void count(const std::string& field, std::size_t value, std::size_t least, std::size_t most) const {
    if (value < least || value > most) {
      fail(ErrorCode::config, source, ": ", field, " is ", value, ", expected ", least, " to ", most);
    }
  }
  void token(const std::string& field, std::int32_t value, std::size_t limit) const {
    if (value < 0 || static_cast<std::size_t>(value) >= limit) {
      fail(ErrorCode::config, source, ": ", field, " is ", value, ", expected 0 to ", limit - 1);
    }
  }
  void rope(AttentionType type, const RopeConfig& rope) const {
    const std::string name = type == AttentionType::full ? "full_attention" : "sliding_attention";
    number("rope_parameters." + name + ".rope_theta", rope.theta, 1, 1e15);
    number("rope_parameters." + name + ".partial_rotary_factor", rope.fraction, 0, 1);
    number("rope_parameters." + name + ".factor", rope.factor, 1e-6, 1e6);
  }
  /// `at` names the layer. head_dim must be even, and kv_heads must divide query_heads.
  void heads(const std::string& at, std::size_t head_dim, std::size_t kv_heads, std::size_t query_heads) const {
    count(at + "head_dim", head_dim, 2, 65536);
    if (head_dim % 2 != 0)
      fail(ErrorCode::config, source, ": ", at, "head_dim is ", head_dim, ", expected an even number");
    count(at + "num_key_value_heads", kv_heads, 1, query_heads);
    if (query_heads % kv_heads != 0) {
      fail(ErrorCode::config, source, ": ", at, "num_key_value_heads is ", kv_heads,
           ", expected a divisor of num_attention_heads, which is ", query_heads);
    }
  }

  /// Checks what all families have, layer by layer.
  template <class Config>
  void decoder(const Config& config) const {
    count("vocab_size", config.vocab_size, 1, most_tokens);
    count("hidden_size", config.hidden_size, 1, most_width);
    count("num_hidden_layers", config.num_layers(), 1, most_layers);
    count("num_attention_heads", config.num_attention_heads, 1, 4096);
    count("num_kv_shared_layers", config.num_kv_shared_layers, 0, config.num_layers() - 1);
    count("sliding_window", config.sliding_window, 1, most_tokens);
    count("max_position_embeddings", config.max_position_embeddings, 1, most_tokens);
    number("rms_norm_eps", config.rms_norm_eps, 0, 1);
    number("final_logit_softcapping", config.final_logit_softcapping, 0, 1e9);
    for (const AttentionType type : {AttentionType::sliding, AttentionType::full}) rope(type, config.rope(type));
    std::optional<std::size_t> first[2];  // first layer of each attention type
    for (std::size_t l = 0; l < config.num_layers(); ++l) {
      const LayerConfig layer = config.layer(l);
      const std::string at = "layer " + std::to_string(l) + ": ";
      heads(at, layer.head_dim, layer.num_key_value_heads, config.num_attention_heads);
      count(at + "intermediate_size", layer.intermediate_size, 1, most_width * 16);
      if (!(layer.activation_sparsity >= 0 && layer.activation_sparsity < 1)) {  // the normal quantile of 1 is infinite
        fail(ErrorCode::config, source, ": ", at, "activation_sparsity_pattern is ", layer.activation_sparsity,
             ", expected at least 0 and less than 1");
      }
      std::optional<std::size_t>& same = first[static_cast<std::size_t>(layer.attention)];
      if (!same) same = l;
      if (const std::size_t head_dim = config.layer(*same).head_dim; layer.head_dim != head_dim) {
        fail(ErrorCode::config, source, ": ", at, "head_dim is ", layer.head_dim, ", expected ", head_dim,
             " as in layer ", *same, ", which has the same attention type");
      }
      const std::optional<std::size_t> donor = config.kv_layer(l);
      if (!donor) {
        fail(ErrorCode::config, source, ": ", at,
             "shares K and V with an earlier layer of its attention type, but none of the ",
             config.first_shared_layer(), " layers before the shared ones has that type");
      }
      const LayerConfig kv = config.layer(*donor);
      if (kv.num_key_value_heads != layer.num_key_value_heads) {
        fail(ErrorCode::config, source, ": ", at, "head_dim ", layer.head_dim, " and num_key_value_heads ",
             layer.num_key_value_heads, " differ from those of layer ", *donor,
             ", whose K and V it shares: ", kv.head_dim, " and ", kv.num_key_value_heads);
      }
    }
  }

  /// Of a model that may have PLE.
  template <class Config>
  void per_layer_inputs(const Config& config) const {
    count("hidden_size_per_layer_input", config.hidden_size_per_layer_input, 0, 65536);
    if (config.hidden_size_per_layer_input == 0) return;
    count("vocab_size_per_layer_input", config.vocab_size_per_layer_input, 1, most_tokens);
  }

  static constexpr std::size_t most_tokens = std::size_t{1} << 30, most_width = std::size_t{1} << 20,
                               most_layers = 4096;
};

}  // namespace detail

}  // namespace ple::inline PLE_ABI
