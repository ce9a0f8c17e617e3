// SPDX-License-Identifier: Apache-2.0
// Writes a MatFormer slice of a Hugging Face folder as a folder of its own.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ple/checkpoint/hf_folder.h"
#include "ple/checkpoint/hf_tensor_names.h"
#include "ple/checkpoint/sliced_source.h"
#include "ple/convert/folder_to_fill.h"
#include "ple/core/checked_writer.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json.h"
#include "ple/core/json_text.h"
#include "ple/core/memory.h"
#include "ple/core/number_text.h"
#include "ple/formats/safetensors_header.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// The object with these fields replaced; new ones come last.
inline Json with_fields(const Json& object, std::map<std::string, Json> fields) {
  Json changed = Json::object();
  for (const Json& member : object.members()) {
    const auto field = fields.find(std::string(member.key()));
    changed.add(std::string(member.key()), field == fields.end() ? member : field->second);
    if (field != fields.end()) fields.erase(field);
  }
  for (auto& [name, value] : fields) changed.add(name, std::move(value));
  return changed;
}

/// A per-layer field without skipped layers' entries; without a list in the file, `otherwise(l)` for each kept layer l.
template <class F>
Json list_of_layers(const Json& text, const char* name, const MatformerSlice& slice, F&& otherwise) {
  const Json* list = text.find(name);
  Json kept = Json::array();
  for (std::size_t l = 0; l < slice.layers.size(); ++l) {
    kept.push_back(list && list->is_array() ? list->items()[slice.layers[l]] : Json(otherwise(l)));
  }
  return kept;
}

inline Json sliced_config(const Json& whole, const MatformerSlice& slice) {
  const Json* nested = whole.find("text_config");
  const Json& text = nested && nested->is_object() ? *nested : whole;
  const auto natural = [](std::size_t n) { return Json(static_cast<std::uint64_t>(n)); };
  const auto& layers = slice.config.layers;
  Json widths = Json::array();
  for (const Gemma3nLayerConfig& layer : layers) widths.push_back(natural(layer.intermediate_size));
  Json changed = with_fields(
      text,
      {{"num_hidden_layers", natural(layers.size())},
       {"num_kv_shared_layers", natural(slice.config.num_kv_shared_layers)},
       {"intermediate_size", std::move(widths)},
       {"layer_types", list_of_layers(text, "layer_types", slice,
                                      [&](std::size_t l) {
                                        const bool full = layers[l].attention == AttentionType::full;
                                        return std::string(full ? "full_attention" : "sliding_attention");
                                      })},
       {"activation_sparsity_pattern", list_of_layers(text, "activation_sparsity_pattern", slice, [&](std::size_t l) {
          // The float's shortest text: as a double it would have more digits.
          return parse_number<double>(number_text(layers[l].activation_sparsity)).value_or(0);
        })}});
  return &text == &whole ? changed : with_fields(whole, {{"text_config", std::move(changed)}});
}

struct SlicedTensor {
  std::string name, dtype;
  std::vector<std::uint64_t> shape;
  std::uint64_t bytes = 0;
  Tensor whole = {};
  std::optional<TensorPart> part = {};  ///< nothing: all of it
};

