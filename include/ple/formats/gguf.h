// SPDX-License-Identifier: Apache-2.0
// GGUF 2 and 3: keys, tensor infos, tensor bytes. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/checked_product.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/mapped_file.h"
#include "ple/formats/folder_contents.h"
#include "ple/formats/ggml_type.h"
#include "ple/formats/gguf_cursor.h"
#include "ple/formats/gguf_metadata.h"
#include "ple/formats/tensor_info.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// One mapped file. Opening it reads and checks the header; a tensor's bytes are read only when used.
class GgufFile {
 public:
  /// Errors: ErrorCode::file; malformed; dtype for an unknown type; not_supported for version 1 and big-endian files.
  static GgufFile open(const std::filesystem::path& path) { return GgufFile(path); }

  /// Whether it is a regular file that begins with 'GGUF'. Errors: ErrorCode::file if it cannot be opened.
  static bool is_one(const std::filesystem::path& path) {
    const auto status = find_file(path);
    if (!status || status->kind != os::FileKind::regular) return false;
    char start[4] = {};
    const ReadResult read = InputFile::open(path)->read(0, std::as_writable_bytes(std::span(start)));
    return read.bytes == sizeof start && std::string_view(start, sizeof start) == magic;
  }

  const std::filesystem::path& path() const { return path_; }
  const GgufMetadata& metadata() const { return metadata_; }
  bool contains(std::string_view name) const { return entries_.find(name) != entries_.end(); }

  /// All tensors by name, also those of types that ple does not compute with.
  std::vector<TensorInfo> list() const {
    std::vector<TensorInfo> all;
    for (const auto& [name, entry] : entries_)
      all.push_back({name, spelled(*entry.type), entry.shape, entry.begin, entry.bytes});
    return all;
  }

  /// The row-major shape of a tensor of any type. Errors: ErrorCode::missing.
  const std::vector<std::uint64_t>& shape(std::string_view name) const { return entry_of(name)->second.shape; }

  /// A tensor in place: the format aligns it for any type. Errors: ErrorCode::missing; dtype for an unsupported type.
  Tensor tensor(std::string_view name) const {
    const auto found = entry_of(name);
    const Entry& entry = found->second;
    const std::optional<Dtype> dtype = dtype_of_name(entry.type->name);
    if (!dtype) {
      fail(ErrorCode::dtype, metadata_.file(), ": ", name, ": dtype is ", spelled(*entry.type),
           ", which is not supported");
    }
    return {metadata_.file(),
            found->first,
            *dtype,
            entry.shape,
            map_->bytes().data() + entry.begin,
            static_cast<std::size_t>(entry.bytes),
            map_,
            map_,
            entry.begin};
  }

 private:
  struct Entry {
    const GgmlType* type = nullptr;
    std::vector<std::uint64_t> shape;    // row-major: the reverse of the file's
    std::uint64_t begin = 0, bytes = 0;  // begin: from the start of the data, after place() of the file
  };

