// SPDX-License-Identifier: Apache-2.0
// The safetensors files of a Hugging Face folder: one, or many with an index.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/formats/json_field.h"
#include "ple/formats/safetensors.h"

namespace ple::inline PLE_ABI {

/// The file of each tensor, by the tensor's name.
using TensorFiles = std::map<std::string, std::shared_ptr<const SafetensorsFile>>;

namespace detail {

inline TensorFiles open_shards(const std::filesystem::path& index_path, const JsonLimits& limits) {
  const Json index = read_json_file(index_path, limits);
  const JsonField fields(index, index_path.string());
  const auto wrong = [&](const auto&... parts) { fail(ErrorCode::malformed, index_path.string(), ": ", parts...); };
  if (!fields.object("weight_map")) wrong("weight_map is missing");
  TensorFiles tensors;
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> shards;
  for (const Json& value : fields.find("weight_map")->members()) {
    const std::string name(value.key()), shard(value.text());
    // A plain file name: an index must not point outside its folder.
    if (shard.empty() || shard == "." || shard == ".." || std::filesystem::path(shard).filename() != shard) {
      wrong(name, ": its file is ", value.brief(), ", expected the name of a file in the folder");
    }
    auto& file = shards[shard];
    if (!file)
      file = std::make_shared<SafetensorsFile>(SafetensorsFile::open(index_path.parent_path() / shard, limits));
    // Not every tensor that an index names is needed: whoever needs a missing one will say so.
    if (file->contains(name)) tensors.emplace(name, file);
  }
  // An index may not name all tensors.
  for (const auto& [shard, file] : shards) {
    for (const std::string& name : file->names()) tensors.emplace(name, file);
  }
  return tensors;
}

}  // namespace detail

/// Maps the files and reads their headers. As in transformers, model.safetensors takes precedence over an index. Empty
/// if the folder has neither. Errors: ErrorCode::file, missing, malformed, config, limit.
inline TensorFiles open_safetensors(const std::filesystem::path& folder, const JsonLimits& limits = {}) {
  const std::filesystem::path index = folder / "model.safetensors.index.json", single = folder / "model.safetensors";
  TensorFiles tensors;
  if (!file_exists(single)) {
    if (file_exists(index)) tensors = detail::open_shards(index, limits);
    return tensors;
  }
  const auto file = std::make_shared<SafetensorsFile>(SafetensorsFile::open(single, limits));
  for (const std::string& name : file->names()) tensors.emplace(name, file);
  return tensors;
}

}  // namespace ple::inline PLE_ABI
