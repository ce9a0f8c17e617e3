// SPDX-License-Identifier: Apache-2.0
// Every parameter of a Gemma 3n and its shape, from the configuration alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/family/gemma3n/config.h"
#include "ple/model/parameter_shapes.h"

namespace ple::inline PLE_ABI {

/// In the order of Decoder::parameters. Published files have K and V for layers that share another's: listed as unused.
/// Source: the modules of transformers' Gemma3nTextModel. Errors: ErrorCode::config.
inline std::vector<ParameterShape> parameter_shapes(const Gemma3nConfig& config) {
  validate(config, "the configuration");
  const std::uint64_t d = config.hidden_size, p = config.hidden_size_per_layer_input, layers = config.num_layers(),
                      streams = config.altup_num_inputs, rank = config.laurel_rank;
  std::vector<ParameterShape> shapes;
  const auto add = [&](Parameter parameter, std::size_t l, std::vector<std::uint64_t> shape, bool used = true) {
    shapes.push_back({parameter, l, std::move(shape), used});
  };
  add(Parameter::token_embedding, 0, {config.vocab_size, d});
  if (!config.tie_word_embeddings) add(Parameter::head, 0, {config.vocab_size, d});
  add(Parameter::ple_table, 0, {config.vocab_size_per_layer_input, layers * p});
  add(Parameter::ple_context_projection, 0, {layers * p, d});
  add(Parameter::ple_context_norm, 0, {p});
  for (std::size_t i = 0; i + 1 < streams; ++i) add(Parameter::altup_projection, i, {d, d});
  for (std::size_t i = 0; i + 1 < streams; ++i) add(Parameter::altup_unembedding, i, {d, d});
  for (std::size_t l = 0; l < layers; ++l) {
    add(Parameter::altup_router, l, {streams, d});
    add(Parameter::altup_router_norm, l, {d});
    add(Parameter::altup_prediction, l, {streams * streams, streams});
    add(Parameter::altup_correction, l, {streams, streams});
    add(Parameter::altup_output_scale, l, {d}, config.altup_correct_scale);
    add(Parameter::input_norm, l, {d});
    add(Parameter::laurel_left, l, {rank, d});
    add(Parameter::laurel_right, l, {d, rank});
    add(Parameter::post_laurel_norm, l, {d});
    attention_and_mlp_shapes(config, l, /*value_is_key=*/false, /*unused_kv=*/true,
                             [&](Parameter parameter, std::vector<std::uint64_t> shape, bool used) {
                               add(parameter, l, std::move(shape), used);
                             });
    add(Parameter::ple_gate, l, {p, d});
    add(Parameter::ple_output, l, {d, p});
    add(Parameter::post_ple_norm, l, {d});
  }
  add(Parameter::final_norm, 0, {d});
  return shapes;
}

}  // namespace ple::inline PLE_ABI
