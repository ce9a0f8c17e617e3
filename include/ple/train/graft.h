// SPDX-License-Identifier: Apache-2.0
// Puts Per-Layer Embeddings into a Gemma 3, which has none: a table of rows of zeros, and in each layer Gemma 4's PLE
// step, whose last norm is zero. So the new model computes what the old one does, until it is trained.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/checkpoint/hf_folder.h"
#include "ple/convert/changed_tensors.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/json.h"
#include "ple/core/json_text.h"
#include "ple/dtype/dtype.h"
#include "ple/family/gemma3/family.h"
#include "ple/formats/gguf_shards.h"
#include "ple/formats/json_field.h"
#include "ple/model/parameter.h"
#include "ple/model/parameter_shapes.h"
#include "ple/train/shuffle.h"

namespace ple::inline PLE_ABI {

struct GraftOptions {
  std::size_t width = 64;  ///< p, of a row for one layer: hidden_size_per_layer_input
  std::uint64_t seed = 1;  ///< of the gates and projections
};

namespace detail {

/// A grafted parameter as it begins. Matrices, [out, in], are uniform with variance 1 / in. Rows of the table are zero,
/// so that of tokens that no text has only the context counts, which comes from the token's embedding.
class GraftedValues {
 public:
  GraftedValues(const ParameterShape& shape, std::uint64_t seed, float norm_offset)
      : random_(seed ^ (std::uint64_t{1} + static_cast<std::uint64_t>(shape.parameter) + (shape.layer << 16))) {
    switch (shape.parameter) {
      case Parameter::ple_table: type_ = Dtype::bf16; break;
      case Parameter::ple_context_norm: constant_ = 1 - norm_offset; break;
      case Parameter::post_ple_norm: constant_ = -norm_offset; break;
      default: most_ = std::sqrt(3 / static_cast<float>(shape.shape[1])); break;
    }
  }

  Dtype type() const { return type_; }

  void next(std::span<std::byte> bytes) {
    if (type_ == Dtype::bf16) return std::fill(bytes.begin(), bytes.end(), std::byte{0});
    for (std::size_t i = 0; i < bytes.size(); i += sizeof(float)) {
      const float value = most_ > 0 ? random_.uniform(most_) : constant_;
      std::memcpy(bytes.data() + i, &value, sizeof value);
    }
  }

 private:
  SplitMix64 random_;
  Dtype type_ = Dtype::f32;
  float constant_ = 0, most_ = 0;
};

/// What the model gets. name(parameter, layer): as its files call it.
template <class Name>
std::vector<AddedTensor> grafted_tensors(const Gemma3Config& grafted, const GraftOptions& options, float norm_offset,
                                         Name&& name) {
  std::vector<AddedTensor> added;
  for (const ParameterShape& shape : parameter_shapes(grafted)) {
    const ParameterPart part = part_of(shape.parameter);
    if (part != ParameterPart::ple_table && part != ParameterPart::ple_step) continue;
    const auto values = std::make_shared<GraftedValues>(shape, options.seed, norm_offset);
    added.push_back({{name(shape.parameter, shape.layer), shape.shape, values->type()},
                     [values](std::span<std::byte> bytes) { values->next(bytes); }});
  }
  return added;
}

/// Errors: ErrorCode::not_supported for a model that has PLE; argument, config.
inline Gemma3Config grafted_config(Gemma3Config config, const GraftOptions& options, const std::string& source) {
  if (config.hidden_size_per_layer_input > 0) {
    fail(ErrorCode::not_supported, source, ": has a PLE table already, of width ", config.hidden_size_per_layer_input);
  }
  if (options.width == 0) fail(ErrorCode::argument, "GraftOptions: width is 0");
  config.hidden_size_per_layer_input = options.width;
  config.vocab_size_per_layer_input = config.vocab_size;
  validate(config, source);
  return config;
}

/// config.json with what PLE needs, under names that transformers does not take for a model without.
inline std::string grafted_config_json(const Json& whole, const Gemma3Config& grafted) {
  const auto graft = [](const Json& value) {
    std::string name(value.text());
    for (const auto& [from, to] :
         {std::pair<std::string_view, std::string_view>{"gemma3", "gemma3_ple"}, {"Gemma3", "Gemma3Ple"}}) {
      if (name.starts_with(from)) return Json(std::string(to) + name.substr(from.size()));
    }
    return Json(std::move(name));
  };
  const auto renamed = [&](const Json& object) {
    std::map<std::string, Json> fields;
    if (const Json* type = object.find("model_type")) fields.emplace("model_type", graft(*type));
    if (const Json* names = object.find("architectures"); names != nullptr && names->is_array()) {
      Json& list = fields.emplace("architectures", Json::array()).first->second;
      for (const Json& name : names->items()) list.push_back(graft(name));
    }
    return with_fields(object, std::move(fields));
  };
  const auto natural = [](std::size_t n) { return Json(static_cast<std::uint64_t>(n)); };
  const Json* nested = whole.find("text_config");
  const bool is_nested = nested != nullptr && nested->is_object();
  Json text = with_fields(renamed(is_nested ? *nested : whole),
                          {{"hidden_size_per_layer_input", natural(grafted.hidden_size_per_layer_input)},
                           {"vocab_size_per_layer_input", natural(grafted.vocab_size_per_layer_input)}});
  return json_text(is_nested ? with_fields(renamed(whole), {{"text_config", std::move(text)}}) : text);
}

}  // namespace detail

/// Writes the Gemma 3 of `from`, a Hugging Face folder or a GGUF file, with PLE to `to`, a new folder or a file of the
/// same kind. Its tensors stay as they are, of any type. The new ones have Gemma 4's names (model/parameter.h): the
/// table in bf16, the rest in f32; norms of a folder as all of Gemma 3's, less 1. A folder's config.json gets
/// hidden_size_per_layer_input, vocab_size_per_layer_input and a model_type of "gemma3_ple"; a GGUF file the key
/// gemma3.embedding_length_per_layer_input. Errors: ErrorCode::not_supported for another family, or a model with PLE;
/// argument; those of opening `from` and of convert/changed_tensors.h.
inline void graft_ple(const std::filesystem::path& from, const GraftOptions& options, const std::filesystem::path& to,
                      const WriteProgress& progress = {}) {
  if (file_exists(from) && !is_folder(from)) {
    const GgufShards file = GgufShards::open(from);
    const Gemma3Config grafted = detail::grafted_config(Family<Gemma3Config>::read(file), options, file.name());
    GgufKeys keys;
    keys.count("gemma3.embedding_length_per_layer_input", grafted.hidden_size_per_layer_input);
    return write_changed_gguf(file, {}, detail::grafted_tensors(grafted, options, 0, gguf_name), keys, to, progress);
  }
  const HfFolder folder(from);
  const Gemma3Config grafted = detail::grafted_config(folder.config<Gemma3Config>(), options, folder.name());
  const auto added = detail::grafted_tensors(
      grafted, options, Family<Gemma3Config>::hf_norm_offset,
      [&](Parameter parameter, std::size_t layer) { return folder.names().name(parameter, layer); });
  write_changed_folder(folder, {}, added, detail::grafted_config_json(read_json_file(from / "config.json"), grafted),
                       to, progress);
}

}  // namespace ple::inline PLE_ABI
