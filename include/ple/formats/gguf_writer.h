// SPDX-License-Identifier: Apache-2.0
// Writes GGUF 3: keys, tensor infos, tensor bytes. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ple/core/checked_writer.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/dtype/dtype.h"
#include "ple/formats/ggml_type.h"
#include "ple/formats/gguf_metadata.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// A new file's keys and values, as bytes. Errors: ErrorCode::argument for a repeated key or a count above 2^32 - 1.
class GgufKeys {
 public:
  GgufKeys& text(std::string_view key, std::string_view value) {
    start(key, GgufType::text);
    put_text(value);
    return *this;
  }
  GgufKeys& count(std::string_view key, std::uint64_t value) {
    constexpr std::uint32_t most = (std::numeric_limits<std::uint32_t>::max)();
    if (value > most) fail(ErrorCode::argument, "GGUF: ", key, " is ", value, ", expected at most ", most);
    return one(key, static_cast<std::uint32_t>(value));
  }
  GgufKeys& number(std::string_view key, double value) { return one(key, static_cast<float>(value)); }
  GgufKeys& flag(std::string_view key, bool value) { return one(key, value); }

  GgufKeys& texts(std::string_view key, std::span<const std::string_view> values) {
    start_array(key, GgufType::text, values.size());
    for (const std::string_view value : values) put_text(value);
    return *this;
  }
  GgufKeys& integers(std::string_view key, std::span<const std::int32_t> values) { return many(key, values); }
  GgufKeys& numbers(std::string_view key, std::span<const float> values) { return many(key, values); }
  GgufKeys& flags(std::string_view key, const std::vector<bool>& values) {
    start_array(key, GgufType::boolean, values.size());
    for (const bool value : values) put(value);
    return *this;
  }

  /// A key of another file, as it is there.
  GgufKeys& copy(std::string_view key, const GgufValue& value) {
    start(key, value.type);
    if (value.is_array()) {
      put(static_cast<std::uint32_t>(value.element));
      put(value.count);
    }
    bytes_.append(reinterpret_cast<const char*>(value.data), static_cast<std::size_t>(value.bytes));
    return *this;
  }

  GgufKeys& add(const GgufKeys& other) {
    for (const std::string& name : other.names_) expect_new(name);
    names_.insert(other.names_.begin(), other.names_.end());
    bytes_ += other.bytes_;
    return *this;
  }

  bool has(std::string_view key) const { return names_.contains(key); }
  std::size_t size() const { return names_.size(); }
  const std::string& bytes() const { return bytes_; }

 private:
  template <class T>
  static constexpr GgufType type_of() {
    if constexpr (std::is_same_v<T, bool>) return GgufType::boolean;
    if constexpr (std::is_same_v<T, float>) return GgufType::float32;
    if constexpr (std::is_same_v<T, std::uint32_t>) return GgufType::uint32;
    if constexpr (std::is_same_v<T, std::int32_t>) return GgufType::int32;
  }

  template <class T>
  void put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put_text(std::string_view text) {
    put(std::uint64_t{text.size()});
    bytes_ += text;
  }
  void expect_new(std::string_view key) const {
    if (has(key)) fail(ErrorCode::argument, "GGUF: the key ", key, " is given twice");
  }
  void start(std::string_view key, GgufType type) {
    expect_new(key);
    names_.emplace(key);
    put_text(key);
    put(static_cast<std::uint32_t>(type));
  }
  void start_array(std::string_view key, GgufType element, std::uint64_t count) {
    start(key, GgufType::array);
    put(static_cast<std::uint32_t>(element));
    put(count);
  }
  template <class T>
  GgufKeys& one(std::string_view key, T value) {
    start(key, type_of<T>());
    put(value);
    return *this;
  }
  template <class T>
  GgufKeys& many(std::string_view key, std::span<const T> values) {
    start_array(key, type_of<T>(), values.size());
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
    return *this;
  }

  std::set<std::string, std::less<>> names_;
  std::string bytes_;
};

/// A tensor of a new file.
struct GgufTensor {
  std::string name;
  std::vector<std::uint64_t> shape;  ///< row-major: a matrix is [rows, columns]; rows are whole blocks
  Dtype dtype = Dtype::f32;

  std::uint64_t bytes() const {
    std::uint64_t count = 1;
    for (const std::uint64_t n : shape) count *= n;
    return bytes_of(dtype, count);
  }
};

/// Writes a file whose tensors are known beforehand and whose values come in their order. Nothing has the file's name
/// before finish(): see CheckedWriter, whose errors all functions have.
class GgufFileWriter {
 public:
  /// `inputs`: files that must not be overwritten.
  GgufFileWriter(const std::filesystem::path& path, const GgufKeys& keys, std::vector<GgufTensor> tensors,
                 std::span<const FileIdentity> inputs = {})
      : tensors_(std::move(tensors)), out_(path, inputs) {
    std::string header = "GGUF";
    const auto put = [&](auto value) { header.append(reinterpret_cast<const char*>(&value), sizeof value); };
    put(std::uint32_t{3});
    put(std::uint64_t{tensors_.size()});
    put(std::uint64_t{keys.size()});
    header += keys.bytes();
    std::uint64_t offset = 0;
    for (const GgufTensor& tensor : tensors_) {
      put(std::uint64_t{tensor.name.size()});
      header += tensor.name;
      put(static_cast<std::uint32_t>(tensor.shape.size()));
      for (std::size_t i = tensor.shape.size(); i-- > 0;) put(tensor.shape[i]);
      put(ggml_type(tensor.dtype).id);
      put(offset);
      offset += padded(tensor.bytes());
    }
    out_.write(header.data(), header.size());
    pad();
  }

  /// The next bytes of the first incomplete tensor, none beyond it. Errors: ErrorCode::argument for more than that.
  void write(std::span<const std::byte> bytes) {
    const std::uint64_t size = current_ < tensors_.size() ? tensors_[current_].bytes() : 0;
    if (bytes.size() > size - written_) {
      fail(ErrorCode::argument, "GGUF: ", bytes.size(), " bytes for ",
           current_ < tensors_.size() ? tensors_[current_].name : "no tensor", ", which has ", size - written_,
           " left");
    }
    out_.write(bytes.data(), bytes.size());
    written_ += bytes.size();
    if (written_ < size) return;
    pad();
    written_ = 0;
    ++current_;
  }

  /// See CheckedWriter.
  void report(const WriteProgress& progress, const char* what, std::uint64_t done, std::uint64_t total) const {
    out_.report(progress, what, done, total);
  }

  /// Errors: ErrorCode::argument if a tensor is not complete.
  void finish(const WriteProgress& progress) {
    if (current_ < tensors_.size()) {
      fail(ErrorCode::argument, "GGUF: ", tensors_[current_].name, " has ", written_, " bytes, expected ",
           tensors_[current_].bytes());
    }
    out_.finish(progress);
  }

 private:
  static constexpr std::uint64_t tensor_alignment = 32;  // the format's default

  static std::uint64_t padded(std::uint64_t size) {
    return (size + tensor_alignment - 1) / tensor_alignment * tensor_alignment;
  }
  void pad() {
    constexpr std::byte zeros[tensor_alignment] = {};
    out_.write(zeros, static_cast<std::size_t>(padded(out_.size()) - out_.size()));
  }

  std::vector<GgufTensor> tensors_;
  CheckedWriter out_;
  std::size_t current_ = 0;    // index of the tensor being written
  std::uint64_t written_ = 0;  // bytes of that tensor
};

}  // namespace ple::inline PLE_ABI
