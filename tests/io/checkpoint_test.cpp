// SPDX-License-Identifier: Apache-2.0
#include "ple/io/checkpoint.h"

#include <doctest/doctest.h>

#include "folder.h"

namespace ple::checkpoint_test {

using ple::testing::Folder;
using ple::testing::safetensors;
using ple::testing::write_file;

TEST_CASE("a tensor is used where it lies, and copied only if it lies at an odd place") {
  Folder folder;
  folder.write();
  for (const std::size_t shift : {0u, 1u, 2u, 3u}) {
    std::string header = folder.header.dump();
    header.append((8 - header.size() % 8) % 8 + shift, ' ');
    write_file(folder.model(), safetensors(header, folder.data));
    const SafetensorsFile file = SafetensorsFile::open(folder.model());
    const Tensor a = file.tensor("model.norm.weight"), b = file.tensor("model.norm.weight");
    CHECK(reinterpret_cast<std::uintptr_t>(a.data) % 4 == 0);
    CHECK((a.data == b.data) == (shift == 0));
    CHECK(reinterpret_cast<const float*>(a.data)[7] == 0.25f);
    CHECK(a.shape == std::vector<std::uint64_t>{8});
  }
}

TEST_CASE("stop tokens and sampling come from generation_config.json, or else from config.json") {
  Folder folder;
  folder.write();
  CHECK(Checkpoint::open(folder.path()).stop_tokens() == std::vector<Token>{1});
  CHECK(Checkpoint::open(folder.path()).recommended_sampling().temperature == 0);
  write_file(folder.path() / "generation_config.json",
             R"({"eos_token_id":[1,7],"do_sample":true,"temperature":0.7,"top_k":40,"top_p":0.9})");
  const auto checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.stop_tokens() == std::vector<Token>{1, 7});
  CHECK(checkpoint.recommended_sampling().temperature == 0.7f);
  CHECK(checkpoint.recommended_sampling().top_k == 40);
  CHECK(checkpoint.recommended_sampling().top_p == 0.9f);
  write_file(folder.path() / "generation_config.json", R"({"temperature":0.7})");
  CHECK(Checkpoint::open(folder.path()).recommended_sampling().temperature == 0);
}

TEST_CASE("the chat template is its own file, or stands in tokenizer_config.json") {
  Folder folder;
  folder.write();
  CHECK(!Checkpoint::open(folder.path()).chat_template());
  write_file(folder.path() / "tokenizer_config.json", R"({"chat_template":"<|turn>a<turn|>"})");
  CHECK(Checkpoint::open(folder.path()).chat_template() == "<|turn>a<turn|>");
  write_file(folder.path() / "chat_template.jinja", "<|turn>b<turn|>");
  CHECK(Checkpoint::open(folder.path()).chat_template() == "<|turn>b<turn|>");
}

TEST_CASE("a model lives on without its checkpoint") {
  Folder folder;
  folder.write();
  const auto model = Gemma4<Any, Simd>::load(Checkpoint::open(folder.path()));
  float last = 0;
  visit_floats(model.embedding, [&](const auto& m) { last = to_f32(m.row(19)[7]); });
  CHECK(last == 0.25f);
}

TEST_CASE("a configuration in the published style, nested or flat, and in the newer one mean the same") {
  const auto parse = [](const char* text) { return gemma4_config(parse_json(text, "config.json"), "config.json"); };
  const char* inner =
      R"("model_type":"gemma4_text","hidden_size":64,"num_hidden_layers":6,"num_attention_heads":8,"num_key_value_heads":4,
    "head_dim":16,"intermediate_size":100,"hidden_size_per_layer_input":0,"attention_k_eq_v":true,"final_logit_softcapping":30.0)";
  const std::string flat = "{" + std::string(inner) + R"(,"global_head_dim":32,"num_global_key_value_heads":2})";
  const std::string nested = R"({"model_type":"gemma4","text_config":)" + flat + "}";
  const std::string newer =
      "{" + std::string(inner) + R"(,"per_layer_config":{"5":{"head_dim":32,"num_key_value_heads":2}}})";
  for (const std::string& text : {flat, nested, newer}) {
    const Gemma4Config config = parse(text.c_str());
    CHECK(config.num_layers() == 6);
    for (std::size_t l = 0; l < 6; ++l) {
      const bool full = l == 5;
      CHECK((config.layers[l].attention == AttentionType::full) == full);
      CHECK(config.layers[l].head_dim == (full ? 32 : 16));
      CHECK(config.layers[l].num_key_value_heads == (full ? 2 : 4));
    }
    CHECK(config.full_rope.fraction == 0.25);
    CHECK(config.sliding_rope.fraction == 1);
  }
}

TEST_CASE("the published sizes are valid, and E2B's parts have the published numbers of parameters") {
  for (const Gemma4Config& config : {gemma4_e2b(), gemma4_e4b(), gemma4_31b()}) validate(config, "published");
  std::size_t table = 0, embedding = 0, others = 0;
  Gemma4<Any, Simd> model(gemma4_e2b());
  model.parameters([&]<class V>(Parameter parameter, std::size_t, V& values) {
    std::size_t n = 0;
    if constexpr (std::is_same_v<V, std::vector<float>>) {
      n = values.size();
    } else {
      n = values.rows() * values.cols();
    }
    (parameter == Parameter::ple_table ? table : parameter == Parameter::token_embedding ? embedding : others) += n;
  });
  CHECK(table == std::size_t{262144} * 35 * 256);
  CHECK(embedding == std::size_t{262144} * 1536);
  CHECK(others / 1000000 == 1877);
}

}  // namespace ple::checkpoint_test
