// SPDX-License-Identifier: Apache-2.0
// A model's folder as Hugging Face lays it out: config.json, safetensors, and small files for text.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/io/hf_config.h"
#include "ple/io/hf_names.h"
#include "ple/io/json.h"
#include "ple/io/packed_table.h"
#include "ple/io/safetensors.h"
#include "ple/io/safetensors_folder.h"
#include "ple/model/gemma4_config.h"
#include "ple/model/parameter.h"
#include "ple/model/sampling_options.h"
#include "ple/tensor/tensor.h"

namespace ple {

struct CheckpointOptions {
  /// A file that `examples/pack` wrote: its PLE table takes the place of the folder's.
  std::filesystem::path table = {};
};

/// Files are mapped and their headers checked when it is opened; weights are read only when they are used, and those of
/// no use to the text model (vision, audio, K and V of layers that share another's) never.
class Checkpoint {
 public:
  /// Errors: ErrorCode::file, missing, malformed, config, not_supported.
  static Checkpoint open(const std::filesystem::path& folder, const CheckpointOptions& options = {}) {
    Checkpoint checkpoint(folder);
    if (!options.table.empty()) checkpoint.ple_table_ = read_packed_table(options.table);
    return checkpoint;
  }

  const std::filesystem::path& folder() const { return folder_; }
  const Gemma4Config& config() const { return config_; }

  bool has(Parameter parameter, std::size_t layer = 0) const {
    return find(hf_name(prefix_, parameter, layer)) != nullptr;
  }

  /// The packed table, if one takes the folder's place.
  const std::optional<TableSource>& ple_table() const { return ple_table_; }

  /// A parameter's tensor; its shape is for the model to check. Errors: ErrorCode::missing, dtype.
  Tensor tensor(Parameter parameter, std::size_t layer = 0) const {
    const std::string name = hf_name(prefix_, parameter, layer);
    const SafetensorsFile* file = find(name);
    if (!file) fail(ErrorCode::missing, folder_.string(), ": ", name, ": no file of the folder has this tensor");
    // The table may be read rather than mapped, and then it may lie anywhere.
    return parameter == Parameter::ple_table ? file->unaligned_tensor(name) : file->tensor(name);
  }

  /// The tokens that end a text: generation_config.json's, or else config.json's.
  const std::vector<Token>& stop_tokens() const { return stop_tokens_; }

  /// What generation_config.json recommends; greedy where it does not ask for sampling.
  const SamplingOptions& recommended_sampling() const { return sampling_; }

  /// The chat template's text: chat_template.jinja, or else tokenizer_config.json's, if there is one.
  std::optional<std::string> chat_template() const {
    if (exists("chat_template.jinja")) return read_text_file(folder_ / "chat_template.jinja");
    if (!exists("tokenizer_config.json")) return std::nullopt;
    const std::filesystem::path path = folder_ / "tokenizer_config.json";
    const Json config = read_json_file(path);
    const JsonFields fields(config, path.string());
    if (!fields.find("chat_template")) return std::nullopt;
    return fields.text("chat_template");
  }

 private:
  explicit Checkpoint(const std::filesystem::path& folder) : folder_(folder) {
    std::error_code error;
    if (folder.extension() == ".gguf")
      fail(ErrorCode::not_supported, folder.string(), ": GGUF files are not supported yet");
    if (!std::filesystem::is_directory(folder, error)) {
      fail(ErrorCode::file, folder.string(),
           ": no such folder: expected a Hugging Face folder with config.json and safetensors");
    }
    if (!exists("config.json")) fail(ErrorCode::missing, folder.string(), ": config.json is missing");
    const std::filesystem::path path = folder / "config.json";
    const Json config = read_json_file(path);
    config_ = gemma4_config(config, path.string());
    read_generation_config(config, path.string());
    files_ = open_safetensors(folder);
    if (files_.empty()) {
      fail(ErrorCode::missing, folder.string(),
           ": neither model.safetensors nor model.safetensors.index.json is there");
    }
    for (const std::string_view prefix : hf_prefixes) {
      prefix_ = prefix;
      if (has(Parameter::token_embedding)) return;
    }
    prefix_ = hf_prefixes[0];
    fail(ErrorCode::missing, folder.string(), ": no token embedding under any of its names (",
         hf_name(hf_prefixes[0], Parameter::token_embedding, 0), ", ",
         hf_name(hf_prefixes[1], Parameter::token_embedding, 0), ", ",
         hf_name(hf_prefixes[2], Parameter::token_embedding, 0), ")");
  }

  bool exists(const char* name) const {
    std::error_code error;
    return std::filesystem::exists(folder_ / name, error);
  }

  void read_generation_config(const Json& config, const std::string& config_source) {
    const JsonFields top(config, config_source);
    read_stop_tokens(top.object("text_config").value_or(top));
    if (stop_tokens_.empty()) read_stop_tokens(top);
    if (!exists("generation_config.json")) return;
    const std::filesystem::path path = folder_ / "generation_config.json";
    const Json generation = read_json_file(path);
    const JsonFields fields(generation, path.string());
    read_stop_tokens(fields);
    if (!fields.boolean("do_sample", false)) return;
    sampling_.temperature = static_cast<float>(fields.number("temperature", 1.0));
    sampling_.top_k = fields.count("top_k", 50);  // transformers' default
    sampling_.top_p = static_cast<float>(fields.number("top_p", 1.0));
    sampling_.min_p = static_cast<float>(fields.number("min_p", 0.0));
    sampling_.repetition_penalty = static_cast<float>(fields.number("repetition_penalty", 1.0));
  }

  /// eos_token_id: a number or a list of them. Keeps what was read before where there is none.
  void read_stop_tokens(const JsonFields& fields) {
    const Json* ids = fields.find("eos_token_id");
    if (!ids) return;
    stop_tokens_.clear();
    const auto add = [&](const Json& id) {
      if (!id.is_natural() || id.natural() >= config_.vocab_size) {
        fields.wrong("eos_token_id", id, "a token from 0 to ", config_.vocab_size - 1);
      }
      stop_tokens_.push_back(static_cast<Token>(id.natural()));
    };
    if (!ids->is_array()) return add(*ids);
    for (const Json& id : ids->items()) add(id);
  }

  const SafetensorsFile* find(const std::string& name) const {
    const auto found = files_.find(name);
    return found == files_.end() ? nullptr : found->second.get();
  }

  std::filesystem::path folder_;
  Gemma4Config config_;
  std::string_view prefix_;
  TensorFiles files_;
  std::vector<Token> stop_tokens_;
  SamplingOptions sampling_;
  std::optional<TableSource> ple_table_;
};

}  // namespace ple
