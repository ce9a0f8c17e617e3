// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "ple/core/config.h"
#include "ple/family/family.h"
#include "ple/family/gemma3n/block.h"
#include "ple/family/gemma3n/config.h"
#include "ple/family/gemma3n/gguf.h"
#include "ple/family/gemma3n/hf.h"
#include "ple/family/gemma3n/shapes.h"

namespace ple::inline PLE_ABI {

template <>
struct Family<Gemma3nConfig> {
  template <class T, Backend B>
  using Model = Gemma3n<T, B>;
  static Gemma3nConfig read(const Json& config_json, const std::string& source) {
    return gemma3n_config(config_json, source);
  }
  static Gemma3nConfig read(const GgufShards& file) { return gemma3n_config(file); }
  static constexpr PublishedModel<Gemma3nConfig> published[] = {{"gemma3n-e2b", gemma3n_e2b},
                                                                {"gemma3n-e4b", gemma3n_e4b}};
};

}  // namespace ple::inline PLE_ABI
