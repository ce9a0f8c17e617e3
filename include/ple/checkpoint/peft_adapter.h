// SPDX-License-Identifier: Apache-2.0
// Adapters in the format of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors. What would change
// the model in a way that ple does not compute is an error that names it; nothing is skipped.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <numeric>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/checkpoint/hf_tensor_names.h"
#include "ple/checkpoint/peft_config.h"
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

/// The matrix of a text model that a module's name means.
struct PeftModule {
  Parameter parameter;
  std::size_t layer = 0;
};

/// A module's name without "base_model.model." and what stands before the text model's names.
inline std::string_view inside_peft_text_model(std::string_view module) {
  for (const std::string_view prefix : {"model.language_model.", "language_model.model.", "model."}) {
    if (module.starts_with(prefix)) return module.substr(prefix.size());
  }
  return module;
}

/// module: without "base_model.model.", such as model.layers.0.self_attn.q_proj. Nothing if ple adapts no such module.
inline std::optional<PeftModule> peft_module(std::string_view module) {
  module = inside_peft_text_model(module);
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

/// Errors: ErrorCode::shape.
inline void check_is_peft_matrix(const Tensor& tensor) {
  if (tensor.shape.size() == 2) return;
  fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": has shape ", shape_text(tensor.shape),
       ", expected two sizes");
}

/// Values [begin, begin + count) in f32. Errors: ErrorCode::malformed for one that is not finite.
inline void decode_peft_values(const Tensor& tensor, std::size_t begin, std::size_t count, float* values) {
  decode<Scalar, Any>(tensor.dtype, tensor.data + bytes_of(tensor.dtype, begin), count, values);
  for (std::size_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) {
      fail(ErrorCode::malformed, tensor.file, ": ", tensor.name, ": has a value that is not finite");
    }
  }
}

/// A matrix in f32. Errors: ErrorCode::shape, malformed.
inline AlignedVector<float> peft_matrix(const Tensor& tensor) {
  check_is_peft_matrix(tensor);
  AlignedVector<float> values(tensor.bytes / bytes_of(tensor.dtype, 1));
  decode_peft_values(tensor, 0, values.size(), values.data());
  return values;
}

/// Whether a tensor has trained rows of a table: those of a LoRA's "token_adapter", or of an adapter with nothing else.
inline bool is_peft_rows(std::string_view name) { return name.ends_with(".trainable_tokens_delta"); }

/// The module whose rows they are; `name` without "base_model.model.".
inline std::string_view peft_rows_module(std::string_view name) {
  name = inside_peft_text_model(name);
  for (const std::string_view end : {".trainable_tokens_delta", ".token_adapter"}) {
    if (name.ends_with(end)) name.remove_suffix(end.size());
  }
  return name;
}

/// Rows of the PLE table, ascending; the file's are whole new rows, despite their name. Errors: ErrorCode::shape,
/// malformed.
inline TrainedRows peft_rows(const Tensor& tensor, const PeftConfig& config) {
  check_is_peft_matrix(tensor);
  const std::vector<RowId>& ids = config.row_ids();
  if (tensor.shape[0] != ids.size() || tensor.shape[1] == 0) {
    fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": has shape ", shape_text(tensor.shape),
         ", expected a row for each id of ", config.ids_field(), " in adapter_config.json, which has ", ids.size());
  }
  std::vector<std::size_t> order(ids.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return ids[a] < ids[b]; });
  TrainedRows rows;
  rows.width = static_cast<std::size_t>(tensor.shape[1]);
  rows.ids.reserve(ids.size());
  rows.values.resize(ids.size() * rows.width);  // does not overflow: the file has so many values
  for (const std::size_t i : order) {
    decode_peft_values(tensor, i * rows.width, rows.width, rows.values.data() + rows.ids.size() * rows.width);
    rows.ids.push_back(ids[i]);
  }
  return rows;
}

}  // namespace detail

/// Reads a folder that PEFT's save_pretrained wrote: LoRA of the text model's linear layers, PLE projections among
/// them, and trained rows of the PLE table ("trainable tokens"), or only one of both, in f32, bf16 or f16. Errors:
/// ErrorCode::file, malformed, config, limit, missing, shape, dtype; not_supported for a kind of adapter, field or
/// tensor that ple does not compute.
inline Adapter open_peft_adapter(const std::filesystem::path& folder, const JsonLimits& limits = {}) {
  const std::filesystem::path config_file = folder / "adapter_config.json", file = folder / "adapter_model.safetensors";
  if (!file_exists(config_file) && file_exists(folder / "adapter_config.json.old")) {
    fail(ErrorCode::file, config_file.string(),
         ": is missing: a process was killed while it replaced this adapter; the earlier one's files end in .old");
  }
  const detail::PeftConfig config(read_json_file(config_file, limits), config_file.string());
  if (!file_exists(file) && file_exists(folder / "adapter_model.bin")) {
    fail(ErrorCode::not_supported, (folder / "adapter_model.bin").string(),
         ": pickled Python objects, which could run code; save the adapter as safetensors");
  }
  const SafetensorsFile tensors = SafetensorsFile::open(file, limits);
  std::vector<Adapter::Part> parts;
  TrainedRows table_rows;
  for (const std::string& name : tensors.names()) {
    constexpr std::string_view base = "base_model.model.", a_suffix = ".lora_A.weight", b_suffix = ".lora_B.weight";
    const bool is_a = name.ends_with(a_suffix), is_b = name.ends_with(b_suffix);
    const auto refuse = [&](const auto&... why) {
      fail(ErrorCode::not_supported, file.string(), ": ", name, ": ", why...);
    };
    if (hf_tower(name) != HfTower::none) refuse("changes vision or audio, which ple does not compute");
    const bool is_rows = detail::is_peft_rows(name);
    if (!name.starts_with(base) || !(is_a || is_b || is_rows))
      refuse("is no lora_A or lora_B of a linear layer, nor trained rows");
    if (is_rows) {
      const std::string_view of = detail::peft_rows_module(std::string_view(name).substr(base.size()));
      if (of != detail::peft_table_module)
        refuse("has rows of ", of, ": ple adapts those of ", detail::peft_table_module, " only");
      if (!table_rows.empty()) refuse("is not the only tensor with rows of ", of);
      if (config.row_ids().empty()) {
        fail(ErrorCode::missing, config_file.string(), ": ", config.ids_field(), " has no ids for the rows of ", name,
             " in ", file.string());
      }
      table_rows = detail::peft_rows(tensors.tensor(name), config);
      continue;
    }
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
    part.scale = scale;
    part.b.resize(rows.size());
    for (std::size_t o = 0; o < part.out; ++o) {
      for (std::size_t r = 0; r < part.rank; ++r) part.b[r * part.out + o] = scale * rows[o * part.rank + r];
    }
    parts.push_back(std::move(part));
  }
  if (table_rows.ids.size() != config.row_ids().size()) {
    fail(ErrorCode::missing, file.string(), ": has no rows of ", detail::peft_table_module, ", but ",
         config_file.string(), " has ", config.row_ids().size(), " ids in ", config.ids_field());
  }
  if (parts.empty() && table_rows.empty()) fail(ErrorCode::missing, file.string(), ": has no tensors");
  return Adapter(folder.string(), std::move(parts), std::move(table_rows));
}

}  // namespace ple::inline PLE_ABI
