// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/family/families.h"
#include "ple/model/parameter.h"
#include "ple/model/sampling_options.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// The configuration as that of one family; `name` is for errors: ErrorCode::not_supported for another family.
template <class Config>
const Config& config_of(const ModelConfig& any, const std::string& name) {
  if (const auto* config = std::get_if<Config>(&any)) return *config;
  fail(ErrorCode::not_supported, name, ": is a ", family_of(any), " model, expected ", Config::family,
       ": load_model() opens every family");
}

/// What every kind of model file provides; Checkpoint says more of each function. It also has `any_config()`, which is
/// not virtual: a program that loads one family from a folder does not compile the others' configurations.
class CheckpointSource {
 public:
  virtual ~CheckpointSource() = default;

  virtual bool has(Parameter parameter, std::size_t layer = 0) const = 0;
  /// The model checks its shape. Errors: ErrorCode::missing, dtype.
  virtual Tensor tensor(Parameter parameter, std::size_t layer = 0) const = 0;
  /// Errors: ErrorCode::missing, malformed, limit.
  virtual std::optional<std::string> chat_template() const = 0;
  /// Read only by who samples, so that invalid values stop nobody else. Errors: ErrorCode::config.
  virtual SamplingOptions recommended_sampling() const = 0;
  virtual std::filesystem::path tokenizer_file() const = 0;
  /// The files it is read from; some may be missing.
  virtual std::vector<std::filesystem::path> files() const = 0;

  /// The tokens that end a text. Errors: ErrorCode::config.
  virtual std::vector<Token> stop_tokens() const = 0;
  /// The folder's or file's, for messages.
  virtual std::string name() const = 0;
};

}  // namespace ple::inline PLE_ABI
