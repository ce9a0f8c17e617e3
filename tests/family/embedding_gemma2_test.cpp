// SPDX-License-Identifier: Apache-2.0
// EmbeddingGemma 2's fields in config.json, its names in files, and who refuses to open it
// (tests/model/encoder_test.cpp has its vectors).
#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>

#include "ple/family/embedding_gemma2/block.h"
#include "ple/ple.h"

namespace ple::embedding_gemma2_test {

namespace {

const std::filesystem::path data = std::filesystem::path(PLE_TEST_DATA) / "golden_embedding_gemma2";

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

EmbeddingGemma2Config read(const std::string& json) {
  return embedding_gemma2_config(parse_json(json, "config.json"), "config.json");
}

bool is_full(const EmbeddingGemma2Config& config, std::size_t l) {
  return config.layer(l).attention == AttentionType::full;
}

}  // namespace

TEST_CASE("EmbeddingGemma 2: absent fields have the reference's defaults, which are the published shape") {
  const EmbeddingGemma2Config empty = read(R"({"model_type": "embedding_gemma2_text"})"), built_in = embedding_gemma2();
  for (const EmbeddingGemma2Config& config : {empty, built_in}) {
    CHECK(config.vocab_size == 262144);
    CHECK(config.hidden_size == 512);
    CHECK(config.num_attention_heads == 4);
    CHECK(config.hidden_size_per_layer_input == 512);
    CHECK(config.sliding_window == 512);
    CHECK(config.max_position_embeddings == 262144);
    CHECK(config.embedding_dim == 768);
    CHECK(config.rms_norm_eps == 1e-6f);
    CHECK(config.sliding_rope.theta == 10000);
    CHECK(config.full_rope.theta == 1000000);
    CHECK(config.full_rope.fraction == 1);
    REQUIRE(config.num_layers() == 24);
    for (std::size_t l = 0; l < 24; ++l) {
      CHECK(is_full(config, l) == (l % 6 == 5));
      CHECK(config.layer(l).head_dim == (l % 6 == 5 ? 512 : 256));
      CHECK(config.layer(l).num_key_value_heads == (l % 6 == 5 ? 1 : 2));
      CHECK(config.layer(l).intermediate_size == 2048);
    }
  }
  CHECK(empty.soft_tokens.empty());
  CHECK(read(R"({"model_type": "embedding_gemma2", "text_config": {"model_type": "embedding_gemma2_text"}})")
            .soft_tokens == std::vector<Token>{258880, 258884, 258881});

  // The model card: 270 M, of which 140 M are what makes embeddings.
  EmbeddingGemma2<bf16> model(built_in);
  std::uint64_t embedder = 0, rest = 0;
  for (const ParameterShape& shape : parameter_shapes_of(model)) {
    const bool first =
        shape.parameter == Parameter::token_embedding || shape.parameter == Parameter::ple_context_projection;
    (first ? embedder : rest) += shape.count();
  }
  CHECK(embedder == 140'509'184);
  CHECK(rest == 130'493'464);
}

TEST_CASE("EmbeddingGemma 2: fields of config.json in their older and their newer form, and what is refused") {
  const EmbeddingGemma2Config older = read(R"({"model_type": "embedding_gemma2_text", "num_hidden_layers": 4,
      "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"],
      "global_head_dim": 64, "num_global_key_value_heads": 4})");
  const EmbeddingGemma2Config newer = read(R"({"model_type": "embedding_gemma2_text", "num_hidden_layers": 4,
      "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
      "per_layer_config": {"00": {"head_dim": 64, "num_key_value_heads": 4},
                           "3": {"head_dim": 64, "num_key_value_heads": 4}}})");
  for (const EmbeddingGemma2Config& config : {older, newer}) {
    for (std::size_t l = 0; l < 4; ++l) {
      const bool full = l == 0 || l == 3;  // the last one is, whatever the file says
      CHECK(is_full(config, l) == full);
      CHECK(config.layer(l).head_dim == (full ? 64 : 256));
      CHECK(config.layer(l).num_key_value_heads == (full ? 4 : 2));
    }
  }
  const auto says = [](const std::string& fields, const std::string& part) {
    const std::string found = message([&] { read(R"({"model_type": "embedding_gemma2_text", )" + fields + "}"); });
    CAPTURE(found);
    CHECK(found.find("config.json: " + part) != std::string::npos);
  };
  says(R"("embedding_dim": 0)", "embedding_dim is 0");
  says(R"("hidden_size_per_layer_input": 0)", "hidden_size_per_layer_input is 0");
  says(R"("sliding_window": 0)", "sliding_window is 0");
  says(R"("num_key_value_heads": 3)", "layer 0: num_key_value_heads is 3");
  says(R"("pad_token_id": 262144)", "pad_token_id is 262144, expected 0 to 262143");
  says(R"("per_layer_config": {"24": {}})", "per_layer_config has the key '24', expected a layer from 0 to 23");
  says(R"("attention_bias": true)", "attention_bias is true");
  says(R"("rope_parameters": {"full_attention": {"rope_type": "yarn"}})", "rope_parameters.full_attention.rope_type");
}

TEST_CASE("EmbeddingGemma 2: PLE's tensors are in modules of their own; the whole model's begin with language_model") {
  CHECK(embedding_gemma2_name("language_model.", Parameter::ple_context_norm, 0) ==
        "language_model.ple.per_layer_projection_norm.weight");
  CHECK(embedding_gemma2_name("", Parameter::ple_gate, 3) == "layers.3.ple_block.per_layer_input_gate.weight");
  CHECK(embedding_gemma2_name("", Parameter::gate, 3) == "layers.3.mlp.gate_proj.weight");
  const HfFolder whole(data / "270m_like"), text(data / "odd_sizes");
  CHECK(whole.prefix() == "language_model.");
  CHECK(text.prefix().empty());
  for (const HfFolder* folder : {&whole, &text}) {
    EmbeddingGemma2<> model(folder->config<EmbeddingGemma2Config>());
    std::size_t known = 0;
    model.parameters([&](Parameter parameter, std::size_t layer, const auto&) {
      CHECK(folder->has(parameter, layer));
      ++known;
    });
    std::size_t inside = 0;  // nothing of the text model is left over
    for (const auto& [name, file] : folder->tensor_files()) inside += !folder->names().inside(name).empty();
    CHECK(inside == known);
  }
}

TEST_CASE("EmbeddingGemma 2: what writes texts says that this is an encoder; and an encoder that others are none") {
  const std::string expected =
      "config.json: model_type is 'embedding_gemma2_text': EmbeddingGemma 2 makes vectors of texts and writes none: "
      "examples/embed opens it";
  for (const char* name : {"270m_like", "odd_sizes"}) {
    CAPTURE(name);
    const std::string found = message([&] { Checkpoint::open(data / name); });
    CAPTURE(found);
    CHECK(found.find(expected) != std::string::npos);
    const HfFolder folder(data / name);
    CHECK(message([&] { folder.any_config(); }).find(expected) != std::string::npos);
    CHECK(message([&] { Gemma4<>::load(folder); }).find("model_type is 'embedding_gemma2_text', expected 'gemma4'") !=
          std::string::npos);
  }
  const HfFolder gemma4(std::filesystem::path(PLE_TEST_DATA) / "golden" / "e2b_like");
  CHECK(message([&] { EmbeddingGemma2<>::load(gemma4); }).find("expected 'embedding_gemma2'") != std::string::npos);
}

}  // namespace ple::embedding_gemma2_test
