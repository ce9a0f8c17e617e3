// SPDX-License-Identifier: Apache-2.0
// What Gemma 3 has of its own beside the logits (tests/model/golden_test.cpp): its fields in both kinds of files, and
// norms that Hugging Face's files store without the 1 that is added.
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "../formats/gguf_writer.h"
#include "../temporary.h"
#include "gemma3_gguf.h"
#include "ple/family/gemma3/family.h"
#include "ple/ple.h"

namespace ple::gemma3_test {

using ple::testing::GgufWriter;

namespace {

const std::filesystem::path data = std::filesystem::path(PLE_TEST_DATA) / "golden_gemma3";

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

Gemma3Config read(const std::string& json) { return gemma3_config(parse_json(json, "config.json"), "config.json"); }

bool is_full(const Gemma3Config& config, std::size_t l) { return config.layer(l).attention == AttentionType::full; }

std::vector<std::uint32_t> logits_of(const std::filesystem::path& path) {
  const auto model = Gemma3<Any, testing::ChosenBackend>::load(Checkpoint::open(path));
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < 40; ++i) tokens.push_back(static_cast<Token>(i * 37 % model.vocab_size()));
  Session session(model, {.context = 64, .chunk = 16, .threads = 2});
  std::vector<std::uint32_t> bits;
  session.evaluate(tokens, [&](std::size_t, std::span<const float> logits) {
    for (const float logit : logits) bits.push_back(std::bit_cast<std::uint32_t>(logit));
  });
  return bits;
}

}  // namespace

TEST_CASE(
    "Gemma 3: config.json's fields in their older and their newer form mean the same, and absent ones the default") {
  const Gemma3Config empty = read(R"({"model_type": "gemma3_text"})");
  CHECK(empty.vocab_size == 262208);
  CHECK(empty.hidden_size == 2304);
  CHECK(empty.num_layers() == 26);
  CHECK(empty.num_attention_heads == 8);
  CHECK(empty.layer(0).num_key_value_heads == 4);
  CHECK(empty.layer(0).head_dim == 256);
  CHECK(empty.layer(0).intermediate_size == 9216);
  CHECK(empty.sliding_window == 4096);
  CHECK(empty.query_pre_attn_scalar == 256);
  CHECK(empty.final_logit_softcapping == 0);
  CHECK(empty.tie_word_embeddings);
  for (std::size_t l = 0; l < 26; ++l) CHECK(is_full(empty, l) == (l % 6 == 5));

  const Gemma3Config older = read(R"({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text",
      "num_hidden_layers": 4, "sliding_window_pattern": 2, "rope_theta": 500000.0, "rope_local_base_freq": 20000,
      "rope_scaling": {"rope_type": "linear", "factor": 8.0}}})");
  const Gemma3Config newer = read(R"({"model_type": "gemma3_text", "num_hidden_layers": 4,
      "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
      "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8, "rope_theta": 500000},
                          "sliding_attention": {"rope_type": "default", "rope_theta": 20000}}})");
  for (const Gemma3Config& config : {older, newer}) {
    for (std::size_t l = 0; l < 4; ++l) CHECK(is_full(config, l) == (l % 2 == 1));
    CHECK(config.full_rope.theta == 500000);
    CHECK(config.full_rope.factor == 8);
    CHECK(config.sliding_rope.theta == 20000);
    CHECK(config.sliding_rope.factor == 1);
  }
  CHECK(read(R"({"model_type": "gemma3_text", "rope_scaling": null})").full_rope.factor == 1);
}

