// SPDX-License-Identifier: Apache-2.0
// A GGUF model in one file or parts NAME-00001-of-00003.gguf; the first has all keys. Source: llama.cpp's gguf-split.
#pragma once

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/formats/gguf.h"
#include "ple/formats/tensor_info.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// All files of a model, as if they were one.
class GgufShards {
 public:
  /// Opens the file and, if it is any part of a split model, the other parts. Errors: those of GgufFile::open;
  /// ErrorCode::missing for a missing part; malformed for parts that do not belong together.
  static GgufShards open(const std::filesystem::path& path) {
    GgufShards shards;
    shards.files_.push_back(GgufFile::open(path));
    const std::size_t count = shards.files_[0].metadata().count("split.count", 1, most_parts);
    if (count > 1) shards.open_parts(path, count);
    return shards;
  }

  const GgufMetadata& metadata() const { return files_[0].metadata(); }
  /// The first file's.
  const std::filesystem::path& path() const { return files_[0].path(); }
  const std::string& name() const { return metadata().file(); }
  std::size_t count() const { return files_.size(); }
  std::vector<std::filesystem::path> paths() const {
    std::vector<std::filesystem::path> paths;
    for (const GgufFile& file : files_) paths.push_back(file.path());
    return paths;
  }

  bool contains(std::string_view tensor) const { return find(tensor) != nullptr; }

  std::vector<TensorInfo> list() const {
    std::vector<TensorInfo> all;
    for (const GgufFile& file : files_) {
      for (TensorInfo& info : file.list()) all.push_back(std::move(info));
    }
    return all;
  }

  /// Row-major, of a tensor of any type. Errors: ErrorCode::missing.
  const std::vector<std::uint64_t>& shape(std::string_view tensor) const { return file_of(tensor).shape(tensor); }

  /// Errors: ErrorCode::missing, dtype.
  Tensor tensor(std::string_view tensor) const { return file_of(tensor).tensor(tensor); }

 private:
  static constexpr std::size_t most_parts = 65535;

  /// "-00002-of-00003.gguf"
  static std::string ending(std::size_t part, std::size_t count) {
    char text[64];
    std::snprintf(text, sizeof text, "-%05zu-of-%05zu.gguf", part, count);
    return text;
  }

  void open_parts(const std::filesystem::path& path, std::size_t count) {
    const std::size_t given = files_[0].metadata().count("split.no", std::nullopt, most_parts);
    const std::string file = path.filename().string();
    if (!file.ends_with(ending(given + 1, count))) {
      fail(ErrorCode::malformed, path.string(), ": split.no is ", given, " and split.count ", count,
           ", so the file's name should end in '", ending(given + 1, count), "'");
    }
    const std::string stem = file.substr(0, file.size() - ending(given + 1, count).size());
    std::vector<GgufFile> files;
    for (std::size_t part = 1; part <= count; ++part) {
      const std::filesystem::path sibling = path.parent_path() / (stem + ending(part, count));
      if (!file_exists(sibling)) {
        fail(ErrorCode::missing, sibling.string(), ": part ", part, " of the ", count, " parts that ", path.string(),
             " belongs to is missing");
      }
      files.push_back(part == given + 1 ? std::move(files_[0]) : GgufFile::open(sibling));
      check_part(files.front(), files.back(), part - 1, count);
    }
    files_ = std::move(files);
    check_tensors();
  }

  static void check_part(const GgufFile& first, const GgufFile& file, std::size_t number, std::size_t count) {
    const auto expect = [&](const char* key, std::size_t expected) {
      const std::size_t found = file.metadata().count(key);
      if (found == expected) return;
      fail(ErrorCode::malformed, file.metadata().file(), ": ", key, " is ", found, ", expected ", expected);
    };
    expect("split.no", number);
    expect("split.count", count);
    expect("split.tensors.count", first.metadata().count("split.tensors.count"));
  }

  void check_tensors() const {
    std::size_t tensors = 0;
    for (const GgufFile& file : files_) {
      for (const TensorInfo& info : file.list()) {
        ++tensors;
        if (const GgufFile* other = find(info.name); other != &file) {
          fail(ErrorCode::malformed, file.metadata().file(), ": ", info.name, ": is in ", other->metadata().file(),
               " too");
        }
      }
    }
    const std::size_t expected = metadata().count("split.tensors.count");
    if (tensors != expected) {
      fail(ErrorCode::malformed, name(), ": split.tensors.count is ", expected, ", but its ", files_.size(),
           " parts have ", tensors, " tensors");
    }
  }

  const GgufFile& file_of(std::string_view tensor) const {
    if (const GgufFile* file = find(tensor)) return *file;
    fail(ErrorCode::missing, name(), ": ", tensor, ": no such tensor",
         files_.size() > 1 ? " in this file and its other parts" : "");
  }

  const GgufFile* find(std::string_view tensor) const {
    for (const GgufFile& file : files_) {
      if (file.contains(tensor)) return &file;
    }
    return nullptr;
  }

  std::vector<GgufFile> files_;
};

}  // namespace ple::inline PLE_ABI
