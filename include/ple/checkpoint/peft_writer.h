// SPDX-License-Identifier: Apache-2.0
// Writes adapters in the format of Hugging Face's PEFT, so that PeftModel.from_pretrained loads them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ple/checkpoint/peft_config.h"
#include "ple/core/checked_writer.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/json.h"
#include "ple/core/json_text.h"
#include "ple/core/new_files.h"
#include "ple/formats/json_field.h"
#include "ple/formats/safetensors_header.h"
#include "ple/model/adapter.h"
#include "ple/model/parameter.h"
#include "ple/table/adapted_rows.h"

namespace ple::inline PLE_ABI {

/// A low-rank change of one matrix, to be written: y += alpha / rank * B (A x).
struct PeftPart {
  Parameter parameter = {};  ///< one of adaptable_parameters
  std::size_t layer = 0;
  std::size_t in = 0, out = 0, rank = 0;
  double alpha = 0;
  std::span<const float> a = {};  ///< [rank, in]
  std::span<const float> b = {};  ///< [out, rank]; [rank, out] if b_is_transposed
  bool b_is_transposed = false;
};

/// The model that an adapter belongs to, as PEFT sees it.
struct PeftBase {
  std::string name = {};  ///< base_model_name_or_path: a folder, or a model of the hub; empty: not said
  std::string_view text_model = "model.";  ///< what stands before the text model's names in transformers
};

/// The base in a Hugging Face folder: a ...ForConditionalGeneration has its text model beside vision. That of a GGUF
/// file is taken for a ...ForCausalLM. Errors: those of reading config.json.
inline PeftBase peft_base(const std::filesystem::path& model) {
  PeftBase base{.name = model.string()};
  const std::filesystem::path config = model / "config.json";
  if (!is_folder(model) || !file_exists(config)) return base;
  const Json json = read_json_file(config);
  const JsonField fields(json, config.string());
  bool conditional = fields.has("text_config");
  if (const Json* names = fields.find("architectures"); names != nullptr && names->is_array()) {
    for (const Json& name : names->items()) {
      if (name.is_string()) conditional = name.text().ends_with("ForConditionalGeneration");
    }
  }
  if (conditional) base.text_model = "model.language_model.";
  return base;
}

/// The parts of an adapter. Their alpha is their rank, since B has the scale in it. They point into the adapter.
inline std::vector<PeftPart> peft_parts(const Adapter& adapter) {
  std::vector<PeftPart> parts;
  for (const Adapter::Part& part : adapter.parts()) {
    parts.push_back({.parameter = part.parameter,
                     .layer = part.layer,
                     .in = part.in,
                     .out = part.out,
                     .rank = part.rank,
                     .alpha = static_cast<double>(part.rank),
                     .a = part.a,
                     .b = part.b,
                     .b_is_transposed = true});
  }
  return parts;
}

namespace detail {

/// A part's module, as PEFT calls it.
inline std::string peft_module_name(const PeftPart& part, const PeftBase& base) {
  std::string name = hf_name(base.text_model, part.parameter, part.layer);
  return name.substr(0, name.size() - std::string_view(".weight").size());
}

/// Errors: ErrorCode::argument, naming `folder` and the part.
inline void check_peft_parts(const std::filesystem::path& folder, std::span<const PeftPart> parts,
                             const TrainedRows& rows, const PeftBase& base) {
  std::set<std::string> names;
  for (const PeftPart& part : parts) {
    const std::string name = peft_module_name(part, base);
    const auto refuse = [&](const auto&... why) {
      fail(ErrorCode::argument, folder.string(), ": ", name, ": ", why...);
    };
    const auto& known = adaptable_parameters;
    if (std::find(known.begin(), known.end(), part.parameter) == known.end()) refuse("cannot be adapted");
    if (!names.insert(name).second) refuse("is given twice");
    if (part.rank == 0 || part.in == 0 || part.out == 0 || part.a.size() / part.rank != part.in ||
        part.a.size() % part.rank != 0 || part.b.size() / part.rank != part.out || part.b.size() % part.rank != 0) {
      refuse("A has ", part.a.size(), " values and B ", part.b.size(), ", expected [", part.rank, ", ", part.in,
             "] and [", part.out, ", ", part.rank, "]");
    }
    if (!std::isfinite(part.alpha)) refuse("alpha is ", part.alpha, ", expected a finite number");
    for (const std::span<const float> values : {part.a, part.b}) {
      for (const float value : values) {
        if (!std::isfinite(value)) refuse("has a value that is not finite");
      }
    }
  }
  rows.check(folder.string());
  for (const float value : rows.values) {
    if (!std::isfinite(value)) fail(ErrorCode::argument, folder.string(), ": rows: have a value that is not finite");
  }
  if (parts.empty() && rows.empty()) fail(ErrorCode::argument, folder.string(), ": an adapter without parts and rows");
}

/// A whole number without a fraction, as PEFT writes it.
inline Json peft_number(double value) {
  if (value >= 0 && value < 1e9 && value == std::floor(value)) return Json(static_cast<std::uint64_t>(value));
  return Json(value);
}

/// Each module is listed by its whole name. Names of kinds, such as q_proj, would also mean layers that the adapter
/// leaves alone, and the vision tower's: PEFT would give these random adapters, or refuse them.
inline Json peft_config(std::span<const PeftPart> parts, const TrainedRows& rows, const PeftBase& base) {
  const auto text = [](std::string_view t) { return Json(std::string(t)); };
  Json config = Json::object(), ids = Json::array();
  for (const RowId id : rows.ids) ids.push_back(Json(std::uint64_t{id}));
  config.add("peft_type", text(parts.empty() ? "TRAINABLE_TOKENS" : "LORA"));
  config.add("task_type", text("CAUSAL_LM"));
  config.add("base_model_name_or_path", base.name.empty() ? Json() : text(base.name));
  config.add("inference_mode", Json(true));
  if (parts.empty()) {
    config.add("target_modules", Json::array()).push_back(text(peft_table_module));
    config.add("token_indices", std::move(ids));
    return config;
  }
  const auto r = [](const PeftPart& part) { return Json(static_cast<std::uint64_t>(part.rank)); };
  Json ranks = Json::object(), alphas = Json::object(), modules = Json::array();
  for (const PeftPart& part : parts) {
    const std::string module = peft_module_name(part, base);
    if (part.rank != parts[0].rank) ranks.add(module, r(part));
    if (part.alpha != parts[0].alpha) alphas.add(module, peft_number(part.alpha));
    modules.push_back(text(module));
  }
  config.add("r", r(parts[0]));
  config.add("lora_alpha", peft_number(parts[0].alpha));
  config.add("rank_pattern", std::move(ranks));
  config.add("alpha_pattern", std::move(alphas));
  config.add("use_rslora", Json(false));
  config.add("lora_dropout", Json(0.0));
  config.add("bias", text("none"));
  config.add("init_lora_weights", Json(true));  // false: PEFT would leave modules random that the file does not have
  config.add("target_modules", std::move(modules));
  if (!rows.empty()) {
    config.add("trainable_token_indices", Json::object()).add(std::string(peft_table_module), std::move(ids));
  }
  return config;
}

inline void write_peft_tensors(const std::filesystem::path& path, std::span<const PeftPart> parts,
                               const TrainedRows& rows, const PeftBase& base) {
  const auto bytes = [](std::span<const float> values) { return std::uint64_t{values.size_bytes()}; };
  SafetensorsHeader header;
  header.metadata("format", "pt");
  for (const PeftPart& part : parts) {
    const std::string name = "base_model.model." + peft_module_name(part, base);
    header.tensor(name + ".lora_A.weight", "F32", {part.rank, part.in}, bytes(part.a));
    header.tensor(name + ".lora_B.weight", "F32", {part.out, part.rank}, bytes(part.b));
  }
  if (!rows.empty()) {
    std::string name = "base_model.model.";
    (name += base.text_model) += peft_table_module;
    if (!parts.empty()) name += ".token_adapter";
    header.tensor(name + ".trainable_tokens_delta", "F32", {rows.ids.size(), rows.width}, bytes(rows.values));
  }
  CheckedWriter writer(path);
  const std::string head = header.bytes();
  writer.write(head.data(), head.size());
  std::vector<float> b;
  for (const PeftPart& part : parts) {
    writer.write(part.a.data(), part.a.size_bytes());
    if (part.b_is_transposed) {
      b.resize(part.b.size());
      for (std::size_t o = 0; o < part.out; ++o) {
        for (std::size_t i = 0; i < part.rank; ++i) b[o * part.rank + i] = part.b[i * part.out + o];
      }
    }
    writer.write(part.b_is_transposed ? b.data() : part.b.data(), part.b.size_bytes());
  }
  writer.write(rows.values.data(), rows.values.size() * sizeof(float));
  writer.finish({});
}

}  // namespace detail

/// Writes adapter_config.json and adapter_model.safetensors, in f32, into a folder, which is made if need be; its other
/// files stay. An adapter that is there is replaced only once the new one is on the disk, and even a killed process
/// leaves one of both whole: see NewFiles. Errors: ErrorCode::argument for parts or rows that are not as said
/// above, not finite, or none; file.
inline void write_peft_adapter(const std::filesystem::path& folder, std::span<const PeftPart> parts,
                               const TrainedRows& rows = {}, const PeftBase& base = {}) {
  detail::check_peft_parts(folder, parts, rows, base);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (!is_folder(folder)) fail(ErrorCode::file, folder.string(), ": cannot make this folder");
  const std::string config = "adapter_config.json", tensors = "adapter_model.safetensors";
  const std::string text = json_text(detail::peft_config(parts, rows, base));
  // With the same configuration, as while an adapter is trained, one rename replaces all.
  if (file_exists(folder / tensors) && file_exists(folder / config) && read_text_file(folder / config) == text) {
    return detail::write_peft_tensors(folder / tensors, parts, rows, base);
  }
  NewFiles files(folder, {config, tensors});
  detail::write_peft_tensors(files.path(tensors), parts, rows, base);
  CheckedWriter writer(files.path(config));
  writer.write(text.data(), text.size());
  writer.finish({});
  files.replace_together();
}

/// As above, what an Adapter holds. Opened again it has the same bits.
inline void write_peft_adapter(const std::filesystem::path& folder, const Adapter& adapter, const PeftBase& base = {}) {
  write_peft_adapter(folder, peft_parts(adapter), adapter.rows(), base);
}

}  // namespace ple::inline PLE_ABI
