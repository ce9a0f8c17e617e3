// SPDX-License-Identifier: Apache-2.0
// Writes a model anew with some tensors changed and others added: a Hugging Face folder or a GGUF file. All else is
// copied. Memory holds a few megabytes at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
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
#include "ple/core/json.h"
#include "ple/core/memory.h"
#include "ple/dtype/traits.h"
#include "ple/formats/gguf_shards.h"
#include "ple/formats/gguf_writer.h"
#include "ple/formats/safetensors.h"
#include "ple/formats/safetensors_header.h"
#include "ple/formats/tensor_info.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// Changes whole rows of a tensor, from `first` on, as stored, in place. A vector's rows are its values.
using TensorChange = std::function<void(const Tensor& tensor, std::uint64_t first, std::span<std::byte> rows)>;
using TensorChanges = std::map<std::string, TensorChange>;  ///< by the files' names

/// A tensor that the model does not have yet: f32, bf16 or f16. `next` is called in order, for all of its bytes.
struct AddedTensor {
  GgufTensor tensor;
  std::function<void(std::span<std::byte> bytes)> next;
};

namespace detail {

/// f32 values in the tensor's type, which has one value a block. Errors: ErrorCode::not_supported for a value that the
/// type does not have.
inline void encode_values(const Tensor& tensor, std::span<const float> values, std::span<std::byte> bytes) {
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

inline constexpr std::uint64_t most_changed_at_once = std::uint64_t{4} << 20;

/// Calls write(bytes) for all of the tensor, in pieces of whole rows if it changes.
template <class Write>
void for_each_changed_piece(const Tensor& tensor, const TensorChanges& changes, Write&& write) {
  const auto change = changes.find(tensor.name);
  const std::uint64_t row = change == changes.end() || tensor.shape[0] == 0
                                ? 1
                                : (std::max)(std::uint64_t{1}, tensor.bytes / tensor.shape[0]);
  const std::uint64_t step = (std::max)(row, most_changed_at_once / row * row);
  AlignedVector<std::byte> piece;
  for (std::uint64_t at = 0; at < tensor.bytes; at += piece.size()) {
    piece.resize(static_cast<std::size_t>((std::min)(step, tensor.bytes - at)));
    read_tensor(tensor, at, piece);
    if (change != changes.end()) change->second(tensor, at / row, piece);
    write(std::span<const std::byte>(piece));
  }
}

template <class Write>
void for_each_added_piece(const AddedTensor& added, Write&& write) {
  AlignedVector<std::byte> piece;
  for (std::uint64_t left = added.tensor.bytes(); left > 0; left -= piece.size()) {
    piece.resize(static_cast<std::size_t>((std::min)(most_changed_at_once, left)));
    added.next(piece);
    write(std::span<const std::byte>(piece));
  }
}

/// As safetensors spells it.
inline std::string safetensors_dtype(Dtype type) {
  return type == Dtype::f32 ? "F32" : type == Dtype::bf16 ? "BF16" : "F16";
}

/// One file of a folder. `done` of `total` bytes are already written.
inline void write_changed_file(const SafetensorsFile& file, const TensorChanges& changes,
                               std::span<const AddedTensor> added, const std::filesystem::path& path,
                               const WriteProgress& progress, std::uint64_t& done, std::uint64_t total) {
  std::vector<TensorInfo> infos = file.list();
  std::sort(infos.begin(), infos.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  SafetensorsHeader header;
  auto metadata = file.metadata();
  metadata.emplace("format", "pt");  // transformers requires it
  for (const auto& [name, value] : metadata) header.metadata(name, value);
  for (const TensorInfo& info : infos) header.tensor(info.name, info.dtype, info.shape, info.bytes);
  for (const auto& [tensor, next] : added) {
    header.tensor(tensor.name, safetensors_dtype(tensor.dtype), tensor.shape, tensor.bytes());
  }
  CheckedWriter writer(path);
  const std::string head = header.bytes();
  writer.write(head.data(), head.size());
  const auto write = [&](std::span<const std::byte> bytes) {
    writer.write(bytes.data(), bytes.size());
    done += bytes.size();
    writer.report(progress, "bytes written", done, total);
  };
  for (const TensorInfo& info : infos) {
    const Tensor tensor = changes.contains(info.name) ? file.unaligned_tensor(info.name) : file.raw(info.name);
    for_each_changed_piece(tensor, changes, write);
  }
  for (const AddedTensor& one : added) for_each_added_piece(one, write);
  writer.finish(progress);
}

}  // namespace detail

/// Writes `model` to folder `to`, which must be new or empty: as many safetensors files, added tensors in the last of
/// them, and copies of the files for text, images and sound. `config`: the new config.json, which comes last, so an
/// incomplete folder does not open; after an error the folder is as before. Errors: those of the changes;
/// ErrorCode::argument, file; cancelled by `progress`.
inline void write_changed_folder(const HfFolder& model, const TensorChanges& changes,
                                 std::span<const AddedTensor> added, const std::string& config,
                                 const std::filesystem::path& to, const WriteProgress& progress = {}) {
  detail::FolderToFill out(to);
  std::map<std::filesystem::path, std::shared_ptr<const SafetensorsFile>> files;  // by name
  std::uint64_t total = 0, done = 0;
  for (const auto& [name, file] : model.tensor_files()) {
    if (!files.emplace(std::filesystem::path(file->raw(name).file).filename(), file).second) continue;
    for (const TensorInfo& info : file->list()) total += info.bytes;
  }
  for (const AddedTensor& one : added) total += one.tensor.bytes();
  Json shards = Json::object();
  for (const auto& [name, file] : files) {
    const bool is_last = name == files.rbegin()->first;
    const auto more = is_last ? added : std::span<const AddedTensor>();
    detail::write_changed_file(*file, changes, more, out.add(name), progress, done, total);
    for (const TensorInfo& info : file->list()) shards.add(info.name, Json(name.string()));
    for (const AddedTensor& one : more) shards.add(one.tensor.name, Json(name.string()));
  }
  if (!files.contains("model.safetensors")) detail::write_safetensors_index(out, std::move(shards), total);
  detail::copy_text_files(model.folder(), out);
  detail::write_text_file(out.add("config.json"), config);
  out.complete();
}

/// Writes the model of a GGUF file to `path`, which is replaced only once all was read back: its keys, but those that
/// say how it was split, and `more`; its tensors; those added. Errors: those of the changes; ErrorCode::argument, also
/// if the model is read from `path`, or has one of the keys; file, dtype; cancelled by `progress`.
inline void write_changed_gguf(const GgufShards& model, const TensorChanges& changes,
                               std::span<const AddedTensor> added, const GgufKeys& more,
                               const std::filesystem::path& path, const WriteProgress& progress = {}) {
  GgufKeys keys;
  for (const auto& [key, value] : model.metadata().all()) {
    if (key.starts_with("split.") || key == "general.alignment") continue;  // the writer aligns as is the default
    keys.copy(key, value);
  }
  keys.add(more);
  std::vector<GgufTensor> tensors;
  std::uint64_t total = 0, done = 0;
  for (const TensorInfo& info : model.list()) {
    tensors.push_back({info.name, info.shape, model.tensor(info.name).dtype});
  }
  for (const AddedTensor& one : added) tensors.push_back(one.tensor);
  for (const GgufTensor& tensor : tensors) total += tensor.bytes();
  GgufFileWriter file(path, keys, std::move(tensors), identities_of(model.paths()));
  const auto write = [&](std::span<const std::byte> bytes) {
    file.write(bytes);
    done += bytes.size();
    file.report(progress, "bytes written", done, total);
  };
  for (const TensorInfo& info : model.list()) detail::for_each_changed_piece(model.tensor(info.name), changes, write);
  for (const AddedTensor& one : added) detail::for_each_added_piece(one, write);
  file.finish(progress);
}

}  // namespace ple::inline PLE_ABI
