// SPDX-License-Identifier: Apache-2.0
// A parameter and its shape. Each family's shapes.h lists them from a configuration alone.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ple/core/config.h"
#include "ple/model/config.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

struct ParameterShape {
  Parameter parameter = Parameter::token_embedding;
  std::size_t layer = 0;  ///< 0 if there is only one; as Parameter says for AltUp's projections
  std::vector<std::uint64_t> shape = {};
  bool used = true;                     ///< false: published files hold it, but no token needs it
  std::uint64_t experts_per_token = 0;  ///< of shape[0] experts, those that a token needs; 0: it is not of experts

  std::uint64_t count() const {
    std::uint64_t n = 1;
    for (const std::uint64_t size : shape) n *= size;
    return n;
  }
  /// Of count(), what one token needs.
  std::uint64_t count_per_token() const {
    return experts_per_token > 0 ? count() / shape[0] * experts_per_token : count();
  }
};

/// The shapes of model.parameters(), in its order.
template <class Model>
std::vector<ParameterShape> parameter_shapes_of(Model& model) {
  std::vector<ParameterShape> shapes;
  model.parameters([&]<class V>(Parameter parameter, std::size_t layer, V& values) {
    if constexpr (std::same_as<V, std::vector<float>>) {
      shapes.push_back({parameter, layer, {values.size()}});
    } else if (part_of(parameter) == ParameterPart::experts) {
      if constexpr (requires { model.config.num_experts; }) {
        const std::uint64_t experts = model.config.num_experts;
        shapes.push_back({parameter, layer, {experts, values.rows() / experts, values.cols()}});
      }
    } else {
      shapes.push_back({parameter, layer, {values.rows(), values.cols()}});
    }
  });
  return shapes;
}

/// Calls add(Parameter, shape, used) for what attention_and_mlp_parameters() finds in layer l. unused_kv: also for the
/// K and V of layers that share another's.
template <class Config, class F>
void attention_and_mlp_shapes(const Config& config, std::size_t l, bool value_is_key, bool unused_kv, F&& add) {
  const LayerConfig layer = config.layer(l);
  const bool owns_kv = config.kv_layer(l) == l;
  const std::uint64_t d = config.hidden_size, head = layer.head_dim, intermediate = layer.intermediate_size,
                      q_width = config.num_attention_heads * head, kv_width = layer.num_key_value_heads * head;
  using Shape = std::vector<std::uint64_t>;
  add(Parameter::query, Shape{q_width, d}, true);
  add(Parameter::query_norm, Shape{head}, true);
  if (owns_kv || unused_kv) {
    add(Parameter::key, Shape{kv_width, d}, owns_kv);
    if (!value_is_key) add(Parameter::value, Shape{kv_width, d}, owns_kv);
    add(Parameter::key_norm, Shape{head}, owns_kv);
  }
  add(Parameter::attention_output, Shape{d, q_width}, true);
  add(Parameter::post_attention_norm, Shape{d}, true);
  add(Parameter::pre_feed_forward_norm, Shape{d}, true);
  add(Parameter::gate, Shape{intermediate, d}, true);
  add(Parameter::up, Shape{intermediate, d}, true);
  add(Parameter::down, Shape{d, intermediate}, true);
  add(Parameter::post_feed_forward_norm, Shape{d}, true);
}

}  // namespace ple::inline PLE_ABI
