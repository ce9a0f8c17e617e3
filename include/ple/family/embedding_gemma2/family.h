// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "ple/core/config.h"
#include "ple/family/embedding_gemma2/config.h"
#include "ple/family/embedding_gemma2/hf.h"
#include "ple/family/family.h"

namespace ple::inline PLE_ABI {

/// An encoder, so it is not in the list of families.h: what is listed there writes texts.
template <>
struct Family<EmbeddingGemma2Config> {
  static EmbeddingGemma2Config read(const Json& config_json, const std::string& source) {
    return embedding_gemma2_config(config_json, source);
  }
};

}  // namespace ple::inline PLE_ABI