/// The slice's part of one safetensors file.
class SlicedFile {
 public:
  SlicedFile(const SafetensorsFile& file, const HfFolder& folder, const SlicedSource& slice)
      : metadata_(file.metadata()) {
    metadata_.emplace("format", "pt");  // transformers requires it
    std::vector<TensorInfo> infos = file.list();
    std::sort(infos.begin(), infos.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
    for (const TensorInfo& info : infos) add(file, info, folder.names(), slice);
  }

  const std::vector<SlicedTensor>& tensors() const { return tensors_; }
  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const SlicedTensor& tensor : tensors_) sum += tensor.bytes;
    return sum;
  }

  /// `done` of `total` bytes are already written. Errors: those of CheckedWriter; ErrorCode::file.
  void write(const std::filesystem::path& path, const WriteProgress& progress, std::uint64_t done,
             std::uint64_t total) const {
    SafetensorsHeader header;
    for (const auto& [name, value] : metadata_) header.metadata(name, value);
    for (const SlicedTensor& tensor : tensors_) header.tensor(tensor.name, tensor.dtype, tensor.shape, tensor.bytes);
    CheckedWriter writer(path);
    const std::string head = header.bytes();
    writer.write(head.data(), head.size());
    AlignedVector<std::byte> piece(std::size_t{4} << 20);
    for (const SlicedTensor& tensor : tensors_) {
      const auto copy = [&](std::uint64_t begin, std::uint64_t size) {
        for (const std::uint64_t end = begin + size; begin < end;) {
          const auto some =
              std::span(piece).first(static_cast<std::size_t>(std::min<std::uint64_t>(end - begin, piece.size())));
          read_tensor(tensor.whole, begin, some);
          writer.write(some.data(), some.size());
          begin += some.size();
          done += some.size();
          writer.report(progress, "bytes written", done, total);
        }
      };
      if (tensor.part) {
        tensor.part->for_each_range(copy);
      } else {
        copy(0, tensor.bytes);
      }
    }
    writer.finish(progress);
  }

 private:
  void add(const SafetensorsFile& file, const TensorInfo& info, const HfTensorNames& names, const SlicedSource& slice) {
    SlicedTensor tensor{info.name, info.dtype, info.shape, info.bytes, file.raw(info.name)};
    std::string inside = names.inside(info.name);
    constexpr std::string_view layers = "layers.";
    std::size_t l = 0;
    if (inside.starts_with(layers)) {
      const char *number = inside.data() + layers.size(), *end = inside.data() + inside.size();
      std::size_t whole_layer = 0;
      const auto [rest, error] = std::from_chars(number, end, whole_layer);
      const auto& kept = slice.slice().layers;
      const auto found = std::find(kept.begin(), kept.end(), whole_layer);
      if (error != std::errc() || found == kept.end()) return;  // of a skipped layer
      l = static_cast<std::size_t>(found - kept.begin());
      inside = std::string(layers) + std::to_string(l) + std::string(rest, end);
    }
    if (!inside.empty()) tensor.name = std::string(names.prefix()) + inside;
    for (const Parameter parameter :
         {Parameter::gate, Parameter::up, Parameter::down, Parameter::ple_table, Parameter::ple_context_projection}) {
      if (inside != hf_name("", parameter, l)) continue;
      tensor.part = slice.part(parameter, l);
      tensor.whole = tensor.part->whole();
      tensor.shape = tensor.part->shape();
      tensor.bytes = tensor.part->bytes();
    }
    tensors_.push_back(std::move(tensor));
  }

  SafetensorsFile::Metadata metadata_;
  std::vector<SlicedTensor> tensors_;
};

}  // namespace detail

/// Writes the slice `options` of the Gemma 3n in folder `from` to folder `to`, which must be new or empty: config.json,
/// as many safetensors files as `from` has, and copies of the files for text, images and sound. Tensors outside the
/// text model's layers go along: a separate head, vision, audio. config.json comes last, so an incomplete folder does
/// not open; after an error the folder is as before. Takes a few megabytes of memory. Returns the slice. Errors:
/// ErrorCode::argument, file, shape; those of opening `from`; cancelled by `progress`.
inline MatformerSlice write_slice(const std::filesystem::path& from, const MatformerOptions& options,
                                  const std::filesystem::path& to, const WriteProgress& progress = {}) {
  const auto whole = std::make_shared<const HfFolder>(from);
  if (whole->names().find(hf_name("", Parameter::gate, 0) + "_packed")) {
    fail(ErrorCode::not_supported, from.string(), ": its weights are packed: slices of such models cannot be written");
  }
  const SlicedSource slice(whole, whole->any_config(), options, from.string());
  detail::FolderToFill out(to);

  std::map<std::filesystem::path, detail::SlicedFile> files;  // by name
  std::uint64_t total = 0, done = 0;
  for (const auto& [name, file] : whole->tensor_files()) {
    const std::filesystem::path path = std::filesystem::path(file->raw(name).file).filename();
    if (files.contains(path)) continue;
    total += files.emplace(path, detail::SlicedFile(*file, *whole, slice)).first->second.bytes();
  }
  Json shards = Json::object();
  for (const auto& [name, file] : files) {
    if (file.tensors().empty()) continue;
    file.write(out.add(name), progress, done, total);
    done += file.bytes();
    for (const detail::SlicedTensor& tensor : file.tensors()) shards.add(tensor.name, Json(name.string()));
  }
  if (!files.contains("model.safetensors")) detail::write_safetensors_index(out, std::move(shards), total);
  detail::copy_text_files(from, out);
  const Json config = detail::sliced_config(read_json_file(from / "config.json"), slice.slice());
  detail::write_text_file(out.add("config.json"), json_text(config));
  out.complete();
  return slice.slice();
}

}  // namespace ple::inline PLE_ABI
