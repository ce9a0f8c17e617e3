// SPDX-License-Identifier: Apache-2.0
// What a model is made of, from its configuration and its files' headers alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "ple/checkpoint/checkpoint_source.h"
#include "ple/checkpoint/hf_quantization.h"
#include "ple/checkpoint/hf_tensor_names.h"
#include "ple/checkpoint/packed_weights.h"
#include "ple/core/checked_product.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/family/families.h"
#include "ple/formats/folder_contents.h"
#include "ple/formats/json_field.h"
#include "ple/formats/safetensors.h"
#include "ple/formats/safetensors_folder.h"
#include "ple/model/parameter.h"
#include "ple/model/parameter_groups.h"
#include "ple/model/parameter_shapes.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// A parameter of the text model, and how it is stored.
struct StoredParameter {
  ParameterShape of = {};
  std::string dtype = {};  ///< as safetensors spells it
  std::uint64_t bytes = 0;
};

struct Inspection {
  std::string source = {};  ///< a folder, or a published model's name
  ModelConfig config = {};
  bool has_files = false;                           ///< false: text is counted from the configuration, as bf16
  std::vector<StoredParameter> text = {};           ///< with token embedding and PLE table
  std::vector<TensorInfo> vision = {}, audio = {};  ///< towers and their projections into the text's width
  std::vector<TensorInfo> rest = {};                ///< tensors that belong to no part of the model
  ParameterGroups groups = {};
};

namespace detail {

inline constexpr std::string_view assumed_dtype = "BF16";  // of the published files

inline std::uint64_t count_of(std::span<const TensorInfo> tensors) {
  std::uint64_t n = 0;
  // The shape of an unknown type is not checked: an impossible one counts as 0.
  for (const TensorInfo& tensor : tensors) n += checked_product(tensor.shape).value_or(0);
  return n;
}

inline std::map<std::string, TensorInfo> tensor_list(const TensorFiles& files) {
  std::map<std::string, TensorInfo> all;
  std::set<const SafetensorsFile*> listed;
  for (const auto& [name, file] : files) {
    if (!listed.insert(file.get()).second) continue;
    for (TensorInfo& tensor : file->list()) {
      if (files.contains(tensor.name)) all.insert_or_assign(tensor.name, std::move(tensor));
    }
  }
  return all;
}

/// Moves a packed weight's integers, scales and shape out of `tensors`.
inline StoredParameter take_packed(const ParameterShape& of, const TensorFiles& files, const HfTensorNames& names,
                                   std::map<std::string, TensorInfo>& tensors) {
  const std::string name = hf_name("", of.parameter, of.layer), packed = *names.find(name + "_packed");
  const auto [rows, cols] = PackedWeights(files, names, name).shape();
  if (of.shape != std::vector<std::uint64_t>{rows, cols}) {
    fail(ErrorCode::shape, files.at(packed)->raw(packed).file, ": ", packed, ": shape is ", shape_text({rows, cols}),
         ", expected ", shape_text(of.shape));
  }
  StoredParameter stored{of, "int" + std::to_string(8 * tensors.at(packed).bytes / of.count())};
  for (const char* part : {"_packed", "_scale", "_shape"}) {
    const std::string* found = names.find(name + part);
    if (found == nullptr) continue;
    stored.bytes += tensors.at(*found).bytes;
    tensors.erase(*found);
  }
  return stored;
}

/// Moves the text model's tensors out of `tensors`. An error for a needed one that is missing ends in `quantization`.
inline std::vector<StoredParameter> take_text(const std::vector<ParameterShape>& shapes, const TensorFiles& files,
                                              const HfTensorNames& names, std::map<std::string, TensorInfo>& tensors,
                                              const std::string& folder, const std::string& quantization) {
  std::vector<StoredParameter> text;
  for (const ParameterShape& of : shapes) {
    const std::string name = names.name(of.parameter, of.layer);
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      if (names.find(hf_name("", of.parameter, of.layer) + "_packed")) {
        text.push_back(take_packed(of, files, names, tensors));
      } else if (of.used) {
        fail(ErrorCode::missing, folder, ": ", name, ": no file of the folder has this tensor", quantization);
      }
      continue;
    }
    if (found->second.shape != of.shape) {
      fail(ErrorCode::shape, folder, ": ", name, ": shape is ", shape_text(found->second.shape), ", expected ",
           shape_text(of.shape));
    }
    text.push_back({of, found->second.dtype, found->second.bytes});
    tensors.erase(found);
  }
  return text;
}

inline void count_groups(Inspection& model) {
  std::vector<ParameterShape> shapes;
  for (const StoredParameter& parameter : model.text) shapes.push_back(parameter.of);
  model.groups = parameter_groups(shapes);
  if (!model.vision.empty()) model.groups.vision = count_of(model.vision);
  if (!model.audio.empty()) model.groups.audio = count_of(model.audio);
}

inline Inspection without_files(std::string source, ModelConfig config) {
  Inspection model{.source = std::move(source), .config = std::move(config)};
  const auto shapes = std::visit([](const auto& c) { return parameter_shapes(c); }, model.config);
  for (const ParameterShape& of : shapes) {
    model.text.push_back({of, std::string(assumed_dtype), 2 * of.count()});
  }
  count_groups(model);
  return model;
}

}  // namespace detail

/// A Hugging Face folder, of which config.json and the headers of any safetensors are read, or one of
/// published_models(). Errors: ErrorCode::file, missing, malformed, config, not_supported, shape.
inline Inspection inspect(const std::string& model) {
  if (const auto config = published_config(model)) return detail::without_files(model, *config);
  const std::filesystem::path folder = model;
  check_is_folder(folder, "a Hugging Face folder, or one of " + published_models());
  const std::filesystem::path path = folder / "config.json";
  if (!file_exists(path)) {
    fail(ErrorCode::missing, model, ": config.json is missing, so the model's shape is unknown",
         other_models_in(folder));
  }
  const Json json = read_json_file(path);
  ModelConfig config = read_config(json, path.string());
  const TensorFiles files = open_safetensors(folder);
  if (files.empty()) return detail::without_files(model, std::move(config));
  HfTensorNames tensor_names(files, model);
  const bool tied = tensor_names.tie(hf_tie_word_embeddings(json, path.string()));
  std::visit([&](auto& c) { c.tie_word_embeddings = tied; }, config);

  Inspection found{.source = model, .config = std::move(config), .has_files = true};
  auto tensors = detail::tensor_list(files);
  const auto shapes = std::visit([](const auto& c) { return parameter_shapes(c); }, found.config);
  found.text = detail::take_text(shapes, files, tensor_names, tensors, model, hf_quantization(json));
  for (auto& [name, tensor] : tensors) {
    const HfTower tower = hf_tower(name);
    (tower == HfTower::vision  ? found.vision
     : tower == HfTower::audio ? found.audio
                               : found.rest)
        .push_back(std::move(tensor));
  }
  detail::count_groups(found);
  return found;
}

}  // namespace ple::inline PLE_ABI
