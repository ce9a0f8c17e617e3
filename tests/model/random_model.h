// SPDX-License-Identifier: Apache-2.0
// Small models with random weights, made in memory.
#pragma once

#include <cmath>
#include <random>
#include <type_traits>

#include "ple/family/gemma4/block.h"

namespace ple::testing {

/// Both attention types, a shared tail with wide feed-forwards, PLE; a vocabulary of 101, a window of 5.
inline Gemma4Config small_config() {
  Gemma4Config config{.vocab_size = 101,
                      .hidden_size = 32,
                      .num_attention_heads = 4,
                      .num_kv_shared_layers = 2,
                      .sliding_window = 5,
                      .max_position_embeddings = 256,
                      .vocab_size_per_layer_input = 101,
                      .hidden_size_per_layer_input = 8,
                      .layers = {}};
  const LayerConfig sliding{AttentionType::sliding, 8, 2, 48}, full{AttentionType::full, 16, 2, 48};
  config.layers = {sliding, full, sliding, sliding, full};
  config.layers[3].intermediate_size = config.layers[4].intermediate_size = 96;
  return config;
}

template <class Model>
Model random_model(const typename Model::Config& config, unsigned seed = 1) {
  Model model(config);
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 1);
  model.parameters([&]<class V>(Parameter parameter, std::size_t, V& values) {
    if constexpr (std::is_same_v<V, std::vector<float>>) {
      for (float& value : values) value = 1 + 0.2f * normal(generator);
    } else {
      auto* stored = values.allocate();
      const bool embedding = parameter == Parameter::token_embedding || parameter == Parameter::ple_table;
      const float deviation = embedding ? 0.3f : 1 / std::sqrt(static_cast<float>(values.cols()));
      using Traits = DtypeTraits<std::remove_reference_t<decltype(*stored)>>;
      for (std::size_t i = 0; i < values.rows() * values.cols() / Traits::values_per_block; ++i) {
        float block[Traits::values_per_block];
        for (float& value : block) value = deviation * normal(generator);
        Traits::encode(block, stored[i]);
      }
    }
  });
  model.finalize();
  return model;
}

}  // namespace ple::testing
