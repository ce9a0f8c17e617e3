// SPDX-License-Identifier: Apache-2.0
// Where a Hugging Face folder has its chat template.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/json.h"
#include "ple/formats/json_field.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// Field `chat_template` of a JSON file: one template, or of several the one named `default`. Several are a list of
/// objects with `name` and `template`, or an object with a member for each.
inline std::optional<std::string> chat_template_of(const std::filesystem::path& file, const JsonLimits& limits) {
  if (!file_exists(file)) return std::nullopt;
  const Json json = read_json_file(file, limits);
  const JsonField fields(json, file.string());
  const Json* found = fields.find("chat_template");
  if (found == nullptr || found->is_string()) return found ? std::optional<std::string>(found->text()) : std::nullopt;
  if (!found->is_array() && !found->is_object())
    fields.wrong("chat_template", *found, "a text, or templates with names");
  std::string names;
  for (const Json& named : found->items()) {
    const Json* text = found->is_object() ? &named : named.find("template");
    const Json* name = named.find("name");
    if (text == nullptr || !text->is_string() || !(found->is_object() || (name != nullptr && name->is_string())))
      fields.wrong("chat_template", named, "a template with a name");
    const std::string_view called = found->is_object() ? named.key() : name->text();
    if (called == "default") return std::string(text->text());
    names.append(names.empty() ? "" : ", ").append(called);
  }
  if (names.empty()) return std::nullopt;
  fail(ErrorCode::missing, file.string(), ": none of its chat templates is called default, only ", names);
}

}  // namespace detail

/// The folder's chat template, if any. As in transformers' tokenizers, a file of its own takes precedence over
/// tokenizer_config.json. Then come chat_template.json and processor_config.json, which only processors read. Errors:
/// ErrorCode::file, malformed, config, limit; missing if no named template is the default.
inline std::optional<std::string> hf_chat_template(const std::filesystem::path& folder, const JsonLimits& limits = {}) {
  for (const char* const name : {"additional_chat_templates/default.jinja", "chat_template.jinja"}) {
    if (file_exists(folder / name)) return read_text_file(folder / name, limits.bytes);
  }
  for (const char* const name : {"tokenizer_config.json", "chat_template.json", "processor_config.json"}) {
    if (auto text = detail::chat_template_of(folder / name, limits)) return text;
  }
  return std::nullopt;
}

}  // namespace ple::inline PLE_ABI
