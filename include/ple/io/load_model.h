// SPDX-License-Identifier: Apache-2.0
// Opens a model of whatever family a checkpoint holds. Who knows the family names it: Gemma4<>::load(checkpoint).
#pragma once

#include <memory>
#include <variant>

#include "ple/core/config.h"
#include "ple/io/checkpoint.h"
#include "ple/model/gemma3n.h"
#include "ple/model/gemma4.h"
#include "ple/model/language_model.h"
#include "ple/simd/default_backend.h"

namespace ple::inline PLE_ABI {

/// The checkpoint's model; T and B as for Gemma4 and Gemma3n. Errors: those of Decoder::load.
template <class T = Any, Backend B = DefaultBackend>
std::unique_ptr<LanguageModel> load_model(const Checkpoint& checkpoint, const LoadOptions& options = {}) {
  if (std::holds_alternative<Gemma3nConfig>(checkpoint.any_config()))
    return std::make_unique<Gemma3n<T, B>>(Gemma3n<T, B>::load(checkpoint, options));
  return std::make_unique<Gemma4<T, B>>(Gemma4<T, B>::load(checkpoint, options));
}

}  // namespace ple::inline PLE_ABI
