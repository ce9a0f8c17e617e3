// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/token.h"
#include "ple/model/gemma3n_config.h"
#include "ple/model/gemma4_config.h"
#include "ple/model/parameter.h"
#include "ple/model/sampling_options.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// The configuration of a model of any family.
using ModelConfig = std::variant<Gemma4Config, Gemma3nConfig>;

/// What a kind of model file has to tell: see Checkpoint, which asks. Whoever makes one fills in the numbers.
class CheckpointSource {
 public:
  virtual ~CheckpointSource() = default;

  virtual bool has(Parameter parameter, std::size_t layer) const = 0;
  /// Errors: ErrorCode::missing, dtype.
  virtual Tensor tensor(Parameter parameter, std::size_t layer) const = 0;
  virtual std::optional<std::string> chat_template() const = 0;
  /// Asked for only by who will sample with it, so that nonsense in it stops nobody else. Errors: ErrorCode::config.
  virtual SamplingOptions recommended_sampling() const = 0;
  virtual std::filesystem::path tokenizer_file() const = 0;
  /// What it is read from; some of it may not be there.
  virtual std::vector<std::filesystem::path> files() const = 0;

  std::size_t vocab_size() const {
    return std::visit([](const auto& c) { return c.vocab_size; }, config);
  }

  ModelConfig config;
  std::vector<Token> stop_tokens;
};

}  // namespace ple::inline PLE_ABI
