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

/// What a kind of model file has to tell: see Checkpoint, which asks.
class CheckpointSource {
 public:
  virtual ~CheckpointSource() = default;

  virtual bool has(Parameter parameter, std::size_t layer = 0) const = 0;
  /// Its shape is for the model to check. Errors: ErrorCode::missing, dtype.
  virtual Tensor tensor(Parameter parameter, std::size_t layer = 0) const = 0;
  /// Errors: ErrorCode::missing, malformed, limit.
  virtual std::optional<std::string> chat_template() const = 0;
  /// Asked for only by who will sample with it, so that nonsense in it stops nobody else. Errors: ErrorCode::config.
  virtual SamplingOptions recommended_sampling() const = 0;
  virtual std::filesystem::path tokenizer_file() const = 0;
  /// What it is read from; some of it may not be there.
  virtual std::vector<std::filesystem::path> files() const = 0;

  /// The configuration, of whatever family the model is.
  const ModelConfig& any_config() const { return config_; }
  /// As that of one family. Errors: ErrorCode::not_supported for a model of another.
  template <class Config>
  const Config& config() const& {
    if (const auto* config = std::get_if<Config>(&config_)) return *config;
    fail(ErrorCode::not_supported, name_, ": is a ", family_of(config_), " model, expected ", Config::family,
         ": load_model() opens any");
  }
  template <class Config>
  Config config() const&& {
    return static_cast<const CheckpointSource&>(*this).config<Config>();
  }
  std::size_t vocab_size() const {
    return std::visit([](const auto& c) { return c.vocab_size; }, config_);
  }
  /// The tokens that end a text.
  const std::vector<Token>& stop_tokens() const { return stop_tokens_; }
  /// Of the folder or file, for messages.
  const std::string& name() const { return name_; }

 protected:
  std::string name_;
  ModelConfig config_;
  std::vector<Token> stop_tokens_;
};

}  // namespace ple::inline PLE_ABI
