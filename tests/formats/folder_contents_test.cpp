// SPDX-License-Identifier: Apache-2.0
// What people have instead of a model folder, and what they are told.
#include "ple/formats/folder_contents.h"
#include "ple/core/os.h"

#include <doctest/doctest.h>
#include <cerrno>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "../checkpoint/folder.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/convert/inspect.h"

namespace ple::folder_contents_test {

namespace {

using ple::testing::Folder;
using ple::testing::ordered_json;
using ple::testing::write_file;

std::string message_of(const std::function<void()>& f, ErrorCode code) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "no error";
}

void check_says(const std::string& message, const std::vector<std::string>& parts) {
  CAPTURE(message);
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(message.find(part) != std::string::npos);
  }
  CHECK(message.find("::") == std::string::npos);  // nothing of the interface
}

/// What opening a path says, by each of the ways to.
void check_opening(const std::filesystem::path& path, ErrorCode code, const std::vector<std::string>& parts) {
  check_says(message_of([&] { Checkpoint::open(path); }, code), parts);
  check_says(message_of([&] { HfFolder{path}; }, code), parts);
  check_says(message_of([&] { inspect(path.string()); }, code), parts);
}

}  // namespace

TEST_CASE("a path that is no folder says what it is") {
  Folder folder;
  const auto absent = folder.path() / "absent", text = folder.path() / "text", loop = folder.path() / "loop",
             gguf = folder.path() / "model.gguf";
  write_file(text, "text");
  write_file(gguf, "GGUF");
  std::filesystem::create_symlink(loop, loop);
  check_opening(absent, ErrorCode::file,
                {absent.string() + ": no such file or folder: expected a Hugging Face folder"});
  check_opening(text / "below", ErrorCode::file, {"no such file or folder"});
  check_opening(text, ErrorCode::file, {text.string() + ": is not a folder: expected a Hugging Face folder"});
  check_opening(loop, ErrorCode::file, {loop.string() + ": cannot open: " + os::text_of(ELOOP)});
  check_says(message_of([&] { HfFolder{gguf}; }, ErrorCode::file), {"is a GGUF file: expected a Hugging Face folder"});
  check_says(message_of([&] { Checkpoint::open(absent); }, ErrorCode::file), {"or a GGUF file"});
  check_says(message_of([&] { inspect(absent.string()); }, ErrorCode::file), {"gemma4-e2b, gemma4-e4b"});
}

TEST_CASE("a folder without a model says what it has instead") {
  const std::pair<std::vector<const char*>, const char*> cases[] = {
      {{}, "config.json is missing, so the model's shape is unknown"},
      {{"params.json", "tokenizer.model", "consolidated.00.pth"}, "consolidated.00.pth is not read"},
      {{"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}, "adapter_config.json), not a model"},
      {{"gemma-4-E2B-Q4_K_M.gguf", "README.md"}, "to open gemma-4-E2B-Q4_K_M.gguf, name the file itself"},
      {{"snapshots"}, "the models are in the folders of"},
      {{"gemma-4-E2B-it.litertlm"}, "gemma-4-E2B-it.litertlm is in an unsupported format"}};
  for (const auto& folder_case : cases) {
    const char* says = folder_case.second;
    CAPTURE(says);
    Folder folder;
    for (const char* name : folder_case.first) write_file(folder.path() / name, "");
    check_opening(folder.path(), ErrorCode::missing, {folder.path().string(), "config.json is missing", says});
  }
}

TEST_CASE("a folder without weights says what it has instead") {
  const std::pair<const char*, const char*> cases[] = {
      {"pytorch_model.bin", "pytorch_model.bin is not read"},
      {"pytorch_model-00001-of-00002.bin", "save the model as safetensors"},
      {"model-00001-of-00002.safetensors", "a part of a model whose index is missing"},
      {"consolidated.safetensors", "consolidated.safetensors, which must be called model.safetensors"},
      {"model.gguf", "to open model.gguf"}};
  for (const auto& file_case : cases) {
    const char *name = file_case.first, *says = file_case.second;
    CAPTURE(name);
    Folder folder;
    write_file(folder.path() / "config.json", folder.config.dump());
    write_file(folder.path() / name, "");
    check_says(message_of([&] { Checkpoint::open(folder.path()); }, ErrorCode::missing),
               {"neither model.safetensors nor model.safetensors.index.json is there", says});
  }
}

TEST_CASE("a model of another family hears which ones are supported, whatever its tensors are called") {
  for (const auto& types : {std::pair<const char*, const char*>{"llama", nullptr},
                            {"gemma2", nullptr},
                            {"paligemma", "gemma"},
                            {"gemma4_assistant", "gemma4_text"}}) {
    const char *whole = types.first, *text = types.second;
    CAPTURE(whole);
    Folder folder;
    if (text) {
      folder.config["model_type"] = text;
      folder.config = {{"model_type", whole}, {"text_config", folder.config}};
    } else {
      folder.config["model_type"] = whole;
      folder.header["transformer.wte.weight"] = folder.header["model.embed_tokens.weight"];
      folder.header.erase("model.embed_tokens.weight");
    }
    folder.write();
    check_opening(
        folder.path(), ErrorCode::not_supported,
        {"config.json", whole,
         "'gemma4', 'gemma4_text', 'gemma4_unified', 'gemma4_unified_text', 'gemma3n', 'gemma3n_text', 'gemma3', "
         "'gemma3_text', 'gemma3_ple' and 'gemma3_ple_text'"});
  }
}

TEST_CASE("a pointer of Git LFS is told from a damaged file") {
  const std::string pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 10246621918\n";
  Folder folder;
  folder.write();
  write_file(folder.model(), pointer);
  check_opening(folder.path(), ErrorCode::malformed, {"model.safetensors: is a Git LFS pointer"});
  write_file(folder.path() / "x.gguf", pointer);
  check_says(message_of([&] { Checkpoint::open(folder.path() / "x.gguf"); }, ErrorCode::malformed),
             {"x.gguf: is a Git LFS pointer"});
  write_file(folder.path() / "config.json", pointer);
  check_opening(folder.path(), ErrorCode::malformed, {"config.json: is a Git LFS pointer"});
}

TEST_CASE("an index may name too much and too little; a model.safetensors goes before it") {
  Folder folder;
  folder.write();
  const auto index = folder.path() / "model.safetensors.index.json", shard = folder.path() / "model-1.safetensors";
  const auto write_index = [&](const ordered_json& map) {
    write_file(index, ordered_json{{"weight_map", map}}.dump());
  };
  const auto has = [&] { return HfFolder(folder.path()).has(Parameter::final_norm); };
  write_index({{"model.norm.weight", "gone.safetensors"}});
  CHECK(has());
  std::filesystem::rename(folder.model(), shard);
  write_index({{"model.norm.weight", "model-1.safetensors"}, {"model.vision_tower.x", "model-1.safetensors"}});
  CHECK(has());
  CHECK(HfFolder(folder.path()).has(Parameter::layer_scalar, 1));
  CHECK(HfFolder(folder.path()).tensor_files().count("model.vision_tower.x") == 0);
}

}  // namespace ple::folder_contents_test
