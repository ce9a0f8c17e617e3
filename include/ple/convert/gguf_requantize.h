// SPDX-License-Identifier: Apache-2.0
// Writes a GGUF file of any family anew, with its matrices in other number types; everything else stays as it is.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ple/convert/gguf_export.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/family/families.h"
#include "ple/formats/gguf_shards.h"
#include "ple/formats/gguf_writer.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// The parameter that a tensor of this name holds; nothing for what no model has.
inline std::optional<Parameter> parameter_of_gguf_name(std::string_view name) {
  constexpr std::string_view layers = "blk.";
  const bool of_layer = name.starts_with(layers);
  if (of_layer) {
    const std::size_t dot = name.find('.', layers.size());
    if (dot == std::string_view::npos) return std::nullopt;
    name.remove_prefix(dot + 1);
  }
  for (const ParameterRole& role : parameter_roles) {
    if (is_of_layer(role.parameter) == of_layer && role.gguf == name) return role.parameter;
  }
  return std::nullopt;
}

/// Whether GgufTypes says something of a parameter: of the small matrices of AltUp and LAuReL it does not.
inline bool is_quantized_part(Parameter parameter) {
  switch (part_of(parameter)) {
    case ParameterPart::token_embedding:
    case ParameterPart::ple_table:
    case ParameterPart::attention:
    case ParameterPart::feed_forward:
    case ParameterPart::experts:
    case ParameterPart::ple_step: return true;
    case ParameterPart::streams:
    case ParameterPart::other: break;
  }
  return parameter == Parameter::head;
}

}  // namespace detail

/// The new file's tensors, in the order of their names. Matrices get the types that GgufTypes gives them; vectors,
/// AltUp and LAuReL of Gemma 3n, and tensors that ple does not know keep theirs. Errors: ErrorCode::dtype for a tensor
/// of a type that ple does not read; those of read_config.
inline std::vector<GgufPlanEntry> plan_requantized(const GgufShards& file, const GgufTypes& types = {}) {
  const std::size_t per_layer =
      std::visit([](const auto& c) { return std::size_t{c.hidden_size_per_layer_input}; }, read_config(file));
  std::vector<GgufPlanEntry> plan;
  for (const TensorInfo& info : file.list()) {
    const Tensor tensor = file.tensor(info.name);
    if (tensor.bytes == 0 || info.shape.empty()) {
      fail(ErrorCode::shape, tensor.file, ": ", info.name, ": shape is ", shape_text(info.shape),
           ", expected one value or more");
    }
    GgufPlanEntry entry{.parameter = detail::parameter_of_gguf_name(info.name),
                        .tensor = {info.name, info.shape, tensor.dtype},
                        .wanted = tensor.dtype,
                        .together = static_cast<std::size_t>(info.shape.back())};
    if (entry.parameter == Parameter::ple_table && per_layer > 0) entry.together = per_layer;
    if (info.shape.size() >= 2 && entry.parameter && detail::is_quantized_part(*entry.parameter)) {
      const auto fits = [&](Dtype type) { return entry.together % values_per_block(type) == 0; };
      entry.wanted = detail::wanted_type(types, *entry.parameter);
      entry.tensor.dtype = fits(entry.wanted) ? entry.wanted : fits(types.fallback) ? types.fallback : Dtype::bf16;
    }
    plan.push_back(std::move(entry));
  }
  return plan;
}

/// Writes the file to `path` with its keys, but those that say how it was split and quantised, and the plan's tensors.
/// Takes memory for a few rows. Returns one entry for each of the plan's. Errors: as write_gguf.
inline std::vector<StoredSums> write_requantized(const GgufShards& from, std::span<const GgufPlanEntry> plan,
                                                 const std::filesystem::path& path, Executor& executor,
                                                 const WriteProgress& progress = {}) {
  for (const GgufPlanEntry& entry : plan) detail::check_entry(entry, from.tensor(entry.tensor.name).dtype);
  GgufKeys keys;
  for (const auto& [key, value] : from.metadata().all()) {
    // The writer aligns as the format does by default. file_type is a name for a mix of types, and no longer true.
    if (key.starts_with("split.") || key == "general.alignment" || key == "general.file_type") continue;
    keys.copy(key, value);
  }
  std::vector<GgufTensor> tensors;
  for (const GgufPlanEntry& entry : plan) tensors.push_back(entry.tensor);
  GgufFileWriter file(path, keys, std::move(tensors), identities_of(from.paths()));
  return detail::write_tensors(
      file, plan, [&](const GgufPlanEntry& entry) { return from.tensor(entry.tensor.name); }, executor, progress);
}

}  // namespace ple::inline PLE_ABI
