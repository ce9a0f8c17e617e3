// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder as one of the kinds of files that Checkpoint opens.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/io/checkpoint_source.h"
#include "ple/io/hf_folder.h"
#include "ple/io/hf_gemma3n_config.h"
#include "ple/model/gemma3n_config.h"
#include "ple/model/gemma4_config.h"

namespace ple::inline PLE_ABI {

class HfCheckpoint final : public CheckpointSource {
 public:
  /// Errors: ErrorCode::file, missing, malformed, config, not_supported, limit.
  explicit HfCheckpoint(const std::filesystem::path& path, const JsonLimits& limits = {}) : folder_(path, limits) {
    if (folder_.is_gemma3n()) {
      config = folder_.config<Gemma3nConfig>();
    } else {
      config = folder_.config<Gemma4Config>();
    }
    stop_tokens = folder_.stop_tokens();
  }

  bool has(Parameter parameter, std::size_t layer) const override { return folder_.has(parameter, layer); }
  Tensor tensor(Parameter parameter, std::size_t layer) const override { return folder_.tensor(parameter, layer); }
  std::optional<std::string> chat_template() const override { return folder_.chat_template(); }
  SamplingOptions recommended_sampling() const override { return folder_.recommended_sampling(); }
  std::filesystem::path tokenizer_file() const override { return folder_.tokenizer_json(); }
  std::vector<std::filesystem::path> files() const override { return folder_.paths(); }

  const HfFolder& folder() const { return folder_; }

 private:
  HfFolder folder_;
};

}  // namespace ple::inline PLE_ABI