  std::map<std::string, Entry, std::less<>>::const_iterator entry_of(std::string_view name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) fail(ErrorCode::missing, metadata_.file(), ": ", name, ": no such tensor");
    return found;
  }

  explicit GgufFile(const std::filesystem::path& path)
      : path_(path), metadata_(path.string()), map_(MappedFile::open(path)) {
    refuse_lfs_pointer(map_->bytes(), metadata_.file());
    detail::GgufCursor cursor(map_->bytes(), metadata_.file());
    check_start(cursor);
    // The fewest bytes of a tensor: name length, dimension count, type, offset; of a key: length, type, 1 byte.
    const std::uint64_t tensors = cursor.count("the tensors", 24), keys = cursor.count("the keys", 13);
    for (std::uint64_t i = 0; i < keys; ++i) {
      const std::string key = name(cursor, "key", i);
      if (!metadata_.add(key, cursor.value(cursor.type(key), key))) cursor.malformed(key, "the key appears twice");
    }
    const std::uint64_t align = read_alignment(cursor);
    for (std::uint64_t i = 0; i < tensors; ++i) {
      const std::string tensor = name(cursor, "tensor", i);
      if (!entries_.emplace(tensor, entry(cursor, tensor, align)).second)
        cursor.malformed(tensor, "there are two tensors of this name");
    }
    if (!entries_.empty()) place(cursor, align);
  }

  static void check_start(detail::GgufCursor& cursor) {
    const auto start = cursor.number<std::uint32_t>("the first 4 bytes");
    if (std::memcmp(&start, magic.data(), sizeof start) != 0) {
      cursor.malformed("the first 4 bytes", "are not 'GGUF': this is not a GGUF file");
    }
    const auto version = cursor.number<std::uint32_t>("the version");
    if (version == 2 || version == 3) return;
    const bool swapped = version != 0 && (version & 0xFFFF) == 0;
    fail(ErrorCode::not_supported, cursor.file(), ": the version of the format is ",
         swapped ? version >> 24 | (version >> 8 & 0xFF00u) : version,
         swapped ? " in a big-endian file, expected a little-endian one" : ", expected 2 or 3");
  }

  /// A key or a tensor's name. The format allows 65,535 bytes.
  static std::string name(detail::GgufCursor& cursor, const char* what, std::uint64_t i) {
    constexpr std::size_t most = 65535;
    const std::string where = std::string(what) + " " + std::to_string(i);
    const std::string_view text = cursor.text(where);
    if (text.empty() || text.size() > most)
      cursor.malformed(where, "its name has ", text.size(), " bytes, expected 1 to ", most);
    return std::string(text);
  }

  /// The tensors' alignment in bytes, a power of two.
  std::uint64_t read_alignment(const detail::GgufCursor& cursor) const {
    constexpr std::string_view key = "general.alignment";
    constexpr std::size_t least = 8, most = 65536;
    const std::size_t align = metadata_.count(key, 32);
    if (!std::has_single_bit(align) || align < least || align > most)
      cursor.malformed(key, "is ", align, ", expected a power of two from ", least, " to ", most);
    return align;
  }

  static Entry entry(detail::GgufCursor& cursor, const std::string& name, std::uint64_t align) {
    constexpr std::uint64_t most = std::uint64_t{1} << 63;
    Entry entry;
    const auto dimensions = cursor.number<std::uint32_t>(name);
    if (dimensions > 4) cursor.malformed(name, "has ", dimensions, " dimensions, expected at most 4");
    for (std::uint32_t i = 0; i < dimensions; ++i) entry.shape.push_back(cursor.number<std::uint64_t>(name));
    const std::uint64_t row = entry.shape.empty() ? 1 : entry.shape[0];
    std::reverse(entry.shape.begin(), entry.shape.end());
    const auto type = cursor.number<std::uint32_t>(name);
    entry.type = ggml_type(type);
    if (entry.type == nullptr)
      fail(ErrorCode::dtype, cursor.file(), ": ", name, ": its type is ", type, ", which is unknown");
    if (row % entry.type->values != 0) {
      cursor.malformed(name, "rows of ", row, " values, expected a multiple of ", entry.type->values, ", the block of ",
                       spelled(*entry.type));
    }
    const auto values = checked_product(entry.shape);
    if (!values || *values >= most)
      cursor.malformed(name, "shape ", shape_text(entry.shape), " has 2^63 values or more");
    const auto bytes = checked_product({*values / entry.type->values, entry.type->bytes});
    if (!bytes || *bytes >= most)
      cursor.malformed(name, "shape ", shape_text(entry.shape), " of ", spelled(*entry.type),
                       " takes 2^63 bytes or more");
    entry.bytes = *bytes;
    entry.begin = cursor.number<std::uint64_t>(name);
    if (entry.begin % align != 0) {
      cursor.malformed(name, "its data begin at byte ", entry.begin, " of the data, expected a multiple of ", align,
                       ", the file's alignment");
    }
    return entry;
  }

  /// Needs the whole header read, which tells where the data begin. Tensors must lie in the data and not overlap.
  void place(const detail::GgufCursor& cursor, std::uint64_t align) {
    const std::uint64_t size = map_->bytes().size();
    const std::uint64_t begin = (cursor.position() + align - 1) / align * align;
    const std::uint64_t room = begin > size ? 0 : size - begin;
    std::vector<std::pair<const std::string, Entry>*> order;
    for (auto& item : entries_) {
      auto& [name, entry] = item;
      if (entry.begin > room || entry.bytes > room - entry.begin) {
        cursor.malformed(name, "its ", entry.bytes, " bytes begin at byte ", entry.begin, " of the data, which have ",
                         room, ": is the file truncated?");
      }
      entry.begin += begin;
      order.push_back(&item);
    }
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
      return std::pair(a->second.begin, a->second.bytes) < std::pair(b->second.begin, b->second.bytes);
    });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const auto& [before, first] = *order[i - 1];
      const auto& [name, second] = *order[i];
      if (second.begin < first.begin + first.bytes) {
        cursor.malformed(name, "its data begin at byte ", second.begin, " of the file, inside those of ", before,
                         ", which end at ", first.begin + first.bytes);
      }
    }
  }

  static constexpr std::string_view magic = "GGUF";

  std::filesystem::path path_;
  GgufMetadata metadata_;
  std::shared_ptr<const MappedFile> map_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace ple::inline PLE_ABI
