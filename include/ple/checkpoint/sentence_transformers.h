// SPDX-License-Identifier: Apache-2.0
// What a folder that the Python package sentence-transformers wrote says beside the model: how tokens become a vector,
// and what goes before a text.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/json.h"
#include "ple/formats/json_field.h"

namespace ple::inline PLE_ABI {

/// What an encoder reads before a text, which tells it what the vector is for.
struct EmbeddingPrompts {
  std::string query = "task: search result | query: ";  ///< before a question
  std::string document = "title: none | text: ";        ///< before a text that may answer one
};

/// Those of config_sentence_transformers.json, where the folder has them. Errors: ErrorCode::file, malformed, config,
/// limit.
inline EmbeddingPrompts embedding_prompts(const std::filesystem::path& folder, const JsonLimits& limits = {}) {
  EmbeddingPrompts prompts;
  const std::filesystem::path file = folder / "config_sentence_transformers.json";
  if (!file_exists(file)) return prompts;
  const Json json = read_json_file(file, limits);
  if (const auto fields = JsonField(json, file.string()).object("prompts")) {
    prompts.query = fields->text("query", prompts.query);
    prompts.document = fields->text("document", prompts.document);
  }
  return prompts;
}

/// Refuses a folder whose vectors are not the normalised mean over all of a text's tokens. Errors: those of
/// embedding_prompts; ErrorCode::not_supported.
inline void check_mean_pooling(const std::filesystem::path& folder, const JsonLimits& limits = {}) {
  const std::filesystem::path file = folder / "modules.json";
  if (!file_exists(file)) return;  // the model alone, as transformers saves it
  const Json json = read_json_file(file, limits);
  for (const JsonField& module : JsonField(json, file.string()).items()) {
    const std::string type = module.text("type"), kind = type.substr(type.rfind('.') + 1);
    if (kind == "Transformer" || kind == "Normalize") continue;
    if (kind != "Pooling") {
      fail(ErrorCode::not_supported, module.where(), ".type is '", type,
           "', expected Transformer, Pooling and Normalize");
    }
    const std::filesystem::path path = module.text("path");
    if (path.empty() || path != path.filename() || path == "..")
      fail(ErrorCode::malformed, module.where(), ".path is '", path.string(), "', expected the name of a folder in it");
    const std::filesystem::path pooling_file = folder / path / "config.json";
    const Json pooling_json = read_json_file(pooling_file, limits);
    const JsonField pooling(pooling_json, pooling_file.string());
    const auto refuse = [&](const char* field, const char* expected) {
      fail(ErrorCode::not_supported, pooling.source(), ": ", field, " is ", pooling.find(field)->brief(), ", expected ",
           expected);
    };
    if (pooling.has("pooling_mode") && pooling.find("pooling_mode")->brief() != "\"mean\"")
      refuse("pooling_mode", "\"mean\"");
    for (const char* other : {"pooling_mode_cls_token", "pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens",
                              "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"}) {  // older files
      if (pooling.boolean(other, false)) refuse(other, "false: only the mean is supported");
    }
    if (!pooling.boolean("include_prompt", true)) refuse("include_prompt", "true");
  }
}

}  // namespace ple::inline PLE_ABI
