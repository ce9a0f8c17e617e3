// SPDX-License-Identifier: Apache-2.0
#include "ple/checkpoint/hf_folder.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "folder.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/chat.h"
#include "ple/text/open_tokenizer.h"

namespace ple::hf_folder_test {

namespace {

using ple::testing::Folder;
using ple::testing::write_file;

const std::filesystem::path storyteller = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";

template <class Opened, class Model>
std::string story(const Opened& opened, const Model& model) {
  Chat chat(model, opened, {.max_tokens = 40, .session = {.context = 256, .threads = 1}});
  std::string text;
  for (std::string_view piece : chat.say("Tell me a story about a fox named Pip.")) text += piece;
  return text;
}

}  // namespace

TEST_CASE("a folder opened by itself, with weights of the one type it has, is the model that Checkpoint opens") {
  const HfFolder folder(storyteller);
  const auto checkpoint = Checkpoint::open(storyteller);
  const auto typed = Gemma4<bf16, Simd>::load(folder);
  const auto any = Gemma4<Any, Simd>::load(checkpoint);
  CHECK(typed.identity() == any.identity());
  const std::vector<Token> tokens = {2, 5, 9, 700, 3};
  Session a(typed, {.context = 16, .threads = 1}), b(any, {.context = 16, .threads = 1});
  a.read(tokens);
  b.read(tokens);
  CHECK(std::vector<float>(a.logits().begin(), a.logits().end()) ==
        std::vector<float>(b.logits().begin(), b.logits().end()));
  CHECK(folder.stop_tokens() == checkpoint.stop_tokens());
  CHECK(folder.recommended_sampling().temperature == checkpoint.recommended_sampling().temperature);
  CHECK(folder.chat_template() == checkpoint.chat_template());
  const std::string told = story(folder, typed);
  CHECK(told.size() > 100);
  CHECK(told == story(checkpoint, any));
}

TEST_CASE("weights of another type than the program names are an error that names both") {
  const HfFolder folder(storyteller);
  try {
    Gemma4<f16, Simd>::load(folder);
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::dtype);
    const std::string what = error.what();
    CHECK(what.find("embed_tokens.weight: dtype is bf16, expected f16") != std::string::npos);
  }
}

TEST_CASE("norms may be in another type than those that the program names for weights") {
  Folder files;  // all in f32: the last norm becomes bf16
  nlohmann::ordered_json header;
  std::string data;
  for (const auto& [name, entry] : files.header.items()) {
    const std::size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1], at = data.size();
    header[name] = entry;
    if (name == "model.norm.weight") {
      header[name]["dtype"] = "BF16";
      for (std::size_t i = begin; i < end; i += 4) data += files.data.substr(i + 2, 2);
    } else {
      data += files.data.substr(begin, end - begin);
    }
    header[name]["data_offsets"] = {at, data.size()};
  }
  files.header = header;
  files.data = data;
  files.write();
  const HfFolder folder(files.path());
  CHECK(Gemma4<f32, Simd>::load(folder).final_norm.weight == std::vector<float>(8, 0.25f));
  CHECK(Gemma4<OneOf<f32, f16>, Simd>::load(folder).final_norm.weight == std::vector<float>(8, 0.25f));
}

TEST_CASE("a folder's stop tokens are checked when they are asked for") {
  Folder files;
  files.write();
  write_file(files.path() / "generation_config.json", R"({"eos_token_id":20})");
  const HfFolder folder(files.path());
  CHECK_THROWS_AS(folder.stop_tokens(), Error);
  CHECK_THROWS_AS(Checkpoint::open(files.path()), Error);
  write_file(files.path() / "generation_config.json", "null");
  CHECK_THROWS_AS(HfFolder(files.path()).stop_tokens(), Error);
  write_file(files.path() / "generation_config.json", R"({"eos_token_id":[]})");
  CHECK(HfFolder(files.path()).stop_tokens() == std::vector<Token>{1});  // config.json's
}

TEST_CASE("a folder's configuration is of one family") {
  Folder files;
  files.config["model_type"] = "gemma3n_text";
  files.write();
  const HfFolder folder(files.path());
  CHECK(folder.is_gemma3n());
  try {
    static_cast<void>(folder.config<Gemma4Config>());
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::not_supported);
  }
}

}  // namespace ple::hf_folder_test
