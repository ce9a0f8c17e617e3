// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "ple/core/config.h"
#include "ple/family/family.h"
#include "ple/family/gemma3/block.h"
#include "ple/family/gemma3/config.h"
#include "ple/family/gemma3/gguf.h"
#include "ple/family/gemma3/hf.h"
#include "ple/family/gemma3/shapes.h"

namespace ple::inline PLE_ABI {

template <>
struct Family<Gemma3Config> {
  template <class T, Backend B>
  using Model = Gemma3<T, B>;
  static Gemma3Config read(const Json& config_json, const std::string& source) {
    return gemma3_config(config_json, source);
  }
  static Gemma3Config read(const GgufShards& file) { return gemma3_config(file); }
  static constexpr float hf_norm_offset = 1;
  static constexpr PublishedModel<Gemma3Config> published[] = {{"gemma3-270m", gemma3_270m},
                                                               {"gemma3-1b", gemma3_1b},
                                                               {"gemma3-4b", gemma3_4b},
                                                               {"gemma3-12b", gemma3_12b},
                                                               {"gemma3-27b", gemma3_27b}};
};

}  // namespace ple::inline PLE_ABI
