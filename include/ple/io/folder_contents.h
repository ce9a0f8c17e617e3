// SPDX-License-Identifier: Apache-2.0
// What to say of a path that is not the model's folder that somebody expected.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

#include "ple/core/config.h"
#include "ple/core/error.h"

namespace ple {
inline namespace PLE_ABI {

/// Errors: ErrorCode::file unless `path` is a folder; `expected` says of what kind.
inline void check_is_folder(const std::filesystem::path& path, std::string_view expected) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) return;
  const bool absent = status.type() == std::filesystem::file_type::not_found;
  const std::string what = absent ? "no such file or folder" : error ? error.message() : "is no folder";
  fail(ErrorCode::file, path.string(), ": ", what, ": expected ", expected);
}

/// The end of an error about a folder without a model that can be opened: what it has instead, and what to do with it.
/// Empty if nothing is known.
inline std::string other_models_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    names.insert(entry->path().filename().string());
  }
  if (names.contains("adapter_config.json")) {
    return ": it has an adapter (adapter_config.json), which is no model: merge it into the model that it was trained "
           "for, and save that";
  }
  if (names.contains("snapshots")) return ": the models are in the folders of " + (folder / "snapshots").string();
  std::string found;
  const auto has = [&](const auto&... endings) {
    for (const std::string& name : names) {
      found = name;
      if ((name.ends_with(endings) || ...)) return true;
    }
    return false;
  };
  if (has(".gguf")) return ": to open " + found + ", name the file itself";
  if (has(".safetensors")) {
    const bool shard = found.find("-of-") != found.npos;
    return ": it has " + found +
           (shard ? ", a part of a model whose index is missing" : ", which must be called model.safetensors");
  }
  if (has(".bin", ".pth", ".pt", ".ckpt")) {
    return ": " + found +
           " is not read, because PyTorch's files may hold code: save the model as safetensors "
           "(save_pretrained() of transformers)";
  }
  if (has(".litertlm", ".task", ".tflite", ".msgpack", ".onnx")) return ": " + found + " is of a kind that is not read";
  return "";
}

}  // namespace PLE_ABI
}  // namespace ple
