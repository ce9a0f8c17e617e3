// SPDX-License-Identifier: Apache-2.0
// Writes a model with the weights and the rows of its PLE table that were trained themselves. Adapters are no part of
// it: train/trained_adapter.h writes these.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "ple/checkpoint/hf_folder.h"
#include "ple/checkpoint/norm_weights.h"
#include "ple/convert/changed_tensors.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/dtype/traits.h"
#include "ple/family/families.h"
#include "ple/formats/gguf_shards.h"
#include "ple/model/parameter.h"
#include "ple/train/parameters.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// tensor_of(parameter, layer): where its values are in the file. norm_offset: what the file's norms lack. Errors:
/// ErrorCode::not_supported for a quantised tensor, shape.
template <class TensorOf>
TensorChanges trained_changes(const TrainedParameters& trained, float norm_offset, TensorOf&& tensor_of) {
  TensorChanges changes;
  const auto check = [&](const Tensor& tensor, std::size_t rows, std::size_t values) {
    if (values_per_block(tensor.dtype) != 1) {
      fail(ErrorCode::not_supported, tensor.file, ": ", tensor.name, ": is ", name_of(tensor.dtype),
           ": what was learnt would be lost in its steps; expected f32, bf16 or f16");
    }
    std::uint64_t size = 1;
    for (std::size_t i = rows > 0 ? 1 : 0; i < tensor.shape.size(); ++i) size *= tensor.shape[i];
    if (size == values && (rows == 0 || rows <= tensor.shape[0])) return;
    fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": has shape ", shape_text(tensor.shape), ", but ", values,
         rows > 0 ? " values in a row were trained" : " values were trained");
  };
  for (const auto& [key, weight] : trained.weights) {
    const Tensor tensor = tensor_of(key.parameter, key.layer);
    check(tensor, 0, weight.values.size());
    const float offset = is_norm(key.parameter) ? norm_offset : 0;
    changes[tensor.name] = [&values = weight.values, offset](const Tensor& whole, std::uint64_t first,
                                                             std::span<std::byte> bytes) {
      const std::size_t width = values.size() / static_cast<std::size_t>(whole.shape[0]),
                        count = bytes.size() / bytes_of(whole.dtype, 1);
      std::vector<float> stored(values.begin() + static_cast<std::ptrdiff_t>(first * width),
                                values.begin() + static_cast<std::ptrdiff_t>(first * width + count));
      for (float& value : stored) value -= offset;
      encode_values(whole, stored, bytes);
    };
  }
  if (!trained.trains_rows) return changes;
  const Tensor table = tensor_of(Parameter::ple_table, 0);
  for (const auto& [id, row] : trained.rows) check(table, static_cast<std::size_t>(id) + 1, row.values.size());
  changes[table.name] = [&rows = trained.rows](const Tensor& whole, std::uint64_t first, std::span<std::byte> bytes) {
    const std::size_t row = bytes_of(whole.dtype, static_cast<std::size_t>(whole.shape[1]));
    const auto end = rows.lower_bound(first + bytes.size() / row);
    for (auto one = rows.lower_bound(first); one != end; ++one) {
      encode_values(whole, one->second.values, bytes.subspan(static_cast<std::size_t>(one->first - first) * row, row));
    }
  };
  return changes;
}

/// Calls f(changes) with what training changes in the file, or f(changes, folder).
template <class F>
void with_trained_changes(const std::filesystem::path& model, const TrainedParameters& trained, F&& f) {
  if (file_exists(model) && !is_folder(model)) {
    const GgufShards file = GgufShards::open(model);
    f(file, trained_changes(trained, 0, [&](Parameter parameter, std::size_t layer) {
        return file.tensor(gguf_name(parameter, layer));
      }));
    return;
  }
  const HfFolder folder(model);
  const float offset = std::visit(
      []<class Config>(const Config&) {
        if constexpr (requires { Family<Config>::hf_norm_offset; }) return Family<Config>::hf_norm_offset;
        return 0.0f;
      },
      folder.any_config());
  f(folder, trained_changes(trained, offset, [&](Parameter parameter, std::size_t layer) {
      const std::string name = folder.names().name(parameter, layer);
      const auto file = folder.tensor_files().find(name);
      if (file == folder.tensor_files().end()) {
        fail(ErrorCode::missing, folder.name(), ": ", name, ": no file of the folder has this tensor");
      }
      return file->second->unaligned_tensor(name);
    }));
}

}  // namespace detail

/// Whether write_trained_model can write what is in training, before it is. Errors: as there.
inline void check_trained_model(const std::filesystem::path& from, const TrainedParameters& trained) {
  detail::with_trained_changes(from, trained, [](const auto&, const TensorChanges&) {});
}

/// Writes the model of `from`, a Hugging Face folder or a GGUF file, with trained weights and rows in place of its own,
/// rounded to the file's types, to `to`: a new folder, or a file. Errors: ErrorCode::not_supported for a quantised
/// tensor that was trained; missing, shape; those of opening `from` and of convert/changed_tensors.h.
inline void write_trained_model(const std::filesystem::path& from, const TrainedParameters& trained,
                                const std::filesystem::path& to, const WriteProgress& progress = {}) {
  detail::with_trained_changes(from, trained, [&]<class Source>(const Source& model, const TensorChanges& changes) {
    if constexpr (std::same_as<Source, GgufShards>) {
      write_changed_gguf(model, changes, {}, {}, to, progress);
    } else {
      write_changed_folder(model, changes, {}, read_text_file(from / "config.json"), to, progress);
    }
  });
}

}  // namespace ple::inline PLE_ABI
