// SPDX-License-Identifier: Apache-2.0
// Writes a Hugging Face folder with adapters merged into its weights: W += scale * B A, and trained rows in the PLE
// table.
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
#include <utility>
#include <vector>

#include "ple/checkpoint/hf_folder.h"
#include "ple/checkpoint/tensor_part.h"
#include "ple/convert/folder_to_fill.h"
#include "ple/core/checked_writer.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/json.h"
#include "ple/core/memory.h"
#include "ple/dtype/traits.h"
#include "ple/formats/json_field.h"
#include "ple/formats/safetensors.h"
#include "ple/formats/safetensors_header.h"
#include "ple/formats/tensor_info.h"
#include "ple/model/adapter.h"
#include "ple/model/language_model.h"
#include "ple/model/parameter.h"
#include "ple/simd/decode.h"
#include "ple/simd/default_backend.h"
#include "ple/table/adapted_rows.h"
#include "ple/table/row_layout.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// What merging changed.
struct MergedAdapters {
  std::size_t matrices = 0;
  std::uint64_t rows = 0;  ///< of the PLE table
};

namespace detail {

/// What adapters do to one tensor, [rows, cols].
class TensorMerge {
 public:
  void add(const Adapter::Part& part, float scale) { parts_.push_back({&part, scale}); }
  void add(const TrainedRows& rows, float scale) {
    rows_.add(rows, scale);
    ids_.insert(ids_.end(), rows.ids.begin(), rows.ids.end());
    std::sort(ids_.begin(), ids_.end());
    ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
  }
  bool is_matrix() const { return !parts_.empty(); }
  std::uint64_t rows() const { return ids_.size(); }

  /// Changes rows of the tensor from `first` on, as stored, in place: in f32, then rounded to the stored type. Errors:
  /// ErrorCode::not_supported for a value that the type does not have.
  void apply(const Tensor& tensor, std::uint64_t first, std::size_t count, std::span<std::byte> bytes) {
    const auto cols = static_cast<std::size_t>(tensor.shape[1]);
    if (is_matrix()) {
      row_.resize(count * cols);
      decode<DefaultBackend, Any>(tensor.dtype, bytes.data(), row_.size(), row_.data());
      delta_.assign(count * cols, 0.0f);
      for (const auto& [part, scale] : parts_) add_product(*part, scale, static_cast<std::size_t>(first), count, cols);
      DefaultBackend::add(delta_.data(), delta_.size(), row_.data());
      encode(tensor, row_, bytes);
    }
    const auto end = std::lower_bound(ids_.begin(), ids_.end(), first + count);
    for (auto id = std::lower_bound(ids_.begin(), ids_.end(), first); id != end; ++id) {
      const std::size_t row_bytes = bytes_of(tensor.dtype, cols);
      const auto row = bytes.subspan(static_cast<std::size_t>(*id - first) * row_bytes, row_bytes);
      row_.resize(cols);
      decode<DefaultBackend, Any>(tensor.dtype, row.data(), cols, row_.data());
      rows_.apply<DefaultBackend>(*id, 0, cols, 1, row_.data());
      encode(tensor, row_, row);
    }
  }

 private:
  struct ScaledPart {
    const Adapter::Part* part;
    float scale;
  };

  /// delta += scale * B A for rows of the matrix.
  void add_product(const Adapter::Part& part, float scale, std::size_t first, std::size_t count, std::size_t cols) {
    b_.resize(count * part.rank);
    for (std::size_t o = 0; o < count; ++o) {
      for (std::size_t r = 0; r < part.rank; ++r) b_[o * part.rank + r] = scale * part.b[r * part.out + first + o];
    }
    DefaultBackend::weighted_sum(part.a.data(), part.in, part.rank, cols, b_.data(), part.rank, count, delta_.data(),
                                 cols);
  }

