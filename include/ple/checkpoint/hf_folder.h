// SPDX-License-Identifier: Apache-2.0
// A model's folder as Hugging Face lays it out: config.json, safetensors, and small files for text. A program that
// opens nothing else compiles faster with HfFolder than with Checkpoint.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "ple/checkpoint/checkpoint_source.h"
#include "ple/checkpoint/hf_chat_template.h"
#include "ple/checkpoint/hf_generation.h"
#include "ple/checkpoint/hf_quantization.h"
#include "ple/checkpoint/hf_tensor_names.h"
#include "ple/checkpoint/norm_weights.h"
#include "ple/checkpoint/packed_weights.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/token.h"
#include "ple/family/families.h"
#include "ple/formats/folder_contents.h"
#include "ple/formats/json_field.h"
#include "ple/formats/safetensors.h"
#include "ple/formats/safetensors_folder.h"
#include "ple/model/parameter.h"
#include "ple/model/sampling_options.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// Opening maps the files and checks their headers; weights are read only when used.
class HfFolder final : public CheckpointSource {
 public:
  /// Of any family, encoders too. Errors: ErrorCode::file, missing, malformed, config; not_supported (family, unmerged
  /// adapter); limit (`limits`).
  explicit HfFolder(const std::filesystem::path& folder, const JsonLimits& limits = {})
      : folder_(folder), limits_(limits) {
    check_is_folder(folder, "a Hugging Face folder with config.json and safetensors");
    if (!exists("config.json")) {
      fail(ErrorCode::missing, folder.string(), ": config.json is missing, so the model's shape is unknown",
           other_models_in(folder));
    }
    config_name_ = (folder / "config.json").string();
    json_ = read_json_file(config_name_, limits);
    HfTensorNames::Naming naming = hf_name;
    if (is_encoder(json_, config_name_)) {
      naming = embedding_gemma2_name;
    } else {
      with_family(json_, config_name_, [&]<class Config>() {  // its error comes before a file's
        if constexpr (requires { Family<Config>::hf_norm_offset; }) norm_offset_ = Family<Config>::hf_norm_offset;
      });
    }
    if (exists("generation_config.json")) generation_ = read_json_file(folder / "generation_config.json", limits);
    files_ = open_safetensors(folder, limits);
    if (files_.empty()) {
      fail(ErrorCode::missing, folder.string(), ": neither model.safetensors nor model.safetensors.index.json is there",
           other_models_in(folder));
    }
    names_ = HfTensorNames(files_, folder.string(), naming);
    tied_ = names_.tie(hf_tie_word_embeddings(json_, config_name_));
  }

  const std::filesystem::path& folder() const { return folder_; }
  std::string name() const override { return folder_.string(); }

  /// The configuration, of any family. Errors: ErrorCode::config; not_supported, also for an encoder.
  ModelConfig any_config() const {
    ModelConfig any;
    with_family(json_, config_name_, [&]<class Config>() { any = config<Config>(); });
    return any;
  }
  /// As that of one family. Errors: ErrorCode::config; not_supported for a model of another family.
  template <class Config>
  Config config() const {
    Config config = Family<Config>::read(json_, config_name_);
    if constexpr (requires { config.tie_word_embeddings; }) config.tie_word_embeddings = tied_;
    return config;
  }
  /// Old: any_config() tells. Goes with the next version.
  bool is_gemma3n() const { return is_hf_model_of<Gemma3nConfig>(json_, config_name_); }

  bool has(Parameter parameter, std::size_t layer = 0) const override {
    return names_.find(parameter, layer) != nullptr || packed(parameter, layer);
  }

  /// A parameter's tensor, norms as they multiply; the model checks its shape. Weights packed by compressed-tensors
  /// become q4_0 or q8_0 in new memory. Errors: ErrorCode::missing, dtype; those of PackedWeights::tensor.
  Tensor tensor(Parameter parameter, std::size_t layer = 0) const override {
    const std::string* name = names_.find(parameter, layer);
    if (!name) {
      if (const auto weights = packed(parameter, layer)) {
        refuse_quantized_activations(json_, config_name_);
        return weights.tensor();
      }
      fail(ErrorCode::missing, folder_.string(), ": ", names_.name(parameter, layer),
           ": no file of the folder has this tensor", hf_quantization(json_));
    }
    const SafetensorsFile& file = *files_.at(*name);
    if (!file.computable(*name)) {
      fail(ErrorCode::dtype, file.raw(*name).file, ": ", *name, ": dtype is ", file.dtype(*name),
           ", expected F32, BF16 or F16", hf_quantization(json_));
    }
    if (norm_offset_ != 0 && is_norm(parameter)) return with_offset(file.tensor(*name), norm_offset_);
    // The table may be read rather than mapped, so it need not be aligned.
    return parameter == Parameter::ple_table ? file.unaligned_tensor(*name) : file.tensor(*name);
  }

  /// Those of generation_config.json, else of config.json's top level, else of its text_config.
  std::vector<Token> stop_tokens() const override {
    const JsonField top(json_, config_name_);
    const auto text = top.object("text_config");
    std::vector<Token> tokens;
    if (const auto fields = generation()) tokens = hf_stop_tokens(*fields, vocab_size());
    if (tokens.empty()) tokens = hf_stop_tokens(top, vocab_size());
    if (tokens.empty() && text) tokens = hf_stop_tokens(*text, vocab_size());
    if (tokens.empty() && vocab_size() > 1) tokens = {1};  // the reference's default, <eos>
    return tokens;
  }

  /// What generation_config.json recommends, as hf_sampling() reads it; greedy without one. Errors: ErrorCode::config.
  SamplingOptions recommended_sampling() const override {
    const auto fields = generation();
    return fields ? hf_sampling(*fields, vocab_size()) : SamplingOptions{};
  }

  std::optional<std::string> chat_template() const override { return hf_chat_template(folder_, limits_); }

  std::filesystem::path tokenizer_file() const override { return folder_ / "tokenizer.json"; }
  std::filesystem::path tokenizer_json() const { return tokenizer_file(); }  ///< Old name; goes with the next version.

  /// The tensors' files, and the names in them of the text model's tensors.
  const TensorFiles& tensor_files() const { return files_; }
  const HfTensorNames& names() const { return names_; }
  std::string_view prefix() const { return names_.prefix(); }

  /// All files that a model is read from, present or not.
  std::vector<std::filesystem::path> files() const override {
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

  std::optional<JsonField> generation() const {
    if (!generation_) return std::nullopt;
    return JsonField(*generation_, (folder_ / "generation_config.json").string());
  }

  std::size_t vocab_size() const {
    std::size_t otherwise = 0;
    with_family(json_, config_name_, [&]<class Config>() { otherwise = Config().vocab_size; });
    const JsonField top(json_, config_name_);
    return top.object("text_config").value_or(top).count("vocab_size", otherwise);
  }

  PackedWeights packed(Parameter parameter, std::size_t layer) const {
    return {files_, names_, names_.inside(parameter, layer)};
  }

  std::filesystem::path folder_;
  JsonLimits limits_;
  std::string config_name_;  // the file's, for messages
  Json json_;
  std::optional<Json> generation_;
  TensorFiles files_;
  HfTensorNames names_;
  bool tied_ = true;
  float norm_offset_ = 0;  // of the stored weights to what norms multiply with
};

using HfCheckpoint = HfFolder;  ///< Old name; goes with the next version.

}  // namespace ple::inline PLE_ABI
