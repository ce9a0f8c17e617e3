// SPDX-License-Identifier: Apache-2.0
// A model of one's own from headers: five layers of Gemma 4's block around a table of per-layer embeddings, random
// weights, and the words it would say next.
#include <ple/dispatch.h>
#include <ple/ple.h>

#include <cstdio>
#include <random>

int main() {
  ple::with_best_backend([]<ple::Backend Simd>() {
    using Block = ple::Gemma4Block<ple::bf16, Simd>;  // one decoder layer: weights in bf16
    using Table = ple::PleTable<ple::f16, Simd>;      // the PLE table: a type of its own
    using Model = ple::Decoder<Block, Table>;

    ple::Gemma4Config config{.vocab_size = 1000,
                             .hidden_size = 128,
                             .num_attention_heads = 4,
                             .num_kv_shared_layers = 2,
                             .sliding_window = 64,
                             .vocab_size_per_layer_input = 1000,
                             .hidden_size_per_layer_input = 32};
    const ple::LayerConfig sliding{ple::AttentionType::sliding, 32, 1, 256};
    const ple::LayerConfig full{ple::AttentionType::full, 64, 1, 256};
    config.layers = {sliding, sliding, full, sliding, full};

    Model model(config);
    std::mt19937 generator(1);
    model.parameters([&]<class V>(ple::Parameter, std::size_t, V& values) {
      if constexpr (requires { values.allocate(); }) {  // a matrix; norms and scalars start as 1
        std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(values.cols())));
        auto* stored = values.allocate();
        for (std::size_t i = 0; i < values.rows() * values.cols(); ++i) {
          const float value = normal(generator);
          ple::DtypeTraits<std::remove_reference_t<decltype(*stored)>>::encode(&value, stored[i]);
        }
      }
    });
    model.finalize();

    ple::Session session(model);
    session.read(2);
    ple::Generation generation(session, {.max_tokens = 10});
    std::printf("%zu layers on %s say:", model.blocks.size(), Simd::name());
    while (const auto token = generation.next()) std::printf(" %d", *token);
    std::printf("\n");
  });
}
