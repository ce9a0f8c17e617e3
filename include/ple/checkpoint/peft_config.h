// SPDX-License-Identifier: Apache-2.0
// adapter_config.json of Hugging Face's PEFT. A field that would change the model in a way that ple does not compute is
// an error that names it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json.h"
#include "ple/formats/json_field.h"
#include "ple/table/row_layout.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// The module whose rows are the PLE table's.
inline constexpr std::string_view peft_table_module = "embed_tokens_per_layer";

/// Source: LoraConfig and TrainableTokensConfig of PEFT 0.21.
class PeftConfig {
 public:
  PeftConfig(Json json, const std::string& file) : json_(std::move(json)), fields_(json_, file) {
    const std::string type = fields_.text("peft_type");
    rows_only_ = type == "TRAINABLE_TOKENS";
    if (!rows_only_ && type != "LORA") refuse("peft_type", "expected \"LORA\" or \"TRAINABLE_TOKENS\"");
    for (const Json& field : json_.members()) {
      const std::string_view name = field.key();
      if (is_empty(field) || contains(without_effect, name)) continue;
      if (name == ids_field() || (rows_only_ && name == "init_weights")) continue;
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
    read_row_ids();
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
  /// Ids of the PLE table's trained rows, each once, in the order of the file's rows. Empty: none.
  const std::vector<RowId>& row_ids() const { return row_ids_; }
  /// The field that they come from.
  std::string_view ids_field() const { return rows_only_ ? "token_indices" : "trainable_token_indices"; }

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
      "use_dora",          "lora_bias",         "modules_to_save",
      "target_parameters", "layer_replication", "alora_invocation_tokens",
      "use_qalora",        "use_bdlora",        "kasa_config",
      "monteclora_config", "arrow_config"};

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

  /// Of LoRA an object of lists by module; a list alone means embed_tokens. Else a list, for the modules of the
  /// tensors.
  void read_row_ids() {
    const Json* found = fields_.find(ids_field());
    if (found == nullptr || is_empty(*found)) return;
    std::string name(ids_field());
    if (!rows_only_) {
      if (found->is_array()) refuse(name, "these are rows of embed_tokens, which ple does not adapt");
      const JsonField modules = *fields_.object(name);
      for (const Json& member : modules.value().members()) {
        const std::string_view module = member.key();
        if (module != peft_table_module && !module.ends_with("." + std::string(peft_table_module))) {
          fail(ErrorCode::not_supported, fields_.source(), ": ", name, " has rows of ", module,
               ": ple adapts those of ", peft_table_module, " only");
        }
        if (found != fields_.find(name)) {
          fail(ErrorCode::not_supported, fields_.source(), ": ", name, " has ", peft_table_module, " twice");
        }
        found = &member;
      }
      (name += '.') += found->key();
    }
    for (const JsonField& id : JsonField(*found, fields_.source(), name).items()) {
      row_ids_.push_back(static_cast<RowId>(id.integer(std::int64_t{1} << 31)));
    }
    std::vector<RowId> sorted = row_ids_;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end()) {
      fail(ErrorCode::config, fields_.source(), ": ", name, " has ", *twice, " twice, expected each row once");
    }
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
  bool rslora_ = false, rows_only_ = false;
  std::vector<RowId> row_ids_;
};

}  // namespace detail

}  // namespace ple::inline PLE_ABI
