// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "ple/core/config.h"
#include "ple/family/family.h"
#include "ple/family/gemma4/block.h"
#include "ple/family/gemma4/config.h"
#include "ple/family/gemma4/gguf.h"
#include "ple/family/gemma4/hf.h"
#include "ple/family/gemma4/shapes.h"

namespace ple::inline PLE_ABI {

template <>
struct Family<Gemma4Config> {
  template <class T, Backend B>
  using Model = Gemma4<T, B>;
  static Gemma4Config read(const Json& config_json, const std::string& source) {
    return gemma4_config(config_json, source);
  }
  static Gemma4Config read(const GgufShards& file) { return gemma4_config(file); }
  static constexpr PublishedModel<Gemma4Config> published[] = {{"gemma4-e2b", gemma4_e2b},
                                                               {"gemma4-e4b", gemma4_e4b},
                                                               {"gemma4-12b", gemma4_12b},
                                                               {"gemma4-26b-a4b", gemma4_26b_a4b},
                                                               {"gemma4-31b", gemma4_31b}};
};

}  // namespace ple::inline PLE_ABI