  static void encode(const Tensor& tensor, std::span<const float> values, std::span<std::byte> bytes) {
    with_dtype(tensor.dtype, [&]<class T>() {
      if constexpr (DtypeTraits<T>::values_per_block == 1 &&
                    requires(T & t) { DtypeTraits<T>::encode(values.data(), t); }) {
        for (std::size_t i = 0; i < values.size(); ++i) {
          T stored;
          DtypeTraits<T>::encode(values.data() + i, stored);
          if (!std::isfinite(to_f32(stored))) {
            fail(ErrorCode::not_supported, tensor.file, ": ", tensor.name, ": would have the value ", values[i],
                 ", which ", name_of(tensor.dtype), " cannot hold");
          }
          std::memcpy(bytes.data() + i * sizeof(T), &stored, sizeof(T));
        }
      }
    });
  }

  std::vector<ScaledPart> parts_;
  AdaptedRows rows_;
  std::vector<RowId> ids_;
  AlignedVector<float> row_, delta_, b_;
};

using TensorMerges = std::map<std::string, TensorMerge>;  // by the files' names

/// The tensor that a part of an adapter changes. Errors: ErrorCode::missing, shape; not_supported for a quantised one.
inline Tensor tensor_to_merge(const HfFolder& model, const std::string& who, Parameter parameter, std::size_t layer) {
  const std::string name = model.names().name(parameter, layer);
  const auto quantised = [&](const auto&... how) {
    fail(ErrorCode::not_supported, model.name(), ": ", name, ": ", how...,
         ", which small changes would not survive: merge into the model in bf16 and quantise that, or use the adapter "
         "as "
         "it is, at run time");
  };
  if (model.names().find(model.names().inside(parameter, layer) + "_packed")) quantised("is packed in few bits");
  const auto file = model.tensor_files().find(name);
  if (file == model.tensor_files().end()) {
    fail(ErrorCode::missing, who, ": the model ", model.name(), " has no ", name);
  }
  if (!file->second->computable(name)) quantised("is of type ", file->second->dtype(name));
  Tensor tensor = file->second->unaligned_tensor(name);
  if (tensor.shape.size() == 2) return tensor;
  fail(ErrorCode::shape, tensor.file, ": ", name, ": has shape ", shape_text(tensor.shape), ", expected two sizes");
}

inline TensorMerges tensor_merges(const HfFolder& model, std::span<const SessionAdapter> adapters) {
  TensorMerges merges;
  for (const auto& [adapter, scale] : adapters) {
    if (!adapter) fail(ErrorCode::argument, "merge: an entry without an adapter");
    if (!std::isfinite(scale)) {
      fail(ErrorCode::argument, adapter->source(), ": the scale is ", scale, ", expected a finite number");
    }
    for (const Adapter::Part& part : adapter->parts()) {
      const std::string who = adapter->source() + ": " + part.name;
      const Tensor tensor = tensor_to_merge(model, who, part.parameter, part.layer);
      if (tensor.shape != std::vector<std::uint64_t>{part.out, part.in}) {
        fail(ErrorCode::shape, who, ": is for a matrix of ", shape_text({part.out, part.in}), ", ", tensor.name, " of ",
             tensor.file, " has ", shape_text(tensor.shape));
      }
      merges[tensor.name].add(part, scale);
    }
    const TrainedRows& rows = adapter->rows();
    if (rows.empty()) continue;
    const Tensor tensor = tensor_to_merge(model, adapter->source() + ": rows", Parameter::ple_table, 0);
    if (tensor.shape[1] != rows.width || tensor.shape[0] <= rows.ids.back()) {
      fail(ErrorCode::shape, adapter->source(), ": rows of ", rows.width, " values, the last of them ", rows.ids.back(),
           "; ", tensor.name, " of ", tensor.file, " has ", shape_text(tensor.shape));
    }
    merges[tensor.name].add(rows, scale);
  }
  return merges;
}

/// One file of the folder with its tensors merged. `done` of `total` bytes are already written.
inline void write_merged_file(const SafetensorsFile& file, TensorMerges& merges, const std::filesystem::path& path,
                              const WriteProgress& progress, std::uint64_t& done, std::uint64_t total) {
  std::vector<TensorInfo> infos = file.list();
  std::sort(infos.begin(), infos.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  SafetensorsHeader header;
  auto metadata = file.metadata();
  metadata.emplace("format", "pt");  // transformers requires it
  for (const auto& [name, value] : metadata) header.metadata(name, value);
  for (const TensorInfo& info : infos) header.tensor(info.name, info.dtype, info.shape, info.bytes);
  CheckedWriter writer(path);
  const std::string head = header.bytes();
  writer.write(head.data(), head.size());
  constexpr std::uint64_t most = std::uint64_t{4} << 20;
  AlignedVector<std::byte> piece;
  for (const TensorInfo& info : infos) {
    const auto merge = merges.find(info.name);
    const Tensor tensor = merge == merges.end() ? file.raw(info.name) : file.unaligned_tensor(info.name);
    // Whole rows of a tensor that changes, so that memory never holds all of it.
    const std::uint64_t row = merge == merges.end() || info.shape[0] == 0 ? 1 : info.bytes / info.shape[0];
    const std::uint64_t step = row == 0 ? most : (std::max)(row, most / row * row);
    for (std::uint64_t at = 0; at < info.bytes; at += piece.size()) {
      piece.resize(static_cast<std::size_t>((std::min)(step, info.bytes - at)));
      read_tensor(tensor, at, piece);
      if (merge != merges.end()) {
        merge->second.apply(tensor, at / row, static_cast<std::size_t>(piece.size() / row), piece);
      }
      writer.write(piece.data(), piece.size());
      done += piece.size();
      writer.report(progress, "bytes written", done, total);
    }
  }
  writer.finish(progress);
}

}  // namespace detail

/// Writes the model of folder `from` with the adapters, times their scales, to folder `to`, which must be new or empty:
/// as many safetensors files, and copies of config.json and the files for text, images and sound. Sums are of f32, once
/// rounded to the tensor's type: f32, bf16 or f16. What an adapter does not change is copied, whatever its type.
/// config.json comes last, so an incomplete folder does not open; after an error the folder is as before. Takes the
/// adapters' memory and some megabytes. Errors: ErrorCode::argument, file, missing, shape; not_supported for a
/// quantised tensor, or a GGUF file; those of opening `from`; cancelled by `progress`.
inline MergedAdapters merge_adapters(const std::filesystem::path& from, std::span<const SessionAdapter> adapters,
                                     const std::filesystem::path& to, const WriteProgress& progress = {}) {
  if (file_exists(from) && !is_folder(from)) {
    fail(ErrorCode::not_supported, from.string(),
         ": is a file, expected a Hugging Face folder: merge into the model that a GGUF file was made of and convert "
         "that, "
         "or use the adapter as it is, at run time");
  }
  const HfFolder model(from);
  detail::TensorMerges merges = detail::tensor_merges(model, adapters);
  detail::FolderToFill out(to);
  std::map<std::filesystem::path, std::shared_ptr<const SafetensorsFile>> files;  // by name
  std::uint64_t total = 0, done = 0;
  for (const auto& [name, file] : model.tensor_files()) {
    if (!files.emplace(std::filesystem::path(file->raw(name).file).filename(), file).second) continue;
    for (const TensorInfo& info : file->list()) total += info.bytes;
  }
  Json shards = Json::object();
  for (const auto& [name, file] : files) {
    detail::write_merged_file(*file, merges, out.add(name), progress, done, total);
    for (const TensorInfo& info : file->list()) shards.add(info.name, Json(name.string()));
  }
  if (!files.contains("model.safetensors")) detail::write_safetensors_index(out, std::move(shards), total);
  detail::copy_text_files(from, out);
  detail::write_text_file(out.add("config.json"), read_text_file(from / "config.json"));
  out.complete();
  MergedAdapters merged;
  for (const auto& [name, merge] : merges) {
    merged.matrices += merge.is_matrix();
    merged.rows += merge.rows();
  }
  return merged;
}

}  // namespace ple::inline PLE_ABI
