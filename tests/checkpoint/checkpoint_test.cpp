// SPDX-License-Identifier: Apache-2.0
#include "ple/checkpoint/checkpoint.h"

#include <doctest/doctest.h>

#include "folder.h"
#include "ple/run/generation.h"
#include "ple/run/session.h"

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

TEST_CASE("stop tokens of config.json: the whole model's go before the text model's, a number or a list") {
  Folder folder;
  const auto text = folder.config;
  const auto stop_tokens = [&](const testing::ordered_json& top, const testing::ordered_json& inner) {
    folder.config = {{"model_type", "gemma4"}, {"text_config", text}};
    folder.config["text_config"]["eos_token_id"] = inner;
    folder.config["eos_token_id"] = top;
    folder.write();
    return Checkpoint::open(folder.path()).stop_tokens();
  };
  CHECK(stop_tokens({1, 7}, 1) == std::vector<Token>{1, 7});
  CHECK(stop_tokens(9, {1, 7}) == std::vector<Token>{9});
  CHECK(stop_tokens(nullptr, {1, 7}) == std::vector<Token>{1, 7});
  CHECK(stop_tokens(nullptr, 5) == std::vector<Token>{5});
  CHECK(stop_tokens(nullptr, nullptr) == std::vector<Token>{1});  // the reference's default
  write_file(folder.path() / "generation_config.json", R"({"eos_token_id":11})");
  CHECK(stop_tokens({1, 7}, 1) == std::vector<Token>{11});
}

TEST_CASE("what generation_config.json says of greedy decoding holds without do_sample, as in the reference") {
  Folder folder;
  folder.write();
  const auto sampling = [&](const std::string& text) {
    write_file(folder.path() / "generation_config.json", text);
    return Checkpoint::open(folder.path()).recommended_sampling();
  };
  const SamplingOptions greedy = sampling(R"({"repetition_penalty":1.1,"no_repeat_ngram_size":3,"temperature":0.7,
      "suppress_tokens":[4,-1,19,20,99999999999],"top_k":64,"do_sample":false})");
  CHECK(greedy.temperature == 0);
  CHECK(greedy.top_k == 0);
  CHECK(greedy.repetition_penalty == 1.1f);
  CHECK(greedy.no_repeat_ngram_size == 3);
  CHECK(greedy.suppress_tokens == std::vector<Token>{4, 19});  // the vocabulary has 20
  const SamplingOptions sampled = sampling(R"({"do_sample":true,"suppress_tokens":[0],"min_p":0.1})");
  CHECK(sampled.temperature == 1);
  CHECK(sampled.top_k == 50);
  CHECK(sampled.top_p == 1);
  CHECK(sampled.min_p == 0.1f);
  CHECK(sampled.suppress_tokens == std::vector<Token>{0});
}

TEST_CASE("recommended sampling that makes no sense is an error for who asks, and a model opens all the same") {
  Folder folder;
  folder.write();
  const auto write = [&](const std::string& fields) {
    write_file(folder.path() / "generation_config.json", R"({"do_sample":true,)" + fields + "}");
    return Checkpoint::open(folder.path());
  };
  for (const char* const none : {R"("top_k":-1)", R"("top_k":0)", R"("top_k":-1.0)"}) {
    CHECK(write(none).recommended_sampling().top_k == 0);
  }
  CHECK(write(R"("top_p":0)").recommended_sampling().top_p == 0);
  CHECK(write(R"("top_p":1.5)").recommended_sampling().top_p == 1);
  CHECK(write(R"("temperature":0.0)").recommended_sampling().temperature == 0);
  CHECK(write(R"("no_repeat_ngram_size":-2)").recommended_sampling().no_repeat_ngram_size == 0);
  CHECK(write(R"("top_k":null,"temperature":null,"suppress_tokens":null)").recommended_sampling().top_k == 50);

  const auto error = [&](const std::string& fields) {
    const Checkpoint checkpoint = write(fields);
    try {
      static_cast<void>(checkpoint.recommended_sampling());
    } catch (const Error& e) {
      CHECK(e.code() == ErrorCode::config);
      const std::string what = e.what(), file = (folder.path() / "generation_config.json").string() + ": ";
      CHECK(what.starts_with(file));
      return what.substr((std::min)(what.size(), file.size()));
    }
    return std::string("no error");
  };
  CHECK(error(R"("temperature":-1)") == "temperature is -1, expected 0 or more");
  CHECK(error(R"("temperature":1e300)") == "temperature is 1e+300, expected 0 or more");
  CHECK(error(R"("top_p":-0.5)") == "top_p is -0.5, expected 0 to 1");
  CHECK(error(R"("min_p":2)") == "min_p is 2, expected 0 to 1");
  CHECK(error(R"("repetition_penalty":0)") == "repetition_penalty is 0, expected more than 0");
  CHECK(error(R"("repetition_penalty":1e-60)").ends_with("expected more than 0"));
  CHECK(error(R"("top_k":"all")").starts_with("top_k is \"all\", expected a whole number"));
  CHECK(error(R"("top_k":-1.5)").starts_with("top_k is -1.5, expected a whole number"));
  CHECK(error(R"("suppress_tokens":7)") == "suppress_tokens is 7, expected a list of tokens");
  CHECK(error(R"("suppress_tokens":["a"])") == "suppress_tokens is \"a\", expected tokens");
  // Who brings options does not ask; what no sampling asks for is not read.
  write_file(folder.path() / "generation_config.json", R"({"temperature":-1,"top_p":7})");
  CHECK(Checkpoint::open(folder.path()).recommended_sampling().temperature == 0);
}

