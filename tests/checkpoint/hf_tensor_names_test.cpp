// SPDX-License-Identifier: Apache-2.0
// Folders as tools leave them: whatever stands before the names, a model is the same; and what is no whole model says
// so.
#include "ple/checkpoint/hf_tensor_names.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "folder.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/convert/inspect.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/session.h"

namespace ple::hf_tensor_names_test {

namespace {

using ple::testing::Folder;
using ple::testing::ordered_json;

/// Adds a tensor of one number.
void add(Folder& folder, const std::string& name) {
  folder.header[name] = {
      {"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {folder.data.size(), folder.data.size() + 4}}};
  folder.data.append(4, '\0');
}

/// Adds a tensor of the shape of the token embedding, all its values `value`.
void add_matrix(Folder& folder, const std::string& name, float value) {
  const std::size_t begin = folder.data.size();
  for (int i = 0; i < 20 * 8; ++i) folder.data.append(reinterpret_cast<const char*>(&value), sizeof value);
  folder.header[name] = {{"dtype", "F32"}, {"shape", {20, 8}}, {"data_offsets", {begin, folder.data.size()}}};
}

/// Renames all tensors.
void rename(Folder& folder, const std::function<std::string(const std::string&)>& change) {
  ordered_json header;
  for (const auto& [name, entry] : folder.header.items()) header[change(name)] = entry;
  folder.header = header;
}

/// Weights that differ from each other.
void vary(Folder& folder) {
  for (std::size_t i = 0; i < folder.data.size() / 4; ++i) {
    const auto value = static_cast<float>(std::sin(static_cast<double>(i)));
    std::memcpy(folder.data.data() + 4 * i, &value, 4);
  }
}

std::vector<float> logits(const Folder& folder) {
  folder.write();
  const auto model = Gemma4<f32, Scalar>::load(HfFolder(folder.path()));
  Session session(model, {.context = 8, .threads = 1});
  session.read(std::vector<Token>{2, 7, 19});
  return {session.logits().begin(), session.logits().end()};
}

Error error_of(const Folder& folder) {
  folder.write();
  try {
    Gemma4<f32, Scalar>::load(HfFolder(folder.path()));
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::argument, "no error"};
}

void says(const Error& error, ErrorCode code, const std::vector<std::string>& parts) {
  const std::string message = error.what();
  CAPTURE(message);
  CHECK(error.code() == code);
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(message.find(part) != std::string::npos);
  }
}

}  // namespace

TEST_CASE("whatever stands before the text model's names, it is the same model") {
  Folder plain;
  vary(plain);
  const std::vector<float> expected = logits(plain);
  REQUIRE(expected[0] != expected[1]);
  for (const std::string prefix :
       {"", "model.", "language_model.", "model.language_model.", "language_model.model.", "model.text_model.",
        "base_model.model.model.", "base_model.model.model.language_model.", "_orig_mod.model.", "module.model.",
        "module._orig_mod.model.language_model.", "_fsdp_wrapped_module.model."}) {
    CAPTURE(prefix);
    Folder folder;
    vary(folder);
    rename(folder, [&](const std::string& name) { return prefix + name.substr(std::string("model.").size()); });
    const std::string outside = prefix.ends_with("language_model.") && prefix.size() > 15
                                    ? prefix.substr(0, prefix.size() - std::string("language_model.").size())
                                    : "model.";
    for (const char* tower : {"vision_tower.encoder.layers.0.input_layernorm.weight",
                              "audio_tower.layers.0.norm.weight", "embed_vision.embedding.weight"}) {
      add(folder, outside + tower);
    }
    CHECK(logits(folder) == expected);
    const Inspection found = inspect(folder.path().string());
    CHECK(found.vision.size() == 2);
    CHECK(found.audio.size() == 1);
    CHECK(found.rest.empty());
  }
}

TEST_CASE("what wraps modules may stand inside a name, too") {
  Folder plain, wrapped;
  vary(plain);
  vary(wrapped);
  rename(wrapped, [](std::string name) {
    if (name.starts_with("model.layers.")) name.insert(std::string("model.layers.0.").size(), "_orig_mod.");
    return name;
  });
  CHECK(logits(wrapped) == logits(plain));
}

TEST_CASE("a head of its own is found wherever its module is, and is used beside the token embedding") {
  Folder plain;
  vary(plain);
  const std::vector<float> tied = logits(plain);
  const std::pair<const char*, const char*> places[] = {{"model.", "lm_head.weight"},
                                                        {"model.language_model.", "lm_head.weight"},
                                                        {"language_model.model.", "language_model.lm_head.weight"},
                                                        {"language_model.", "lm_head.weight"},
                                                        {"", "lm_head.weight"},
                                                        {"module.model.", "module.lm_head.weight"},
                                                        {"base_model.model.model.", "base_model.model.lm_head.weight"}};
  for (const auto& place : places) {
    const char *prefix = place.first, *head = place.second;
    CAPTURE(prefix);
    Folder folder;
    vary(folder);
    rename(folder, [prefix = std::string(prefix)](const std::string& name) { return prefix + name.substr(6); });
    add_matrix(folder, head, 0);
    CHECK(HfFolder((folder.write(), folder.path())).config<Gemma4Config>().tie_word_embeddings == false);
    CHECK(logits(folder) == std::vector<float>(20, 0.0f));
    CHECK(inspect(folder.path().string()).rest.empty());
  }
  Folder other;  // of something that does not enclose the text model
  vary(other);
  add_matrix(other, "drafter.lm_head.weight", 0);
  CHECK(logits(other) == tied);
}

TEST_CASE("of tied matrices one alone is both") {
  Folder plain, renamed, untied;
  vary(plain);
  const auto to_head = [](const std::string& name) {
    return name == "model.embed_tokens.weight" ? "lm_head.weight" : name;
  };
  vary(renamed);
  rename(renamed, to_head);
  CHECK(logits(renamed) == logits(plain));
  rename(untied, to_head);
  untied.config["tie_word_embeddings"] = false;
  says(error_of(untied), ErrorCode::missing, {"model.embed_tokens.weight", "no file of the folder has this tensor"});
}

TEST_CASE("the whole model's tie_word_embeddings counts, not its text model's") {
  for (const bool top : {true, false}) {
    for (const bool text : {true, false}) {
      Folder folder;
      folder.config["tie_word_embeddings"] = text;
      folder.config = {{"model_type", "gemma4"}, {"tie_word_embeddings", top}, {"text_config", folder.config}};
      if (top) {
        CHECK(logits(folder).size() == 20);
      } else {
        says(error_of(folder), ErrorCode::missing, {"lm_head.weight", "no file of the folder has this tensor"});
      }
      add_matrix(folder, "lm_head.weight", 0);
      CHECK(logits(folder) == std::vector<float>(20, 0.0f));
    }
  }
}

TEST_CASE("two text models, two names for one tensor, none at all") {
  Folder two, twice, none;
  add_matrix(two, "other.embed_tokens.weight", 0);
  says(error_of(two), ErrorCode::malformed, {"model.embed_tokens.weight and other.embed_tokens.weight"});
  add(twice, "model._orig_mod.norm.weight");
  says(error_of(twice), ErrorCode::malformed, {"model.norm.weight", "model._orig_mod.norm.weight"});
  rename(none, [](const std::string& name) { return name + ".0"; });
  says(error_of(none), ErrorCode::missing, {none.path().string(), "embed_tokens.weight"});
}

TEST_CASE("an adapter that was not merged is named") {
  for (const char* name : {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
                           "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight",
                           "model.layers.1.mlp.up_proj.lora_B.default.weight",
                           "base_model.model.lm_head.modules_to_save.default.weight"}) {
    CAPTURE(name);
    Folder folder;
    add(folder, name);
    says(error_of(folder), ErrorCode::not_supported, {"model.safetensors", name, "merge"});
  }
}

}  // namespace ple::hf_tensor_names_test
