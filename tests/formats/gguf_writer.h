// SPDX-License-Identifier: Apache-2.0
// Writes small GGUF files, right and wrong ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ple::testing {

/// The bytes of a value as they lie in memory.
template <class T>
std::string raw(const T& value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

/// A text as GGUF writes it: length, then bytes.
inline std::string gguf_text(const std::string& text) { return raw<std::uint64_t>(text.size()) + text; }

class GgufWriter {
 public:
  /// A tensor's description; what is set here is what the file says, true or not.
  struct Entry {
    std::string name;
    std::vector<std::uint64_t> dimensions;  // as in the file: the fastest first
    std::uint32_t type = 0;
    std::string data;
    std::optional<std::uint64_t> offset = {};  // nothing: where the data are put
  };

  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;  // the file says so too if it is not 32
  std::vector<std::string> keys;
  std::vector<Entry> tensors;
  std::optional<std::uint64_t> key_count = {}, tensor_count = {};  // nothing: the true ones

  // The numbers of the format's value types.
  enum Type : std::uint32_t { u8, i8, u16, i16, u32, i32, float32, boolean, text_type, array_type, u64, i64, float64 };

  GgufWriter& add(const std::string& key, std::uint32_t type, const std::string& value) {
    keys.push_back(gguf_text(key) + raw(type) + value);
    return *this;
  }
  GgufWriter& text(const std::string& key, const std::string& value) { return add(key, text_type, gguf_text(value)); }
  GgufWriter& count(const std::string& key, std::size_t value) {
    return add(key, u32, raw(static_cast<std::uint32_t>(value)));
  }
  GgufWriter& number(const std::string& key, double value) { return add(key, float32, raw(static_cast<float>(value))); }
  GgufWriter& flag(const std::string& key, bool value) { return add(key, boolean, raw(value)); }
  GgufWriter& array(const std::string& key, std::uint32_t type, std::uint64_t count, const std::string& elements) {
    return add(key, array_type, raw(type) + raw(count) + elements);
  }
  GgufWriter& texts(const std::string& key, const std::vector<std::string>& values) {
    std::string all;
    for (const std::string& value : values) all += gguf_text(value);
    return array(key, text_type, values.size(), all);
  }
  template <class T>
  GgufWriter& numbers(const std::string& key, std::uint32_t type, const std::vector<T>& values) {
    std::string all;
    for (const T value : values) all += raw(value);
    return array(key, type, values.size(), all);
  }

  GgufWriter& remove(const std::string& key) {
    std::erase_if(keys, [&](const std::string& entry) { return entry.starts_with(gguf_text(key)); });
    return *this;
  }

  /// `shape` row-major, as ple has it.
  GgufWriter& tensor(const std::string& name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                     std::string data) {
    tensors.push_back({name, {shape.rbegin(), shape.rend()}, type, std::move(data)});
    return *this;
  }

  std::string bytes() const {
    std::vector<std::string> all = keys;
    if (alignment != 32)
      all.push_back(gguf_text("general.alignment") + raw(std::uint32_t{u32}) +
                    raw(static_cast<std::uint32_t>(alignment)));
    std::string file = magic + raw(version) + raw<std::uint64_t>(tensor_count.value_or(tensors.size())) +
                       raw<std::uint64_t>(key_count.value_or(all.size()));
    for (const std::string& key : all) file += key;
    std::string data;
    for (const Entry& tensor : tensors) {
      file += gguf_text(tensor.name) + raw(static_cast<std::uint32_t>(tensor.dimensions.size()));
      for (const std::uint64_t n : tensor.dimensions) file += raw(n);
      file += raw(tensor.type) + raw<std::uint64_t>(tensor.offset.value_or(data.size()));
      data += tensor.data;
      pad(data);
    }
    if (!tensors.empty()) pad(file);
    return file + data;
  }

  void write(const std::filesystem::path& path) const { std::ofstream(path, std::ios::binary) << bytes(); }

 private:
  void pad(std::string& text) const {
    const std::size_t to = alignment == 0 ? 1 : static_cast<std::size_t>(alignment);
    text.append((to - text.size() % to) % to, '\0');
  }
};

}  // namespace ple::testing
