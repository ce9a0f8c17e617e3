// SPDX-License-Identifier: Apache-2.0
// Opens a model of any family. If you know the family, name it instead: Gemma4<>::load(checkpoint).
#pragma once

#include <memory>
#include <variant>

#include "ple/checkpoint/checkpoint.h"
#include "ple/core/config.h"
#include "ple/family/families.h"
#include "ple/model/language_model.h"
#include "ple/simd/default_backend.h"

namespace ple::inline PLE_ABI {

/// The checkpoint's model; T and B as for Gemma4 and Gemma3n. Errors: those of Decoder::load.
template <class T = Any, Backend B = DefaultBackend>
std::unique_ptr<LanguageModel> load_model(const Checkpoint& checkpoint, const LoadOptions& options = {}) {
  return std::visit(
      [&]<class Config>(const Config& /*of its family*/) -> std::unique_ptr<LanguageModel> {
        using Model = typename Family<Config>::template Model<T, B>;
        return std::make_unique<Model>(Model::load(checkpoint, options));
      },
      checkpoint.any_config());
}

}  // namespace ple::inline PLE_ABI
