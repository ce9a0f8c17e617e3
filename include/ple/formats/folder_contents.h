// SPDX-License-Identifier: Apache-2.0
// Errors for a path that is not the expected model folder.
#pragma once

#include <cstddef>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"

namespace ple::inline PLE_ABI {

/// Errors: ErrorCode::file unless `path` is a folder; `expected` names the kind expected.
inline void check_is_folder(const std::filesystem::path& path, std::string_view expected) {
  const auto status = find_file(path);
  if (status && status->kind == os::FileKind::folder) return;
  fail(ErrorCode::file, path.string(), ": ",
       !status                       ? "no such file or folder"
       : path.extension() == ".gguf" ? "is a GGUF file"
                                     : "is not a folder",
       ": expected ", expected);
}

/// Errors: ErrorCode::malformed for a Git LFS pointer, which stands for a large file that was not fetched.
inline void refuse_lfs_pointer(std::span<const std::byte> bytes, const std::string& file) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (!text.starts_with("version https://git-lfs.")) return;
  fail(ErrorCode::malformed, file, ": is a Git LFS pointer, not the file itself: fetch it with 'git lfs pull'");
}

/// The end of an error about a folder without a model to open: what it has instead, and what to do. Empty if unknown.
inline std::string other_models_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    names.insert(entry->path().filename().string());
  }
  if (names.contains("adapter_config.json")) {
    return ": it has an adapter (adapter_config.json), not a model: merge it into its base model and save the result";
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
  if (has(".litertlm", ".task", ".tflite", ".msgpack", ".onnx")) return ": " + found + " is in an unsupported format";
  return "";
}

}  // namespace ple::inline PLE_ABI
