// SPDX-License-Identifier: Apache-2.0
// The list of model families. A new one is a folder and an entry here. Files, loading and reports use this list.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/family/embedding_gemma2/family.h"
#include "ple/family/gemma3/family.h"
#include "ple/family/gemma3n/family.h"
#include "ple/family/gemma4/family.h"

namespace ple::inline PLE_ABI {

/// The list: a model's configuration, of any family.
using ModelConfig = std::variant<Gemma4Config, Gemma3nConfig, Gemma3Config>;

namespace detail {

template <class... Configs, class F>
void for_each_config(const std::variant<Configs...>* /*list*/, F&& f) {
  (f.template operator()<Configs>(), ...);
}

}  // namespace detail

/// Calls f.template operator()<Config>() for every family.
template <class F>
void for_each_family(F&& f) {
  detail::for_each_config(static_cast<const ModelConfig*>(nullptr), f);
}

inline std::string family_of(const ModelConfig& config) {
  return std::visit([](const auto& c) { return c.family; }, config);
}

namespace detail {

/// The families' names in config.json, "'gemma4', 'gemma4_text', ... and 'gemma3_text'", or in GGUF files.
inline std::string supported_model_types(bool gguf, const char* last) {
  std::vector<std::string> all;
  for_each_family([&]<class Config>() {
    if (gguf) return all.push_back(std::string("'") + Config::model_type + "'");
    for (const std::string& type : hf_model_types<Config>()) {
      all.push_back("'" + type + "'");
      all.push_back("'" + type + "_text'");
    }
  });
  std::string list = all[0];
  for (std::size_t i = 1; i < all.size(); ++i) list += (i + 1 < all.size() ? ", " : last) + all[i];
  return list;
}

}  // namespace detail

/// Whether config.json is an encoder's. Encoders are not in the list: they make vectors of texts and write none. Their
/// own classes open them.
inline bool is_encoder(const Json& config_json, const std::string& source) {
  return is_hf_model_of<EmbeddingGemma2Config>(config_json, source);
}

/// Calls f.template operator()<Config>() for the family that config.json names; `source` names the file in messages.
/// Errors: ErrorCode::not_supported for a family that is not here; config.
template <class F>
void with_family(const Json& config_json, const std::string& source, F&& f) {
  bool found = false;
  for_each_family([&]<class Config>() {
    if (!is_hf_model_of<Config>(config_json, source)) return;
    found = true;
    f.template operator()<Config>();
  });
  if (found) return;
  if (is_encoder(config_json, source)) {
    fail(ErrorCode::not_supported, source, ": model_type is '", hf_model_type(config_json, source),
         "': ", EmbeddingGemma2Config::family, " makes vectors of texts and writes none: examples/embed opens it");
  }
  const std::string whole = JsonField(config_json, source).text("model_type", ""),
                    text = hf_model_type(config_json, source);
  fail(ErrorCode::not_supported, source, ": model_type is '", whole.empty() ? text : whole, "'",
       whole.empty() || whole == text ? "" : " with the text model '" + text + "'", ": supported are ",
       detail::supported_model_types(/*gguf=*/false, " and "));
}

/// From config.json. Errors: as above.
inline ModelConfig read_config(const Json& config_json, const std::string& source) {
  ModelConfig config;
  with_family(config_json, source, [&]<class Config>() { config = Family<Config>::read(config_json, source); });
  return config;
}

/// From the keys of a GGUF file. Errors: ErrorCode::missing, config, shape; not_supported as above.
inline ModelConfig read_config(const GgufShards& file) {
  constexpr std::string_view key = "general.architecture";
  const std::string_view architecture = file.metadata().text(key);
  std::optional<ModelConfig> found;
  for_each_family([&]<class Config>() {
    if (architecture == Config::model_type) found = Family<Config>::read(file);
  });
  if (found) return *std::move(found);
  fail(ErrorCode::not_supported, file.metadata().file(), ": ", key, " is '", architecture, "', expected ",
       detail::supported_model_types(/*gguf=*/true, " or "),
       architecture == "clip" ? ": this file holds the vision or audio encoders, not the text model" : "");
}

/// The built-in configuration of a published model, such as "gemma4-e2b"; nothing for another name.
inline std::optional<ModelConfig> published_config(std::string_view name) {
  std::optional<ModelConfig> found;
  for_each_family([&]<class Config>() {
    for (const auto& model : Family<Config>::published) {
      if (model.name == name) found = model.config();
    }
  });
  return found;
}

/// Their names: "gemma4-e2b, gemma4-e4b, ...".
inline std::string published_models() {
  std::string all;
  for_each_family([&]<class Config>() {
    for (const auto& model : Family<Config>::published) all.append(all.empty() ? "" : ", ").append(model.name);
  });
  return all;
}

}  // namespace ple::inline PLE_ABI
