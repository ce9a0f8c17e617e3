// SPDX-License-Identifier: Apache-2.0
// A model as it lies on disk, whatever kind of files it is in.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
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
  /// A file that `examples/pack` wrote: its PLE table takes the place of the model's.
  std::filesystem::path table = {};
  /// A smaller model inside a Gemma 3n: of what it leaves out nothing is read. See published_slice() too.
  MatformerOptions slice = {};
  Limits limits = {};  ///< for files of strangers
};

/// Files are mapped and their headers checked when it is opened; weights are read only when they are used, and those of
/// no use to the text model (vision, audio, K and V of layers that share another's) never.
class Checkpoint {
 public:
  /// A Hugging Face folder, or a GGUF file, of which any part will do if it is split.
  /// Errors: ErrorCode::file, missing, malformed, dtype, shape, config, not_supported, limit; argument for a slice that
  /// the model does not have.
  static Checkpoint open(const std::filesystem::path& path, const CheckpointOptions& options = {}) {
    return open_files<Checkpoint>(path, options);
  }

  /// Those it was opened with.
  const Limits& limits() const { return limits_; }

  /// The folder its files lie in.
  std::filesystem::path folder() const { return tokenizer_file().parent_path(); }

  /// The configuration, of whatever family the model is.
  const ModelConfig& any_config() const { return config_; }
  /// As that of one family. Errors: ErrorCode::not_supported for a model of another.
  template <class Config>
  const Config& config() const {
    return config_of<Config>(config_, path_);
  }

  bool has(Parameter parameter, std::size_t layer = 0) const { return source_->has(parameter, layer); }

  /// The table that takes the place of the model's, if one does: a packed one, or a slice's.
  const std::optional<TableSource>& ple_table() const { return ple_table_; }

  /// A parameter's tensor; its shape is for the model to check. Errors: ErrorCode::missing, dtype.
  Tensor tensor(Parameter parameter, std::size_t layer = 0) const { return source_->tensor(parameter, layer); }

  /// The tokens that end a text. A folder: generation_config.json's, or else config.json's.
  const std::vector<Token>& stop_tokens() const { return stop_tokens_; }

  /// What the files recommend; greedy where they do not ask for sampling. Errors: ErrorCode::config for what makes no
  /// sense.
  SamplingOptions recommended_sampling() const { return source_->recommended_sampling(); }

  /// The chat template's text, if there is one.
  std::optional<std::string> chat_template() const { return source_->chat_template(); }

  /// For open_tokenizer: tokenizer.json, or the GGUF file itself.
  std::filesystem::path tokenizer_file() const { return source_->tokenizer_file(); }

  /// What it is read from, which nothing that is made from it should overwrite: see check_output_path. Some of it may
  /// not be there.
  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> files = source_->files();
    if (!table_path_.empty()) files.push_back(table_path_);
    return files;
  }

 private:
  /// A template, so that ple/models.h can say that it is compiled in another file.
  template <class Self>
  static Self open_files(const std::filesystem::path& path, const CheckpointOptions& options);

  Checkpoint(const std::filesystem::path& path, const Limits& limits) : path_(path.string()), limits_(limits) {
    // A file that is no GGUF file says so better itself.
    if (path.extension() == ".gguf" || GgufFile::is_one(path)) {
      source_ = std::make_shared<const GgufCheckpoint>(path);
    } else {
      check_is_folder(path, "a Hugging Face folder with config.json and safetensors, or a GGUF file");
      source_ = std::make_shared<const HfFolder>(path, limits.json);
    }
  }

  void take_slice(const MatformerOptions& options) {
    const auto slice = std::make_shared<const SlicedSource>(source_, options, path_);
    ple_table_ = ple_table_ ? slice->cut(*ple_table_) : slice->table();
    source_ = slice;
    read_numbers();
  }

  void read_numbers() {
    config_ = source_->any_config();
    stop_tokens_ = source_->stop_tokens();
  }

  std::string path_;
  Limits limits_;
  std::filesystem::path table_path_;
  std::shared_ptr<const CheckpointSource> source_;
  ModelConfig config_;
  std::vector<Token> stop_tokens_;
  std::optional<TableSource> ple_table_;
};

template <class Self>
Self Checkpoint::open_files(const std::filesystem::path& path, const CheckpointOptions& options) {
  const Limits& limits = options.limits;
  detail::check_file_sizes(path, limits.file_bytes);
  Checkpoint checkpoint(path, limits);
  checkpoint.read_numbers();
  detail::check_vocab_size(path.string(), std::visit([](const auto& c) { return c.vocab_size; }, checkpoint.config_),
                           limits);
  if (!options.table.empty()) {
    checkpoint.table_path_ = options.table;
    detail::check_file_size(options.table, limits.file_bytes);
    checkpoint.ple_table_ = read_packed_table(options.table, limits);
  }
  if (!options.slice.empty()) checkpoint.take_slice(options.slice);
  return checkpoint;
}

}  // namespace ple::inline PLE_ABI