TEST_CASE("Gemma 3: what config.json asks for and this family does not have is refused") {
  const auto says = [](const std::string& fields, const std::string& part) {
    const std::string found = message([&] { read(R"({"model_type": "gemma3_text", )" + fields + "}"); });
    CAPTURE(found);
    CHECK(found.find("config.json: " + part) != std::string::npos);
  };
  says(R"("attn_logit_softcapping": 50.0)", "attn_logit_softcapping is 50.0, expected none");
  says(R"("use_bidirectional_attention": true)", "use_bidirectional_attention is true");
  says(R"("rope_scaling": {"rope_type": "yarn", "factor": 2.0})", "rope_scaling.rope_type is 'yarn'");
  says(R"("rope_scaling": {"type": "dynamic", "factor": 2.0})", "rope_scaling.type is 'dynamic'");
  says(R"("rope_scaling": {"rope_type": "linear", "factor": 0})", "rope_parameters.full_attention.factor is 0");
  says(R"("query_pre_attn_scalar": 0)", "query_pre_attn_scalar is 0");
  says(R"("sliding_window_pattern": 0)", "sliding_window_pattern is 0, expected at least 1");
  says(R"("num_key_value_heads": 3)", "layer 0: num_key_value_heads is 3");
}

TEST_CASE("Gemma 3: the published shapes have the published numbers of parameters") {
  const auto millions = [](const Gemma3Config& config) {
    std::uint64_t all = 0, embedding = 0;
    for (const ParameterShape& shape : parameter_shapes(config)) {
      all += shape.count();
      if (shape.parameter == Parameter::token_embedding) embedding = shape.count();
    }
    const auto rounded = [](std::uint64_t n) { return (n + 500'000) / 1'000'000; };
    return std::pair(rounded(embedding), rounded(all - embedding));
  };
  CHECK(millions(gemma3_270m()) == std::pair<std::uint64_t, std::uint64_t>(168, 100));
  CHECK(millions(gemma3_1b()) == std::pair<std::uint64_t, std::uint64_t>(302, 698));
  CHECK(millions(gemma3_4b()) == std::pair<std::uint64_t, std::uint64_t>(671, 3209));
  CHECK(millions(gemma3_12b()) == std::pair<std::uint64_t, std::uint64_t>(1007, 10759));
  CHECK(millions(gemma3_27b()) == std::pair<std::uint64_t, std::uint64_t>(1410, 25600));
}

TEST_CASE("Gemma 3: a GGUF file means what the folder means that it was made from, to the last bit") {
  testing::TemporaryFolder temporary;
  // GGUF does not say how scores are scaled: it is by sqrt(head_dim), but in 27B. So all shapes but 27b_like, of fewer
  // layers, and odd_sizes, odd_sizes_f16 and published_style, which scale otherwise.
  for (const std::string name :
       {"270m_like", "270m_like_bf16", "4b_like", "all_full", "any_order_of_layers", "untied_head",
        "window_longer_than_text", "window_tiny", "with_ple", "with_ple_bf16"}) {
    CAPTURE(name);
    const auto path = temporary / "model.gguf";
    testing::gemma3_gguf_of(data / name).write(path);
    const auto folder = Checkpoint::open(data / name), file = Checkpoint::open(path);
    const auto &a = folder.config<Gemma3Config>(), &b = file.config<Gemma3Config>();
    std::vector<double> fields[2];
    for_each_field(a, [&](auto field) { fields[0].push_back(static_cast<double>(field)); });
    for_each_field(b, [&](auto field) { fields[1].push_back(static_cast<double>(field)); });
    CHECK(fields[0] == fields[1]);
    CHECK(logits_of(data / name) == logits_of(path));
  }
}

TEST_CASE("Gemma 3: what GGUF's keys leave out, and what they may say") {
  testing::TemporaryFolder temporary;
  const GgufWriter original = testing::gemma3_gguf_of(data / "270m_like");
  const auto config = [&](const std::function<void(GgufWriter&)>& change) {
    GgufWriter file = original;
    change(file);
    file.write(temporary / "changed.gguf");
    return Checkpoint::open(temporary / "changed.gguf").config<Gemma3Config>();
  };
  const std::string pattern = "gemma3.attention.sliding_window_pattern";
  const Gemma3Config twos = config([&](auto& f) { f.count(pattern, 2); });
  for (std::size_t l = 0; l < twos.num_layers(); ++l) CHECK(is_full(twos, l) == (l % 2 == 1));
  const Gemma3Config list = config([&](auto& f) {
    f.numbers(pattern, GgufWriter::boolean, std::vector<std::uint8_t>{0, 1, 1, 0, 0, 1, 1, 1});
  });
  for (std::size_t l = 0; l < 8; ++l) CHECK(is_full(list, l) == (l == 0 || l == 3 || l == 4));
  const Gemma3Config full = config([](auto& f) { f.remove("gemma3.attention.sliding_window"); });
  for (std::size_t l = 0; l < 8; ++l) CHECK(is_full(full, l));
  const Gemma3Config none = config([](auto& f) { f.text("gemma3.rope.scaling.type", "none"); });
  CHECK(none.full_rope.factor == 1);
  // 27B, which llama.cpp knows by its layers: scores are divided by sqrt(d / heads), not sqrt(head_dim).
  const Gemma3Config many = config([](auto& f) { f.remove("gemma3.block_count").count("gemma3.block_count", 62); });
  CHECK(many.query_pre_attn_scalar == 10);
  CHECK(twos.query_pre_attn_scalar == 16);

  const auto says = [&](const std::string& part, const std::function<void(GgufWriter&)>& change) {
    const std::string found = message([&] { config(change); });
    CAPTURE(found);
    CHECK(found.find("changed.gguf: " + part) != std::string::npos);
  };
  says("gemma3.rope.scaling.type is 'yarn', expected 'none' or 'linear'",
       [](auto& f) { f.text("gemma3.rope.scaling.type", "yarn"); });
  says("gemma3.attn_logit_softcapping is 50", [](auto& f) { f.number("gemma3.attn_logit_softcapping", 50); });
  says("gemma3.attention.head_count is 0",
       [](auto& f) { f.remove("gemma3.attention.head_count").count("gemma3.attention.head_count", 0); });
  says("gemma3.attention.value_length is 8, expected 16",
       [](auto& f) { f.remove("gemma3.attention.value_length").count("gemma3.attention.value_length", 8); });
  says(pattern + " has 3 entries, expected one for each of the 8 layers", [&](auto& f) {
    f.numbers(pattern, GgufWriter::boolean, std::vector<std::uint8_t>{0, 1, 1});
  });
  says("gemma3.expert_count is 8", [](auto& f) { f.count("gemma3.expert_count", 8); });
}

TEST_CASE("Gemma 3: norms multiply by 1 + w, in the folder's type whatever it is; Gemma 4's by w") {
  for (const char* name : {"270m_like", "270m_like_bf16", "odd_sizes_f16"}) {
    CAPTURE(name);
    const HfFolder folder(data / name);
    const std::string stored_name = folder.names().name(Parameter::input_norm, 1);
    const Tensor stored = folder.tensor_files().at(stored_name)->tensor(stored_name),
                 norm = folder.tensor(Parameter::input_norm, 1);
    REQUIRE(norm.dtype == Dtype::f32);
    REQUIRE(norm.shape == stored.shape);
    Matrix<Any> row(1, stored.shape[0]);
    Tensor as_row = stored;
    as_row.shape = {1, stored.shape[0]};
    row.load(as_row);
    std::vector<float> w(stored.shape[0]);
    row.visit([&](const auto& values) { Scalar::decode(values.row(0), w.size(), w.data()); });
    const auto* found = reinterpret_cast<const float*>(norm.data);
    for (std::size_t i = 0; i < w.size(); ++i) CHECK(found[i] == w[i] + 1);
  }
  const HfFolder gemma4(std::filesystem::path(PLE_TEST_DATA) / "golden" / "e2b_like");
  const std::string name = gemma4.names().name(Parameter::input_norm, 1);
  CHECK(gemma4.tensor(Parameter::input_norm, 1).data == gemma4.tensor_files().at(name)->tensor(name).data);
}

}  // namespace ple::gemma3_test
