// SPDX-License-Identifier: Apache-2.0
// Texts to vectors: prompts, what sentence-transformers' files say, several texts.
#include "ple/run/embedder.h"

#include "../chosen_backend.h"
#include "../temporary.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ple/checkpoint/hf_folder.h"
#include "ple/family/embedding_gemma2/block.h"

namespace ple::embedder_test {

namespace {

using Model = EmbeddingGemma2<Any, testing::ChosenBackend>;

/// A random model with as many tokens as the tokenizer beside it has.
class Folder {
 public:
  Folder() {
    const auto model = std::filesystem::path(PLE_TEST_DATA) / "golden_embedding_gemma2" / "270m_like_bf16";
    for (const char* name : {"config.json", "model.safetensors"})
      std::filesystem::copy_file(model / name, folder_ / name);
    const auto tokenizer = std::filesystem::path(PLE_MODEL_DIR) / "storyteller" / "tokenizer.json";
    std::filesystem::copy_file(tokenizer, folder_ / "tokenizer.json");
  }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  std::filesystem::path path() const { return folder_ / ""; }

 private:
  testing::TemporaryFolder folder_;
};

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("an embedder puts a prompt before a text: the folder's, or the published ones") {
  const Folder files;
  const auto model = Model::load(HfFolder(files.path()));
  const Tokenizer tokenizer = open_tokenizer(HfFolder(files.path()));
  const auto expected = [&](const std::string& text) { return model.embed(tokenizer.encode(text)); };
  {
    const Embedder embedder(model, HfFolder(files.path()));
    CHECK(embedder.size() == 24);
    CHECK(embedder.query("a fox") == expected("task: search result | query: a fox"));
    CHECK(embedder.document("a fox") == expected("title: none | text: a fox"));
    CHECK(embedder.embed("a fox") == expected("a fox"));
    CHECK(embedder.query("a fox") != embedder.document("a fox"));
  }
  files.write("config_sentence_transformers.json",
              R"({"prompts": {"query": "Q: ", "document": "", "STS": "x"}, "default_prompt_name": null})");
  const Embedder embedder(model, HfFolder(files.path()), {.size = 8, .threads = 2});
  CHECK(embedder.query("a fox") == model.embed(tokenizer.encode("Q: a fox"), 8));
  CHECK(embedder.document("a fox") == model.embed(tokenizer.encode("a fox"), 8));
}

TEST_CASE("an embedder's documents have the vectors that each has alone; it says how far it is, and can be stopped") {
  const Folder files;
  const auto model = Model::load(HfFolder(files.path()));
  InlineExecutor threads;
  const Embedder embedder(model, HfFolder(files.path()), {.executor = &threads});
  std::vector<std::string> texts;
  for (int i = 0; i < 60; ++i)
    texts.push_back(std::string(static_cast<std::size_t>(i), 'a') + " fox number " + std::to_string(i));
  std::vector<float> all(texts.size() * 24);
  std::vector<std::size_t> steps;
  embedder.documents(texts, {all.data(), texts.size(), 24, 24}, [&](std::size_t done, std::size_t total) {
    CHECK(total == texts.size());
    steps.push_back(done);
    return true;
  });
  CHECK(steps.size() > 1);
  CHECK(steps.size() < texts.size());
  CHECK(steps.back() == texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i)
    CHECK(embedder.document(texts[i]) == std::vector<float>(&all[i * 24], &all[i * 24] + 24));

  CHECK(message([&] {
          embedder.documents(texts, {all.data(), texts.size(), 24, 24}, [](std::size_t, std::size_t) { return false; });
        }).find("embed: cancelled after ") == 0);
  texts[40] = std::string(4000, 'x');
  const std::string found = message([&] { embedder.documents(texts, {all.data(), texts.size(), 24, 24}); });
  CHECK(found.find("embed: text 41 of 60 has ") == 0);
  CHECK(found.find(", expected at most 512") != std::string::npos);
}

TEST_CASE("an embedder refuses a folder whose vectors are made in another way, and impossible sizes") {
  const Folder files;
  const auto model = Model::load(HfFolder(files.path()));
  const auto found = [&](const EmbedderOptions& options = {}) {
    return message([&] { const Embedder embedder(model, HfFolder(files.path()), options); });
  };
  CHECK(found({.size = 25}) == "embed: vectors of 25 numbers, expected 1 to 24");
  const auto modules = [&](const std::string& third) {
    files.write("modules.json", R"([{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.)" +
                                    third + R"("}])");
  };
  modules("models.Normalize");
  CHECK(found().find("config.json") != std::string::npos);  // of the pooling: it is not there
  // As releases 6 and 5 write it.
  files.write("1_Pooling/config.json",
              R"({"embedding_dimension": 24, "pooling_mode": "mean", "include_prompt": true})");
  CHECK(found().empty());
  files.write("1_Pooling/config.json",
              R"({"word_embedding_dimension": 24, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true})");
  CHECK(found().empty());
  modules("base.modules.normalize.Normalize");
  CHECK(found().empty());

  const auto says = [&](const std::string& part) {
    const std::string text = found();
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  files.write("1_Pooling/config.json", R"({"pooling_mode": "lasttoken"})");
  says(R"(config.json: pooling_mode is "lasttoken", expected "mean")");
  files.write("1_Pooling/config.json", R"({"pooling_mode_cls_token": true})");
  says("config.json: pooling_mode_cls_token is true, expected false");
  files.write("1_Pooling/config.json", R"({"pooling_mode": "mean", "include_prompt": false})");
  says("config.json: include_prompt is false, expected true");
  files.write("1_Pooling/config.json", R"({"pooling_mode": "mean"})");
  modules("models.Dense");
  says("modules.json: [2].type is 'sentence_transformers.models.Dense', expected Transformer, Pooling and Normalize");
  files.write("modules.json", R"([{"path": "../1_Pooling", "type": "sentence_transformers.models.Pooling"}])");
  says("modules.json: [0].path is '../1_Pooling', expected the name of a folder in it");
}

}  // namespace ple::embedder_test
