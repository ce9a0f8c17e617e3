// SPDX-License-Identifier: Apache-2.0
// A model's folder as Hugging Face lays it out: config.json, safetensors, and small files for text. A program that
// opens nothing else compiles faster with it than with Checkpoint, which opens everything.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/token.h"
#include "ple/io/folder_contents.h"
#include "ple/io/hf_config.h"
#include "ple/io/hf_tensor_names.h"
#include "ple/io/json.h"
#include "ple/io/safetensors.h"
#include "ple/io/safetensors_folder.h"
#include "ple/model/parameter.h"
#include "ple/model/sampling_options.h"
#include "ple/tensor/tensor.h"

namespace ple {
inline namespace PLE_ABI {

/// Files are mapped and their headers checked when it is opened; weights are read only when they are used.
class HfFolder {
 public:
  /// Errors: ErrorCode::file, missing, malformed, config.
  explicit HfFolder(const std::filesystem::path& folder) : folder_(folder) {
    check_is_folder(folder, "a Hugging Face folder with config.json and safetensors");
    if (!exists("config.json")) {
      fail(ErrorCode::missing, folder.string(), ": config.json is missing, which says what shape the model has",
           other_models_in(folder));
    }
    config_name_ = (folder / "config.json").string();
    config_ = read_json_file(config_name_);
    if (exists("generation_config.json")) generation_ = read_json_file(folder / "generation_config.json");
    files_ = open_safetensors(folder);
    if (files_.empty()) {
      fail(ErrorCode::missing, folder.string(), ": neither model.safetensors nor model.safetensors.index.json is there",
           other_models_in(folder));
    }
    names_ = HfTensorNames(files_, folder.string());
    tied_ = names_.tie(hf_tie_word_embeddings(config_, config_name_));
  }

  const std::filesystem::path& folder() const { return folder_; }

  /// Whether the text model is a Gemma 3n, or else a Gemma 4.
  bool is_gemma3n() const { return hf_model_type(config_, config_name_).starts_with("gemma3n"); }

  /// The configuration: Gemma4Config, or with ple/io/hf_gemma3n_config.h Gemma3nConfig. Errors: ErrorCode::config;
  /// not_supported for a model of another family, and for what a later version may add.
  template <class Config>
  Config config() const {
    Config config = hf_config<Config>(config_, config_name_);
    config.tie_word_embeddings = tied_;
    return config;
  }

  bool has(Parameter parameter, std::size_t layer = 0) const { return names_.find(parameter, layer) != nullptr; }

  /// A parameter's tensor; its shape is for the model to check. Errors: ErrorCode::missing, dtype.
  Tensor tensor(Parameter parameter, std::size_t layer = 0) const {
    const std::string* name = names_.find(parameter, layer);
    if (!name) {
      fail(ErrorCode::missing, folder_.string(), ": ", names_.name(parameter, layer),
           ": no file of the folder has this tensor");
    }
    const SafetensorsFile& file = *files_.at(*name);
    // The table may be read rather than mapped, and then it may lie anywhere.
    return parameter == Parameter::ple_table ? file.unaligned_tensor(*name) : file.tensor(*name);
  }

  /// The tokens that end a text: generation_config.json's, or else config.json's. Errors: ErrorCode::config.
  std::vector<Token> stop_tokens() const {
    const JsonFields top(config_, config_name_);
    std::vector<Token> tokens;
    if (const auto fields = generation()) tokens = stop_tokens(*fields);
    if (tokens.empty()) tokens = stop_tokens(top.object("text_config").value_or(top));
    if (tokens.empty()) tokens = stop_tokens(top);
    return tokens;
  }

  /// What the files recommend; greedy where they do not ask for sampling. Errors: ErrorCode::config.
  SamplingOptions recommended_sampling() const {
    SamplingOptions sampling;
    const auto fields = generation();
    if (!fields || !fields->boolean("do_sample", false)) return sampling;
    sampling.temperature = static_cast<float>(fields->number("temperature", 1.0));
    sampling.top_k = fields->count("top_k", 50);  // transformers' default
    sampling.top_p = static_cast<float>(fields->number("top_p", 1.0));
    sampling.min_p = static_cast<float>(fields->number("min_p", 0.0));
    sampling.repetition_penalty = static_cast<float>(fields->number("repetition_penalty", 1.0));
    return sampling;
  }

  /// chat_template.jinja, or else tokenizer_config.json's.
  std::optional<std::string> chat_template() const {
    if (exists("chat_template.jinja")) return read_text_file(folder_ / "chat_template.jinja");
    if (!exists("tokenizer_config.json")) return std::nullopt;
    const std::filesystem::path path = folder_ / "tokenizer_config.json";
    const Json json = read_json_file(path);
    const JsonFields fields(json, path.string());
    if (!fields.find("chat_template")) return std::nullopt;
    return fields.text("chat_template");
  }

  std::filesystem::path tokenizer_json() const { return folder_ / "tokenizer.json"; }

  /// The tensors' files, and what the text model's are called in them.
  const TensorFiles& files() const { return files_; }
  const HfTensorNames& names() const { return names_; }
  std::string_view prefix() const { return names_.prefix(); }

  /// Everything that a model is read from, be it there or not.
  std::vector<std::filesystem::path> paths() const {
    std::vector<std::filesystem::path> paths;
    for (const char* name : {"config.json", "generation_config.json", "model.safetensors.index.json", "tokenizer.json",
                             "tokenizer_config.json", "chat_template.jinja", "chat_template.json"}) {
      paths.push_back(folder_ / name);
    }
    std::set<const SafetensorsFile*> seen;
    for (const auto& [name, file] : files_) {
      if (seen.insert(file.get()).second) paths.emplace_back(file->raw(name).file);
    }
    return paths;
  }

 private:
  bool exists(const char* name) const { return file_exists(folder_ / name); }

  /// The fields of generation_config.json, if there is one.
  std::optional<JsonFields> generation() const {
    if (!generation_) return std::nullopt;
    return JsonFields(*generation_, (folder_ / "generation_config.json").string());
  }

  /// eos_token_id: a number or a list of them.
  std::vector<Token> stop_tokens(const JsonFields& fields) const {
    std::vector<Token> tokens;
    const Json* ids = fields.find("eos_token_id");
    if (!ids) return tokens;
    const JsonFields top(config_, config_name_);
    const std::size_t vocab_size =  // the defaults are the reference's
        top.object("text_config").value_or(top).count("vocab_size", is_gemma3n() ? 262400 : 262144);
    const auto add = [&](const Json& id) {
      if (!id.is_natural() || id.natural() >= vocab_size) {
        fields.wrong("eos_token_id", id, "a token from 0 to ", vocab_size - 1);
      }
      tokens.push_back(static_cast<Token>(id.natural()));
    };
    if (ids->is_array()) {
      for (const Json& id : ids->items()) add(id);
    } else {
      add(*ids);
    }
    return tokens;
  }

  std::filesystem::path folder_;
  std::string config_name_;  // the file's, for messages
  Json config_;
  std::optional<Json> generation_;
  TensorFiles files_;
  HfTensorNames names_;
  bool tied_ = true;
};

}  // namespace PLE_ABI
}  // namespace ple