TEST_CASE("the chat template is found wherever transformers finds it") {
  Folder folder;
  folder.write();
  const auto chat_template = [&] { return Checkpoint::open(folder.path()).chat_template(); };
  CHECK(!chat_template());
  // What only processors read.
  write_file(folder.path() / "processor_config.json", R"({"chat_template":"processor"})");
  CHECK(chat_template() == "processor");
  write_file(folder.path() / "chat_template.json", R"({"chat_template":"json"})");
  CHECK(chat_template() == "json");
  // What tokenizers read: one, or named ones in either form.
  write_file(folder.path() / "tokenizer_config.json", R"({"chat_template":null})");
  CHECK(chat_template() == "json");
  write_file(folder.path() / "tokenizer_config.json",
             R"({"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]})");
  CHECK(chat_template() == "d");
  write_file(folder.path() / "tokenizer_config.json", R"({"chat_template":{"tool_use":"t","default":"e"}})");
  CHECK(chat_template() == "e");
  write_file(folder.path() / "chat_template.jinja", "jinja");
  CHECK(chat_template() == "jinja");
  std::filesystem::create_directories(folder.path() / "additional_chat_templates");
  write_file(folder.path() / "additional_chat_templates" / "tool_use.jinja", "t");
  CHECK(chat_template() == "jinja");
  write_file(folder.path() / "additional_chat_templates" / "default.jinja", "additional");
  CHECK(chat_template() == "additional");

  std::filesystem::remove_all(folder.path() / "additional_chat_templates");
  std::filesystem::remove(folder.path() / "chat_template.jinja");
  const auto refused = [&](const std::string& json, ErrorCode code) {
    write_file(folder.path() / "tokenizer_config.json", json);
    try {
      chat_template();
    } catch (const Error& e) {
      CHECK(e.code() == code);
      return std::string(e.what()).substr((folder.path() / "tokenizer_config.json").string().size());
    }
    return std::string("no error");
  };
  CHECK(refused(R"({"chat_template":[{"name":"rag","template":"r"},{"name":"tool_use","template":"t"}]})",
                ErrorCode::missing) == ": none of its chat templates is called default, only rag, tool_use");
  CHECK(refused(R"({"chat_template":7})", ErrorCode::config) ==
        ": chat_template is 7, expected a text, or templates with names");
  CHECK(refused(R"({"chat_template":["a"]})", ErrorCode::config) ==
        ": chat_template is \"a\", expected a template with a name");
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

TEST_CASE("12B's configuration: its own model types and defaults, layers in both styles") {
  const auto parse = [](const std::string& text) {
    return gemma4_config(parse_json(text, "config.json"), "config.json");
  };
  const Gemma4Config empty = parse(R"({"model_type":"gemma4_unified_text"})");
  CHECK(empty.hidden_size_per_layer_input == 0);
  CHECK(empty.sliding_window == 1024);
  CHECK(empty.max_position_embeddings == 262144);
  const std::string layers = R"("num_hidden_layers":48,"attention_k_eq_v":true,"num_key_value_heads":8,)",
                    globals = R"("global_head_dim":512,"num_global_key_value_heads":1,)";
  std::string each = R"("per_layer_config":{)";  // as newer releases write it: layers in two digits
  for (int l = 5; l < 48; l += 6) {
    each += (l > 5 ? ",\"" : "\"") + std::to_string(l / 10) + std::to_string(l % 10) +
            R"(":{"head_dim":512,"num_key_value_heads":1})";
  }
  each += "},";
  // Both at once: the reference drops what is not by layer.
  for (const std::string& heads : {globals, each, each + R"("global_head_dim":64,"num_global_key_value_heads":4,)"}) {
    CAPTURE(heads);
    const Gemma4Config config =
        parse(R"({"model_type":"gemma4_unified","text_config":{"model_type":"gemma4_unified_text","hidden_size":3840,)"
              R"("num_attention_heads":16,"intermediate_size":15360,"hidden_size_per_layer_input":0,)" +
              layers + heads + R"("final_logit_softcapping":30.0}})");
    std::vector<double> found, expected;
    for_each_field(config, [&](const auto& field) { found.push_back(static_cast<double>(field)); });
    for_each_field(gemma4_12b(), [&](const auto& field) { expected.push_back(static_cast<double>(field)); });
    CHECK(found == expected);
  }
}

TEST_CASE("12B: tokens that its files suppress are never drawn") {
  const auto checkpoint = Checkpoint::open(std::filesystem::path(PLE_TEST_DATA) / "golden_gemma4_large" / "12b_like");
  SamplingOptions sampling = checkpoint.recommended_sampling();
  CHECK(sampling.suppress_tokens == std::vector<Token>{130, 129});  // 258883, too, is not in this vocabulary of 131
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  const auto drawn = [&] {
    Session session(model);
    session.read(Token{2});
    return Generation(session, {.sampling = sampling,
                                .logits_processor =
                                    [](std::span<const Token>, std::span<float> logits) {
                                      logits[130] = 100;
                                      logits[129] = 99;
                                      logits[7] = 98;
                                    }})
        .next();
  };
  CHECK(drawn() == 7);
  sampling.suppress_tokens.clear();
  CHECK(drawn() == 130);
}

TEST_CASE("the published sizes are valid, and E2B's parts have the published numbers of parameters") {
  for (const Gemma4Config& config : {gemma4_e2b(), gemma4_e4b(), gemma4_12b(), gemma4_26b_a4b(), gemma4_31b()})
    validate(config, "published");
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
