// SPDX-License-Identifier: Apache-2.0
// What every family must have.
#pragma once

#include <string_view>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// A family, by its configuration. The family's own family.h specializes it with
///   template <class T, Backend B> using Model             the decoder
///   static Config read(const Json&, const std::string&)   from Hugging Face's config.json; the string names the file
///   static Config read(const GgufShards&)                 from GGUF's keys
///   static constexpr PublishedModel<Config> published[]   models whose shapes are built in
/// Config itself has `family`, its name for people, and `model_type`, its name in files.
template <class Config>
struct Family;

template <class Config>
struct PublishedModel {
  std::string_view name;
  Config (*config)();
};

}  // namespace ple::inline PLE_ABI
