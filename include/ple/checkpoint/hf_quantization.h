// SPDX-License-Identifier: Apache-2.0
// What config.json says of a model's quantization, for errors.
#pragma once

#include <string>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/formats/json_field.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// The numbers that most methods have, as ", 4 bits, groups of 32".
inline std::string quantized_numbers(const Json& fields) {
  std::string text;
  for (const char* name : {"bits", "num_bits"}) {
    const Json* bits = fields.find(name);
    if (bits && bits->is_natural()) text += ", " + std::to_string(bits->natural()) + " bits";
  }
  const Json* group = fields.find("group_size");
  if (group && group->is_natural()) text += ", groups of " + std::to_string(group->natural());
  return text;
}

/// The first object called `name` in compressed-tensors' config_groups; nullptr if none.
inline const Json* of_config_groups(const Json& quantization, const char* name) {
  const Json* groups = quantization.find("config_groups");
  if (!groups || !groups->is_object()) return nullptr;
  for (const Json& group : groups->members()) {
    const Json* field = group.is_object() ? group.find(name) : nullptr;
    if (field && field->is_object()) return field;
  }
  return nullptr;
}

}  // namespace detail

/// The end of an error about a weight that cannot be read: "the model is quantized by gptq, 4 bits, groups of 128 ...".
/// Empty if config.json has no quantization.
inline std::string hf_quantization(const Json& config_json) {
  for (const char* name : {"quantization_config", "quantization"}) {  // the latter is MLX's
    const Json* fields = config_json.find(name);
    if (!fields || !fields->is_object()) continue;
    const auto text_of = [&](const char* field) {
      const Json* value = fields->find(field);
      return value && value->is_string() ? std::string(value->text()) : "";
    };
    const std::string method = text_of("quant_method"), format = text_of("format");
    const Json* weights = detail::of_config_groups(*fields, "weights");
    return ": the model is quantized" + (method.empty() ? "" : " by " + method) +
           (format.empty() ? "" : " (" + format + ")") + detail::quantized_numbers(weights ? *weights : *fields) +
           ": ple reads quantized GGUF files and compressed-tensors' pack-quantized (symmetric, 4 or 8 bits)";
  }
  return "";
}

/// Errors: ErrorCode::not_supported if activations were to be quantized too, to a type that ple does not compute in.
inline void refuse_quantized_activations(const Json& config_json, const std::string& source) {
  const Json* fields = config_json.find("quantization_config");
  if (!fields || !fields->is_object() || !detail::of_config_groups(*fields, "input_activations")) return;
  fail(ErrorCode::not_supported, source,
       ": quantization_config has input_activations: models whose activations are quantized are not supported");
}

}  // namespace ple::inline PLE_ABI
