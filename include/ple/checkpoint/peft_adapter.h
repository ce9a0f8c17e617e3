// SPDX-License-Identifier: Apache-2.0
// Adapters in the format of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors. What would change
// the model in a way that ple does not compute is an error that names it; nothing is skipped.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/checkpoint/hf_tensor_names.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/json.h"
#include "ple/dtype/traits.h"
#include "ple/formats/json_field.h"
#include "ple/formats/safetensors.h"
#include "ple/model/adapter.h"
#include "ple/model/parameter.h"
#include "ple/simd/decode.h"
#include "ple/simd/scalar.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// adapter_config.json. Source: LoraConfig of PEFT 0.21.
class PeftConfig {
 public:
  PeftConfig(Json json, const std::string& file) : json_(std::move(json)), fields_(json_, file) {
    if (fields_.text("peft_type") != "LORA") refuse("peft_type", "expected \"LORA\"");
    for (const Json& field : json_.members()) {
      const std::string_view name = field.key();
      if (is_empty(field) || contains(without_effect, name)) continue;
      refuse(name, contains(unsupported, name) ? "ple does not support it" : "ple does not know this field");
    }
    // An adapter that began so belongs to other base weights than the model's; PEFT can convert it.
    if (const Json* start = fields_.find("init_lora_weights"); start != nullptr && start->is_string()) {
      for (const std::string_view changes_weights : {"pissa", "olora", "corda", "loftq", "lora_ga"}) {
        if (start->text().starts_with(changes_weights))
          refuse("init_lora_weights", "such an adapter has other weights");
      }
    }
    if (fields_.text("bias", "none") != "none") refuse("bias", "expected \"none\"");
    rank_ = fields_.count("r", 8);
    alpha_ = fields_.number("lora_alpha", 8);
    rslora_ = fields_.boolean("use_rslora", false);
    static_cast<void>(fields_.object("rank_pattern")), static_cast<void>(fields_.object("alpha_pattern"));
  }

  PeftConfig(const PeftConfig&) = delete;  // fields_ points into it
  PeftConfig& operator=(const PeftConfig&) = delete;

  /// r of a module.
  std::size_t rank(std::string_view module) const {
    const auto key = pattern("rank_pattern", module);
    return key ? fields_.object("rank_pattern")->count(*key) : rank_;
  }
  /// lora_alpha / r, or lora_alpha / sqrt(r).
  double scale(std::string_view module) const {
    const auto key = pattern("alpha_pattern", module);
    const double alpha = key ? fields_.object("alpha_pattern")->number(*key) : alpha_;
    const auto r = static_cast<double>(rank(module));
    return alpha / (rslora_ ? std::sqrt(r) : r);
  }

 private:
  static constexpr std::string_view without_effect[] = {
      "peft_type", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "init_lora_weights", "bias",
      // Which modules were adapted is what the tensors say.
      "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
      // Of training, or of the file's history.
      "lora_dropout", "fan_in_fan_out", "base_model_name_or_path", "revision", "task_type", "inference_mode",
      "auto_mapping", "peft_version", "megatron_config", "megatron_core", "runtime_config", "eva_config",
      "corda_config", "loftq_config", "lora_ga_config", "velora_config", "ensure_weight_tying", "qalora_group_size"};
  static constexpr std::string_view unsupported[] = {
      "use_dora",          "lora_bias",         "modules_to_save",         "trainable_token_indices",
      "target_parameters", "layer_replication", "alora_invocation_tokens", "use_qalora",
      "use_bdlora",        "kasa_config",       "monteclora_config",       "arrow_config"};

  static bool contains(std::span<const std::string_view> names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  }
  static bool is_empty(const Json& value) {
    return value.is_null() || (value.is_boolean() && !value.boolean()) ||
           ((value.is_array() || value.is_object()) && value.items().empty());
  }
  [[noreturn]] void refuse(std::string_view name, std::string_view why) const {
    fail(ErrorCode::not_supported, fields_.source(), ": ", name, " is ", fields_.find(name)->brief(), ": ", why);
  }

  /// The first key that matches a module's name, as PEFT does: the regular expression (.*\.)?(key)$. Of regular
  /// expressions only '.' and '^' are supported: the others could take forever.
  std::optional<std::string> pattern(std::string_view field, std::string_view module) const {
    const auto patterns = fields_.object(field);
    if (!patterns) return std::nullopt;
    for (const Json& member : patterns->value().members()) {
      std::string_view key = member.key();
      const bool whole = key.starts_with('^');
      if (whole) key.remove_prefix(1);
      if (key.find_first_of("\\*+?[](){}|^$") != key.npos) {
        fail(ErrorCode::not_supported, fields_.source(), ": ", field, " has the key ", member.key(),
             ": of regular expressions only '.' and a leading '^' are supported");
      }
      if (key.size() > module.size() || (whole && key.size() < module.size())) continue;
      const std::string_view end = module.substr(module.size() - key.size());
      const bool at_dot = key.size() == module.size() || module[module.size() - key.size() - 1] == '.';
      const auto same = [](char k, char m) { return k == '.' || k == m; };
      if (at_dot && std::equal(key.begin(), key.end(), end.begin(), same)) return std::string(member.key());
    }
    return std::nullopt;
  }

  Json json_;
  JsonField fields_;
  std::size_t rank_ = 0;
  double alpha_ = 0;
  bool rslora_ = false;
};

/// The matrix of a text model that a module's name means.
struct PeftModule {
  Parameter parameter;
  std::size_t layer = 0;
};

