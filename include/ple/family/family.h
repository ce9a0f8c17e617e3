// SPDX-License-Identifier: Apache-2.0
// What every family needs besides a block (model/decoder_block.h).
#pragma once

#include <string_view>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// Traits of a family, by its configuration. The family's own family.h specializes them with
///   template <class T, Backend B> using Model             the decoder
///   static Config read(const Json&, const std::string&)   from Hugging Face's config.json; the string names the file
///   static Config read(const GgufShards&)                 from GGUF's keys
///   static constexpr PublishedModel<Config> published[]   models whose shapes are built in
///   static constexpr float hf_norm_offset = 1             if Hugging Face's norms multiply by 1 + w; else leave it out
/// Config has `family`, its name for people; `model_type`, its name in files; the fields that ConfigChecks::decoder()
/// checks (model/config.h); hidden_size_per_layer_input and vocab_size_per_layer_input, constants 0 in a family without
/// PLE; tie_word_embeddings; layer(l), num_layers(), first_shared_layer(), kv_layer(l), rope(type), token_limit() and
/// pad_token(). Beside it stand validate(config, source), for_each_field(config, f) and parameter_shapes(config).
template <class Config>
struct Family;

template <class Config>
struct PublishedModel {
  std::string_view name;
  Config (*config)();
};

}  // namespace ple::inline PLE_ABI
