// SPDX-License-Identifier: Apache-2.0
// Every parameter of a Gemma 3 and its shape, from the configuration alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/family/gemma3/config.h"
#include "ple/model/parameter_shapes.h"

namespace ple::inline PLE_ABI {

/// In the order of Decoder::parameters. Errors: ErrorCode::config.
inline std::vector<ParameterShape> parameter_shapes(const Gemma3Config& config) {
  validate(config, "the configuration");
  const std::uint64_t d = config.hidden_size, p = config.hidden_size_per_layer_input, layers = config.num_layers();
  std::vector<ParameterShape> shapes;
  const auto add = [&](Parameter parameter, std::size_t l, std::vector<std::uint64_t> shape) {
    shapes.push_back({parameter, l, std::move(shape)});
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
        config, l, /*value_is_key=*/false, /*unused_kv=*/false,
        [&](Parameter parameter, std::vector<std::uint64_t> shape, bool) { add(parameter, l, std::move(shape)); });
    if (p > 0) {
      add(Parameter::ple_gate, l, {p, d});
      add(Parameter::ple_output, l, {d, p});
      add(Parameter::post_ple_norm, l, {d});
    }
  }
  add(Parameter::final_norm, 0, {d});
  return shapes;
}

}  // namespace ple::inline PLE_ABI