/// module: without "base_model.model.", such as model.layers.0.self_attn.q_proj. Nothing if ple adapts no such module.
inline std::optional<PeftModule> peft_module(std::string_view module) {
  for (const std::string_view prefix : {"model.language_model.", "language_model.model.", "model."}) {
    if (!module.starts_with(prefix)) continue;
    module.remove_prefix(prefix.size());
    break;
  }
  PeftModule found{};
  const bool of_layer = module.starts_with("layers.");
  if (of_layer) {
    module.remove_prefix(std::string_view("layers.").size());
    const std::size_t dot = module.find('.');
    const std::string_view digits = module.substr(0, dot);
    if (dot == module.npos || digits.empty() || digits.size() > 6) return std::nullopt;
    for (const char digit : digits) {
      if (digit < '0' || digit > '9') return std::nullopt;
      found.layer = found.layer * 10 + static_cast<std::size_t>(digit - '0');
    }
    module.remove_prefix(dot + 1);
  }
  for (const Parameter parameter : adaptable_parameters) {
    const std::string_view name = role_of(parameter).hf;
    if (is_of_layer(parameter) != of_layer || name != std::string(module) + ".weight") continue;
    found.parameter = parameter;
    return found;
  }
  return std::nullopt;
}

/// A matrix in f32. Errors: ErrorCode::shape, dtype; malformed for values that are not finite.
inline AlignedVector<float> peft_matrix(const Tensor& tensor) {
  if (tensor.shape.size() != 2) {
    fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": has shape ", shape_text(tensor.shape),
         ", expected two sizes");
  }
  AlignedVector<float> values(tensor.bytes / bytes_of(tensor.dtype, 1));
  decode<Scalar, Any>(tensor.dtype, tensor.data, values.size(), values.data());
  for (const float value : values) {
    if (!std::isfinite(value)) {
      fail(ErrorCode::malformed, tensor.file, ": ", tensor.name, ": has a value that is not finite");
    }
  }
  return values;
}

}  // namespace detail

/// Reads a folder that PEFT's save_pretrained wrote: LoRA of the text model's linear layers, PLE projections among
/// them, in f32, bf16 or f16. Errors: ErrorCode::file, malformed, config, limit, missing, shape, dtype; not_supported
/// for a kind of adapter, field or tensor that ple does not compute.
inline Adapter open_peft_adapter(const std::filesystem::path& folder, const JsonLimits& limits = {}) {
  const std::filesystem::path config_file = folder / "adapter_config.json", file = folder / "adapter_model.safetensors";
  const detail::PeftConfig config(read_json_file(config_file, limits), config_file.string());
  if (!file_exists(file) && file_exists(folder / "adapter_model.bin")) {
    fail(ErrorCode::not_supported, (folder / "adapter_model.bin").string(),
         ": pickled Python objects, which could run code; save the adapter as safetensors");
  }
  const SafetensorsFile tensors = SafetensorsFile::open(file, limits);
  std::vector<Adapter::Part> parts;
  for (const std::string& name : tensors.names()) {
    constexpr std::string_view base = "base_model.model.", a_suffix = ".lora_A.weight", b_suffix = ".lora_B.weight";
    const bool is_a = name.ends_with(a_suffix), is_b = name.ends_with(b_suffix);
    const auto refuse = [&](const auto&... why) {
      fail(ErrorCode::not_supported, file.string(), ": ", name, ": ", why...);
    };
    if (hf_tower(name) != HfTower::none) refuse("changes vision or audio, which ple does not compute");
    if (!name.starts_with(base) || !(is_a || is_b)) refuse("is no lora_A or lora_B of a linear layer");
    const std::string module = name.substr(base.size(), name.size() - base.size() - a_suffix.size());
    const auto matrix = detail::peft_module(module);
    if (!matrix) refuse("ple adapts no such layer");
    const std::string stem = name.substr(0, name.size() - a_suffix.size());
    const std::string other = stem + std::string(is_a ? b_suffix : a_suffix);
    if (!tensors.contains(other))
      fail(ErrorCode::missing, file.string(), ": ", other, ": no such tensor, beside ", name);
    if (is_b) continue;
    const Tensor a = tensors.tensor(name), b = tensors.tensor(other);
    Adapter::Part part{matrix->parameter, matrix->layer, name, 0, 0, 0, detail::peft_matrix(a), {}};
    const AlignedVector<float> rows = detail::peft_matrix(b);
    part.rank = static_cast<std::size_t>(a.shape[0]);
    part.in = static_cast<std::size_t>(a.shape[1]);
    part.out = static_cast<std::size_t>(b.shape[0]);
    if (b.shape[1] != part.rank || part.rank == 0) {
      fail(ErrorCode::shape, file.string(), ": ", name, " is ", shape_text(a.shape), " and ", other, " is ",
           shape_text(b.shape), ", expected [rank, in] and [out, rank]");
    }
    if (const std::size_t rank = config.rank(module); rank != part.rank) {
      fail(ErrorCode::config, file.string(), ": ", name, ": has rank ", part.rank, ", adapter_config.json says ", rank);
    }
    const auto scale = static_cast<float>(config.scale(module));
    if (!std::isfinite(scale)) {
      fail(ErrorCode::config, config_file.string(), ": the scale of ", module, " is not finite");
    }
    part.b.resize(rows.size());
    for (std::size_t o = 0; o < part.out; ++o) {
      for (std::size_t r = 0; r < part.rank; ++r) part.b[r * part.out + o] = scale * rows[o * part.rank + r];
    }
    parts.push_back(std::move(part));
  }
  if (parts.empty()) fail(ErrorCode::missing, file.string(), ": has no tensors");
  return Adapter(folder.string(), std::move(parts));
}

}  // namespace ple::inline PLE_ABI
