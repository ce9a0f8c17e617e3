// SPDX-License-Identifier: Apache-2.0
// Safetensors: 8-byte length, JSON header, tensor bytes. Source: https://github.com/huggingface/safetensors#format
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/checked_product.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/mapped_file.h"
#include "ple/core/memory.h"
#include "ple/formats/folder_contents.h"
#include "ple/formats/json_field.h"
#include "ple/formats/tensor_info.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// One mapped file. Opening it reads and checks the header; a tensor's bytes are read only when used.
class SafetensorsFile {
 public:
  /// Errors: ErrorCode::file; malformed for everything that the format forbids: ranges outside the file, overlaps,
  /// gaps, sizes that disagree with shape and dtype; limit for a header that exceeds `limits`.
  static SafetensorsFile open(const std::filesystem::path& path, const JsonLimits& limits = {}) {
    return SafetensorsFile(path, limits);
  }

  bool contains(const std::string& name) const { return entries_.count(name) > 0; }

  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, entry] : entries_) all.push_back(name);
    return all;
  }

  /// All tensors by name, also those of types that ple does not compute with.
  std::vector<TensorInfo> list() const {
    std::vector<TensorInfo> all;
    for (const auto& [name, entry] : entries_)
      all.push_back({name, entry.dtype, entry.shape, entry.begin, entry.end - entry.begin});
    return all;
  }

  /// The header's "__metadata__": texts by name.
  using Metadata = std::map<std::string, std::string, std::less<>>;
  const Metadata& metadata() const { return metadata_; }

  /// A tensor's type as the file spells it, and whether ple computes with it. Errors: ErrorCode::missing.
  const std::string& dtype(const std::string& name) const { return entry_of(name).dtype; }
  bool computable(const std::string& name) const { return dtype_of(dtype(name)).has_value(); }

  /// A tensor, copied only if its bytes are unaligned. Errors: ErrorCode::missing; dtype for an unsupported type.
  Tensor tensor(const std::string& name) const {
    Tensor tensor = unaligned_tensor(name);
    if (reinterpret_cast<std::uintptr_t>(tensor.data) % alignment_of(tensor.dtype) != 0) {
      auto copy = std::make_shared<AlignedVector<std::byte>>(tensor.bytes);
      std::memcpy(copy->data(), tensor.data, tensor.bytes);
      tensor.data = copy->data();
      tensor.owner = std::move(copy);
    }
    return tensor;
  }

  /// As above, but always in place in the file, even if unaligned values cannot be used there.
  Tensor unaligned_tensor(const std::string& name) const {
    const Entry& entry = entry_of(name);
    const std::optional<Dtype> dtype = dtype_of(entry.dtype);
    if (!dtype)
      fail(ErrorCode::dtype, file_name_, ": ", name, ": dtype is ", entry.dtype, ", expected F32, BF16 or F16");
    return at(name, *dtype, entry);
  }

  /// A tensor's bytes in place in the file, whatever its type: the result's dtype means nothing.
  Tensor raw(const std::string& name) const { return at(name, Dtype::f32, entry_of(name)); }

 private:
  struct Entry {
    std::string dtype;
    std::vector<std::uint64_t> shape;
    std::uint64_t begin = 0, end = 0;  // bytes from the start of the file
  };

  SafetensorsFile(const std::filesystem::path& path, const JsonLimits& limits)
      : file_name_(path.string()), map_(MappedFile::open(path)) {
    const auto bytes = map_->bytes();
    refuse_lfs_pointer(bytes, file_name_);
    std::uint64_t length = 0;
    if (bytes.size() < sizeof length) malformed("", "the file has ", bytes.size(), " bytes, expected at least 8");
    std::memcpy(&length, bytes.data(), sizeof length);
    const std::uint64_t behind = bytes.size() - sizeof length;
    if (length > behind) malformed("", "the header's length is ", length, ", but only ", behind, " bytes follow");
    if (length > longest_header)
      malformed("", "the header's length is ", length, ", expected at most ", longest_header);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + sizeof length,
                                static_cast<std::size_t>(length));
    const Json header = parse_json(text, file_name_, limits);
    if (!header.is_object()) malformed("", "the header is ", header.brief(), ", expected an object");
    for (const Json& value : header.members()) {
      if (value.key() == "__metadata__") {
        read_metadata(value);
      } else {
        std::string name(value.key());
        Entry described = entry(name, value, sizeof length + length, behind - length);
        entries_.emplace(std::move(name), std::move(described));
      }
    }
    check_coverage(sizeof length + length, bytes.size());
  }

  const Entry& entry_of(const std::string& name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) fail(ErrorCode::missing, file_name_, ": ", name, ": no such tensor");
    return found->second;
  }

  Tensor at(const std::string& name, Dtype dtype, const Entry& entry) const {
    return {file_name_,
            name,
            dtype,
            entry.shape,
            map_->bytes().data() + entry.begin,
            static_cast<std::size_t>(entry.end - entry.begin),
            map_,
            map_,
            entry.begin};
  }

  template <class... Parts>
  [[noreturn, gnu::always_inline]] void malformed(const std::string& tensor, const Parts&... parts) const {
    fail(ErrorCode::malformed, file_name_, ": ", tensor, tensor.empty() ? "" : ": ", parts...);
  }

  Entry entry(const std::string& name, const Json& value, std::uint64_t data_begin, std::uint64_t data_size) const {
    if (!value.is_object()) malformed(name, "its entry is ", value.brief(), ", expected an object");
    const auto field = [&](const char* key) -> const Json& {
      const Json* found = value.find(key);
      if (found == nullptr) malformed(name, key, " is missing");
      return *found;
    };
    const auto numbers = [&](const char* key) {
      std::vector<std::uint64_t> list;
      if (!field(key).is_array()) malformed(name, key, " is ", field(key).brief(), ", expected an array");
      for (const Json& number : field(key).items()) {
        if (!number.is_natural()) malformed(name, key, " has ", number.brief(), ", expected whole numbers from 0 on");
        list.push_back(number.natural());
      }
      return list;
    };
    Entry entry;
    const Json& dtype = field("dtype");
    if (!dtype.is_string()) malformed(name, "dtype is ", dtype.brief(), ", expected a string");
    entry.dtype = dtype.text();
    entry.shape = numbers("shape");
    const auto offsets = numbers("data_offsets");
    if (offsets.size() != 2) malformed(name, "data_offsets has ", offsets.size(), " numbers, expected 2");
    if (offsets[0] > offsets[1])
      malformed(name, "data_offsets begin at ", offsets[0], ", behind their end at ", offsets[1]);
    if (offsets[1] > data_size) {
      malformed(name, "its data end at byte ", offsets[1], " of the data section, but the file has ", data_size,
                ": is it truncated?");
    }
    if (const auto size = bytes_per_value(entry.dtype)) {
      const auto values = checked_product(entry.shape);
      const auto expected = values ? checked_product({*values, *size}) : std::nullopt;
      if (!expected)
        malformed(name, "shape ", shape_text(entry.shape), " of ", entry.dtype, " takes 2^64 bytes or more");
      if (offsets[1] - offsets[0] != *expected) {
        malformed(name, "has ", offsets[1] - offsets[0], " bytes, but shape ", shape_text(entry.shape), " of ",
                  entry.dtype, " takes ", *expected);
      }
    }
    entry.begin = data_begin + offsets[0];
    entry.end = data_begin + offsets[1];
    return entry;
  }

  void read_metadata(const Json& value) {
    if (!value.is_object()) malformed("__metadata__", "is ", value.brief(), ", expected an object");
    for (const Json& text : value.members()) {
      if (!text.is_string()) malformed("__metadata__", text.key(), " is ", text.brief(), ", expected a string");
      metadata_.emplace(std::string(text.key()), std::string(text.text()));
    }
  }

  /// The format requires every byte of the data to belong to exactly one tensor.
  void check_coverage(std::uint64_t begin, std::uint64_t end) const {
    std::vector<const std::pair<const std::string, Entry>*> order;
    for (const auto& item : entries_) order.push_back(&item);
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
      return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
    });
    std::uint64_t at = begin;
    for (const auto* item : order) {
      const auto& [name, entry] = *item;
      if (entry.begin < at)
        malformed(name, "its data begin at byte ", entry.begin, " of the file, inside another tensor's, which end at ",
                  at);
      if (entry.begin > at)
        malformed(name, "its data begin at byte ", entry.begin, " of the file, expected ", at,
                  ": no tensor owns the bytes between");
      at = entry.end;
    }
    if (at != end) malformed("", "the tensors' data end at byte ", at, ", but the file has ", end);
  }

  /// Nothing for an unknown type: such a tensor is an error only for whoever asks for it.
  static std::optional<std::uint64_t> bytes_per_value(std::string_view dtype) {
    for (const auto& [name, bytes] : {std::pair<std::string_view, std::uint64_t>{"BOOL", 1},
                                      {"U8", 1},
                                      {"I8", 1},
                                      {"F8_E4M3", 1},
                                      {"F8_E5M2", 1},
                                      {"F8_E8M0", 1},
                                      {"U16", 2},
                                      {"I16", 2},
                                      {"F16", 2},
                                      {"BF16", 2},
                                      {"U32", 4},
                                      {"I32", 4},
                                      {"F32", 4},
                                      {"U64", 8},
                                      {"I64", 8},
                                      {"F64", 8}}) {
      if (name == dtype) return bytes;
    }
    return std::nullopt;
  }

  static std::optional<Dtype> dtype_of(std::string_view dtype) {
    if (dtype == "F32") return Dtype::f32;
    if (dtype == "BF16") return Dtype::bf16;
    if (dtype == "F16") return Dtype::f16;
    return std::nullopt;
  }

  static constexpr std::uint64_t longest_header = 100'000'000;  // as in the format's own reader

  std::string file_name_;
  std::shared_ptr<const MappedFile> map_;
  std::map<std::string, Entry> entries_;
  Metadata metadata_;
};

}  // namespace ple::inline PLE_ABI
