// SPDX-License-Identifier: Apache-2.0
// Every parameter of a Gemma 4 and its shape, from the configuration alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/family/gemma4/config.h"
#include "ple/model/parameter_shapes.h"

namespace ple::inline PLE_ABI {

/// In the order of Decoder::parameters. Errors: ErrorCode::config.
inline std::vector<ParameterShape> parameter_shapes(const Gemma4Config& config) {
  validate(config, "the configuration");
  const std::uint64_t d = config.hidden_size, p = config.hidden_size_per_layer_input, layers = config.num_layers();
  std::vector<ParameterShape> shapes;
  const auto add = [&](Parameter parameter, std::size_t l, std::vector<std::uint64_t> shape) {
    shapes.push_back({parameter, l, std::move(shape)});
  };
  const std::uint64_t experts = config.num_experts, width = config.moe_intermediate_size;
  const auto add_experts = [&](Parameter parameter, std::size_t l, std::uint64_t rows, std::uint64_t cols) {
    shapes.push_back({parameter, l, {experts, rows, cols}, true, config.top_k_experts});
  };
  add(Parameter::token_embedding, 0, {config.vocab_size, d});
  if (!config.tie_word_embeddings) add(Parameter::head, 0, {config.vocab_size, d});
  if (p > 0) {
    add(Parameter::ple_table, 0, {config.vocab_size_per_layer_input, layers * p});
    add(Parameter::ple_context_projection, 0, {layers * p, d});
    add(Parameter::ple_context_norm, 0, {p});
  }
  for (std::size_t l = 0; l < layers; ++l) {
    add(Parameter::input_norm, l, {d});
    attention_and_mlp_shapes(
        config, l, config.attention_k_eq_v && config.layer(l).attention == AttentionType::full, /*unused_kv=*/false,
        [&](Parameter parameter, std::vector<std::uint64_t> shape, bool) { add(parameter, l, std::move(shape)); });
    if (experts > 0) {
      add(Parameter::post_dense_norm, l, {d});
      add(Parameter::router, l, {experts, d});
      add(Parameter::router_scale, l, {d});
      add(Parameter::expert_scale, l, {experts});
      add(Parameter::pre_experts_norm, l, {d});
      if (config.fused_expert_gate_up) {
        add_experts(Parameter::expert_gate_up, l, 2 * width, d);
      } else {
        add_experts(Parameter::expert_gate, l, width, d);
        add_experts(Parameter::expert_up, l, width, d);
      }
      add_experts(Parameter::expert_down, l, d, width);
      add(Parameter::post_experts_norm, l, {d});
    }
    if (p > 0) {
      add(Parameter::ple_gate, l, {p, d});
      add(Parameter::ple_output, l, {d, p});
      add(Parameter::post_ple_norm, l, {d});
    }
    add(Parameter::layer_scalar, l, {1});
  }
  add(Parameter::final_norm, 0, {d});
  return shapes;
}

}  // namespace ple::inline PLE_ABI
