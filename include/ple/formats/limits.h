// SPDX-License-Identifier: Apache-2.0
// What a program lets model files ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json.h"

namespace ple::inline PLE_ABI {

/// Exceeding one is ErrorCode::limit, before what exceeds it is mapped or read. Sessions have limits of their own:
/// SessionOptions::context and SessionOptions::kv_cache_limit.
struct CheckpointLimits {
  /// Of each file: weights, packed table, tokenizer, configuration. This bounds memory too: a Resident table and
  /// unaligned tensors are copied, and a tokenizer takes a few times its file's size.
  std::uint64_t file_bytes = (std::numeric_limits<std::uint64_t>::max)();
  std::size_t vocab_size = std::size_t{1} << 22;  ///< tokens of the model; Gemma's has 2^18
  JsonLimits json = {};  ///< of each JSON file, and of the JSON in the header of a safetensors file
};
using Limits = CheckpointLimits;  ///< Old name; goes with the next version.

namespace detail {

inline void check_vocab_size(const std::string& file, std::size_t vocab_size, const CheckpointLimits& limits) {
  if (vocab_size <= limits.vocab_size) return;
  fail(ErrorCode::limit, file, ": has a vocabulary of ", vocab_size,
       ", more than CheckpointLimits::vocab_size, which is ", limits.vocab_size);
}

inline void check_file_size(const std::filesystem::path& path, std::uint64_t most) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (!error && size > most) {
    fail(ErrorCode::limit, path.string(), ": has ", size, " bytes, more than CheckpointLimits::file_bytes, which is ",
         most);
  }
}

/// Checks a folder's model files, or a GGUF file and its parts; perhaps also others of their kind beside them.
inline void check_file_sizes(const std::filesystem::path& path, std::uint64_t most) {
  if (most == (std::numeric_limits<std::uint64_t>::max)()) return;
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  check_file_size(path, most);
  const std::string name = path.filename().string();
  constexpr std::size_t numbers = std::string_view("-00001-of-00001.gguf").size();
  const bool is_part = name.size() > numbers && name.find("-of-", name.size() - numbers) != std::string::npos;
  if (!is_folder && !is_part) return;
  const std::filesystem::path folder = is_folder ? path : path.has_parent_path() ? path.parent_path() : ".";
  for (std::filesystem::directory_iterator file(folder, error), end; !error && file != end; file.increment(error)) {
    const std::string other = file->path().filename().string();
    const std::string extension = file->path().extension().string();
    const bool of_folder = extension == ".safetensors" || extension == ".json" || extension == ".jinja";
    const bool of_parts = is_part && other.size() == name.size() &&
                          other.starts_with(name.substr(0, name.size() - numbers + 1)) &&
                          other.ends_with(name.substr(name.find("-of-", name.size() - numbers)));
    if (is_folder ? of_folder : of_parts) check_file_size(file->path(), most);
  }
}

}  // namespace detail
}  // namespace ple::inline PLE_ABI
