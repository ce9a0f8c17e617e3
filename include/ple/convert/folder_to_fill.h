// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder that is written anew, and what such folders have beside their tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "ple/core/checked_writer.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/json.h"
#include "ple/core/json_text.h"
#include "ple/core/os.h"
#include "ple/core/output_file.h"
#include "ple/formats/json_field.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// A new or empty folder that one writer at a time may fill. Unless completed, it becomes what it was.
class FolderToFill {
 public:
  /// Errors: ErrorCode::file; argument for a folder that is not empty, or that another writer fills.
  explicit FolderToFill(const std::filesystem::path& folder) : folder_(folder), mark_(folder / "ple.partial") {
    std::error_code error;
    is_new_ = std::filesystem::create_directories(folder_, error);
    if (!is_folder(folder_)) fail(ErrorCode::file, folder_.string(), ": cannot make this folder");
    if (file_exists(mark_)) refuse();
    OutputFile(mark_, folder_.string());
    const std::filesystem::directory_iterator files(folder_);
    if (std::distance(begin(files), end(files)) > 1) {
      std::filesystem::remove(mark_, error);
      refuse();
    }
  }
  FolderToFill(const FolderToFill&) = delete;
  FolderToFill& operator=(const FolderToFill&) = delete;
  ~FolderToFill() {
    if (is_complete_ || process_ != os::process_id()) return;
    std::error_code ignored;
    for (const std::filesystem::path& file : files_) std::filesystem::remove(file, ignored);
    std::filesystem::remove(mark_, ignored);
    if (is_new_) std::filesystem::remove(folder_, ignored);
  }

  /// Registers a file that is about to be written.
  std::filesystem::path add(const std::filesystem::path& name) { return files_.emplace_back(folder_ / name); }

  void complete() {
    std::filesystem::remove(mark_);
    is_complete_ = true;
  }

 private:
  [[noreturn]] void refuse() const {
    fail(ErrorCode::argument, folder_.string(), ": is not empty, expected a new or an empty folder");
  }

  std::filesystem::path folder_, mark_;
  std::vector<std::filesystem::path> files_;
  bool is_new_ = false, is_complete_ = false;
  std::uint64_t process_ = os::process_id();
};

inline void write_text_file(const std::filesystem::path& path, const std::string& text) {
  CheckedWriter writer(path);
  writer.write(text.data(), text.size());
  writer.finish({});
}

/// shards: the file of each tensor.
inline void write_safetensors_index(FolderToFill& out, Json shards, std::uint64_t bytes) {
  Json index = Json::object(), metadata = Json::object();
  metadata.add("total_size", Json(bytes));
  index.add("metadata", std::move(metadata));
  index.add("weight_map", std::move(shards));
  write_text_file(out.add("model.safetensors.index.json"), json_text(index));
}

/// Copies the files for text, images and sound; not config.json.
inline void copy_text_files(const std::filesystem::path& from, FolderToFill& out) {
  for (const char* name : {"generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
                           "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
                           "processor_config.json", "preprocessor_config.json"}) {
    if (file_exists(from / name)) write_text_file(out.add(name), read_text_file(from / name));
  }
}

}  // namespace detail

}  // namespace ple::inline PLE_ABI
