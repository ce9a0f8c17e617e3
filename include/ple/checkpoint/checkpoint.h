// SPDX-License-Identifier: Apache-2.0
// A model on disk, in any format that is supported.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ple/checkpoint/checkpoint_source.h"
#include "ple/checkpoint/gguf_checkpoint.h"
#include "ple/checkpoint/hf_folder.h"
#include "ple/checkpoint/packed_table.h"
#include "ple/checkpoint/sliced_source.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/family/gemma3n/matformer.h"
#include "ple/formats/folder_contents.h"
#include "ple/formats/limits.h"
#include "ple/model/parameter.h"
#include "ple/model/sampling_options.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

struct CheckpointOptions {
  /// A file from `examples/pack`: its PLE table, and its token embedding if it has one, replace the model's.
  std::filesystem::path table = {};
  /// A smaller model inside a Gemma 3n. Of what it omits, only bytes between parts of PLE rows are read. See also
  /// published_slice().
  MatformerOptions slice = {};
  CheckpointLimits limits = {};  ///< for untrusted files
};

/// Opening maps the files and checks their headers. Weights are read when used; those that the text model does not use
/// (vision, audio, K and V of layers that share another's), never.
class Checkpoint {
 public:
  /// A Hugging Face folder, or a GGUF file: of a split one, any part. Errors: ErrorCode::file, missing, malformed,
  /// dtype, shape, config, not_supported, limit; argument for a slice that the model does not have.
  static Checkpoint open(const std::filesystem::path& path, const CheckpointOptions& options = {}) {
    return open_files<Checkpoint>(path, options);
  }

  const CheckpointLimits& limits() const { return limits_; }

  std::filesystem::path folder() const { return tokenizer_file().parent_path(); }

  /// The configuration, of any family.
  const ModelConfig& any_config() const { return config_; }
  /// The configuration of one family. Errors: ErrorCode::not_supported for a model of another.
  template <class Config>
  const Config& config() const {
    return config_of<Config>(config_, path_);
  }

  bool has(Parameter parameter, std::size_t layer = 0) const { return source_->has(parameter, layer); }

  /// The table that replaces the model's, if any: a packed one or a slice's.
  const std::optional<TableSource>& ple_table() const { return ple_table_; }

  /// A parameter's tensor; the model checks its shape. If a packed table cut the vocabulary, its token embedding,
  /// [ple_table()->vocabulary->rows(), d], replaces the model's. Errors: ErrorCode::missing, dtype.
  Tensor tensor(Parameter parameter, std::size_t layer = 0) const {
    if (parameter == Parameter::token_embedding && token_embedding_) return *token_embedding_;
    return source_->tensor(parameter, layer);
  }

  /// The tokens that end a text. A folder's come from generation_config.json, else from config.json, else token 1.
  const std::vector<Token>& stop_tokens() const { return stop_tokens_; }

  /// What the files recommend; greedy unless they ask for sampling. Errors: ErrorCode::config for invalid values.
  SamplingOptions recommended_sampling() const { return source_->recommended_sampling(); }

  std::optional<std::string> chat_template() const { return source_->chat_template(); }

  /// For open_tokenizer: tokenizer.json, or the GGUF file itself.
  std::filesystem::path tokenizer_file() const { return source_->tokenizer_file(); }

  /// The files it is read from, some perhaps missing. Output must not overwrite them: see check_output_path.
  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> files = source_->files();
    if (!table_path_.empty()) files.push_back(table_path_);
    return files;
  }

 private:
  /// A template so that ple/models.h can declare it extern.
  template <class Self>
  static Self open_files(const std::filesystem::path& path, const CheckpointOptions& options);

  Checkpoint(const std::filesystem::path& path, const CheckpointLimits& limits)
      : path_(path.string()), limits_(limits) {
    // For a .gguf file that is not GGUF, GgufCheckpoint has the better error.
    if (path.extension() == ".gguf" || GgufFile::is_one(path)) {
      const auto file = std::make_shared<const GgufCheckpoint>(path);
      config_ = file->any_config();
      source_ = file;
    } else {
      check_is_folder(path, "a Hugging Face folder with config.json and safetensors, or a GGUF file");
      const auto folder = std::make_shared<const HfFolder>(path, limits.json);
      config_ = folder->any_config();
      source_ = folder;
    }
    stop_tokens_ = source_->stop_tokens();
  }

  void take_slice(const MatformerOptions& options) {
    const auto slice = std::make_shared<const SlicedSource>(source_, config_, options, path_);
    ple_table_ = ple_table_ ? slice->cut(*ple_table_) : slice->table();
    config_ = slice->slice().config;
    source_ = slice;
  }

  std::string path_;
  CheckpointLimits limits_;
  std::filesystem::path table_path_;
  std::shared_ptr<const CheckpointSource> source_;
  ModelConfig config_;
  std::vector<Token> stop_tokens_;
  std::optional<TableSource> ple_table_;
  std::optional<Tensor> token_embedding_;
};

template <class Self>
Self Checkpoint::open_files(const std::filesystem::path& path, const CheckpointOptions& options) {
  const CheckpointLimits& limits = options.limits;
  detail::check_file_sizes(path, limits.file_bytes);
  Checkpoint checkpoint(path, limits);
  detail::check_vocab_size(path.string(), std::visit([](const auto& c) { return c.vocab_size; }, checkpoint.config_),
                           limits);
  if (!options.table.empty()) {
    checkpoint.table_path_ = options.table;
    detail::check_file_size(options.table, limits.file_bytes);
    PackedTable table = read_packed_table(options.table, limits);
    checkpoint.token_embedding_ = std::move(table.token_embedding);
    checkpoint.ple_table_ = std::move(table);
  }
  if (!options.slice.empty()) checkpoint.take_slice(options.slice);
  return checkpoint;
}

}  // namespace ple::inline PLE_ABI
