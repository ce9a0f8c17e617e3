// SPDX-License-Identifier: Apache-2.0
// A model's folder as Hugging Face lays it out: config.json, safetensors, and small files for text.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/io/checkpoint_source.h"
#include "ple/io/hf_config.h"
#include "ple/io/hf_gemma3n_config.h"
#include "ple/io/hf_names.h"
#include "ple/io/json.h"
#include "ple/io/safetensors.h"
#include "ple/io/safetensors_folder.h"

namespace ple {

class HfFolder final : public CheckpointSource {
 public:
  /// Errors: ErrorCode::file, missing, malformed, config, not_supported.
  explicit HfFolder(const std::filesystem::path& folder) : folder_(folder) {
    std::error_code error;
    if (!std::filesystem::is_directory(folder, error)) {
      fail(ErrorCode::file, folder.string(),
           ": no such folder: expected a Hugging Face folder with config.json and safetensors, or a GGUF file");
    }
    if (!exists("config.json")) fail(ErrorCode::missing, folder.string(), ": config.json is missing");
    const std::filesystem::path path = folder / "config.json";
    const Json json = read_json_file(path);
    if (hf_model_type(json, path.string()).starts_with("gemma3n")) {
      config = gemma3n_config(json, path.string());
    } else {
      config = gemma4_config(json, path.string());
    }
    read_generation_config(json, path.string());
    files_ = open_safetensors(folder);
    if (files_.empty()) {
      fail(ErrorCode::missing, folder.string(),
           ": neither model.safetensors nor model.safetensors.index.json is there");
    }
    for (const std::string_view prefix : hf_prefixes) {
      prefix_ = prefix;
      if (find(hf_name(prefix_, Parameter::token_embedding, 0))) return;
    }
    prefix_ = hf_prefixes[0];
    fail(ErrorCode::missing, folder.string(), ": no token embedding under any of its names (",
         hf_name(hf_prefixes[0], Parameter::token_embedding, 0), ", ",
         hf_name(hf_prefixes[1], Parameter::token_embedding, 0), ", ",
         hf_name(hf_prefixes[2], Parameter::token_embedding, 0), ")");
  }

  bool has(Parameter parameter, std::size_t layer) const override {
    return find(hf_name(prefix_, parameter, layer)) != nullptr;
  }

  Tensor tensor(Parameter parameter, std::size_t layer) const override {
    const std::string name = hf_name(prefix_, parameter, layer);
    const SafetensorsFile* file = find(name);
    if (!file) fail(ErrorCode::missing, folder_.string(), ": ", name, ": no file of the folder has this tensor");
    // The table may be read rather than mapped, and then it may lie anywhere.
    return parameter == Parameter::ple_table ? file->unaligned_tensor(name) : file->tensor(name);
  }

  /// chat_template.jinja, or else tokenizer_config.json's.
  std::optional<std::string> chat_template() const override {
    if (exists("chat_template.jinja")) return read_text_file(folder_ / "chat_template.jinja");
    if (!exists("tokenizer_config.json")) return std::nullopt;
    const std::filesystem::path path = folder_ / "tokenizer_config.json";
    const Json json = read_json_file(path);
    const JsonFields fields(json, path.string());
    if (!fields.find("chat_template")) return std::nullopt;
    return fields.text("chat_template");
  }

  std::filesystem::path tokenizer_file() const override { return folder_ / "tokenizer.json"; }

  /// The tensors' files, and what stands before the text model's names in them.
  const TensorFiles& files() const { return files_; }
  std::string_view prefix() const { return prefix_; }

 private:
  bool exists(const char* name) const {
    std::error_code error;
    return std::filesystem::exists(folder_ / name, error);
  }

  void read_generation_config(const Json& config_json, const std::string& config_source) {
    const JsonFields top(config_json, config_source);
    read_stop_tokens(top.object("text_config").value_or(top));
    if (stop_tokens.empty()) read_stop_tokens(top);
    if (!exists("generation_config.json")) return;
    const std::filesystem::path path = folder_ / "generation_config.json";
    const Json generation = read_json_file(path);
    const JsonFields fields(generation, path.string());
    read_stop_tokens(fields);
    if (!fields.boolean("do_sample", false)) return;
    sampling.temperature = static_cast<float>(fields.number("temperature", 1.0));
    sampling.top_k = fields.count("top_k", 50);  // transformers' default
    sampling.top_p = static_cast<float>(fields.number("top_p", 1.0));
    sampling.min_p = static_cast<float>(fields.number("min_p", 0.0));
    sampling.repetition_penalty = static_cast<float>(fields.number("repetition_penalty", 1.0));
  }

  /// eos_token_id: a number or a list of them. Keeps what was read before where there is none.
  void read_stop_tokens(const JsonFields& fields) {
    const Json* ids = fields.find("eos_token_id");
    if (!ids) return;
    stop_tokens.clear();
    const auto add = [&](const Json& id) {
      if (!id.is_natural() || id.natural() >= vocab_size()) {
        fields.wrong("eos_token_id", id, "a token from 0 to ", vocab_size() - 1);
      }
      stop_tokens.push_back(static_cast<Token>(id.natural()));
    };
    if (!ids->is_array()) return add(*ids);
    for (const Json& id : ids->items()) add(id);
  }

  const SafetensorsFile* find(const std::string& name) const {
    const auto found = files_.find(name);
    return found == files_.end() ? nullptr : found->second.get();
  }

  std::filesystem::path folder_;
  std::string_view prefix_;
  TensorFiles files_;
};

}  // namespace ple
