// SPDX-License-Identifier: Apache-2.0
// A GGUF file's keys, as views into the mapped file. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/number_text.h"

namespace ple::inline PLE_ABI {

/// What a value is; the numbers are the file's.
enum class GgufType : std::uint32_t {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  float32,
  boolean,
  text,
  array,
  uint64,
  int64,
  float64
};

inline constexpr std::uint32_t gguf_type_count = 13;

inline std::string_view name_of(GgufType type) {
  constexpr std::string_view names[gguf_type_count] = {"uint8",  "int8",    "uint16", "int16", "uint32",
                                                       "int32",  "float32", "bool",   "text",  "array",
                                                       "uint64", "int64",   "float64"};
  return names[static_cast<std::size_t>(type)];
}

/// Bytes of a value; of a text or an array the fewest possible.
inline std::uint64_t least_bytes(GgufType type) {
  constexpr std::uint64_t bytes[gguf_type_count] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return bytes[static_cast<std::size_t>(type)];
}

/// A value in place in the file. Its maker has checked that all of it is there.
struct GgufValue {
  GgufType type = GgufType::uint8;
  GgufType element = GgufType::uint8;  ///< of an array
  std::uint64_t count = 1;             ///< of an array's elements
  const std::byte* data = nullptr;     ///< the value, or the array's first element
  std::uint64_t bytes = 0;             ///< from `data` to the value's end

  bool is_array() const { return type == GgufType::array; }
};

/// A file's keys and values. Getters without a default require the key. Errors: ErrorCode::missing; config for a value
/// of another type or out of range; all name file, key and both values.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::string file) : file_(std::move(file)) {}

  /// False if the key is there already.
  bool add(std::string key, const GgufValue& value) { return values_.emplace(std::move(key), value).second; }

  const std::string& file() const { return file_; }
  const std::map<std::string, GgufValue, std::less<>>& all() const { return values_; }

  const GgufValue* find(std::string_view key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
  }
  bool has(std::string_view key) const { return find(key) != nullptr; }

  /// Here and below, the view lives as long as the file is mapped.
  std::string_view text(std::string_view key, std::optional<std::string_view> otherwise = std::nullopt) const {
    const GgufValue* value = find(key);
    if (!value) return required(key, otherwise);
    if (value->type != GgufType::text) wrong(key, *value, "a text");
    return text_at(value->data);
  }

  bool boolean(std::string_view key, std::optional<bool> otherwise = std::nullopt) const {
    const GgufValue* value = find(key);
    if (!value) return required(key, otherwise);
    if (value->type != GgufType::boolean) wrong(key, *value, "true or false");
    return value->data[0] != std::byte{0};
  }

  /// A whole number from 0 to `most`, of any integer type.
  std::size_t count(std::string_view key, std::optional<std::size_t> otherwise = std::nullopt,
                    std::size_t most = std::size_t{1} << 31) const {
    const GgufValue* value = find(key);
    if (!value) return required(key, otherwise);
    const auto number = natural(value->type, value->data);
    if (!number || *number > most) wrong(key, *value, "a whole number from 0 to " + std::to_string(most));
    return static_cast<std::size_t>(*number);
  }

  /// A finite number of any type.
  double number(std::string_view key, std::optional<double> otherwise = std::nullopt) const {
    const GgufValue* value = find(key);
    if (!value) return required(key, otherwise);
    const auto number = real(value->type, value->data);
    if (!number || !std::isfinite(*number)) wrong(key, *value, "a finite number");
    return *number;
  }

  std::vector<std::string_view> texts(std::string_view key) const {
    const GgufValue& value = array(key, "texts", [](GgufType type) { return type == GgufType::text; });
    std::vector<std::string_view> all;
    all.reserve(static_cast<std::size_t>(value.count));
    const std::byte* at = value.data;
    for (std::uint64_t i = 0; i < value.count; ++i) {
      all.push_back(text_at(at));
      at += sizeof(std::uint64_t) + all.back().size();
    }
    return all;
  }

  std::vector<bool> booleans(std::string_view key) const {
    const GgufValue& value = array(key, "true and false", [](GgufType type) { return type == GgufType::boolean; });
    std::vector<bool> all;
    for (std::uint64_t i = 0; i < value.count; ++i) all.push_back(value.data[i] != std::byte{0});
    return all;
  }

  /// Numbers of any type; floats may be infinite or NaN.
  std::vector<double> numbers(std::string_view key) const {
    const GgufValue& value = array(key, "numbers", is_number);
    std::vector<double> all;
    all.reserve(static_cast<std::size_t>(value.count));
    for (std::uint64_t i = 0; i < value.count; ++i)
      all.push_back(*real(value.element, value.data + i * least_bytes(value.element)));
    return all;
  }

  /// Whole numbers from 0 to `most`.
  std::vector<std::size_t> counts(std::string_view key, std::size_t most = std::size_t{1} << 31) const {
    const GgufValue& value = array(key, "whole numbers", is_number);
    std::vector<std::size_t> all;
    all.reserve(static_cast<std::size_t>(value.count));
    for (std::uint64_t i = 0; i < value.count; ++i) {
      const GgufValue entry{value.element, {}, 1, value.data + i * least_bytes(value.element)};
      const auto number = natural(entry.type, entry.data);
      if (!number || *number > most) {
        fail(ErrorCode::config, file_, ": ", key, ": entry ", i, " is ", brief(entry),
             ", expected a whole number from 0 to ", most);
      }
      all.push_back(static_cast<std::size_t>(*number));
    }
    return all;
  }

  /// A whole number for each layer; the file has one for all, or an array.
  std::vector<std::size_t> per_layer(std::string_view key, std::size_t layers,
                                     std::optional<std::size_t> otherwise = std::nullopt) const {
    const GgufValue* value = find(key);
    if (value == nullptr || !value->is_array()) return std::vector<std::size_t>(layers, count(key, otherwise));
    check_length(key, value->count, layers);
    return counts(key);
  }

  void check_length(std::string_view key, std::uint64_t found, std::size_t layers) const {
    if (found == layers) return;
    fail(ErrorCode::config, file_, ": ", key, " has ", found, " entries, expected one for each of the ", layers,
         " layers");
  }

  [[noreturn]] void wrong(std::string_view key, const GgufValue& found, const std::string& expected) const {
    fail(ErrorCode::config, file_, ": ", key, " is ", brief(found), ", expected ", expected);
  }

  /// A value in a few words, for messages: "35 (uint32)", "'gemma4'", "an array of 35 bool".
  static std::string brief(const GgufValue& value) {
    if (value.is_array())
      return "an array of " + std::to_string(value.count) + " " + std::string(name_of(value.element));
    if (value.type == GgufType::boolean) return value.data[0] != std::byte{0} ? "true" : "false";
    if (value.type == GgufType::text) {
      const std::string_view text = text_at(value.data);
      return "'" + std::string(text.substr(0, 60)) + (text.size() > 60 ? "...'" : "'");
    }
    const std::string type = " (" + std::string(name_of(value.type)) + ")";
    if (const auto number = natural(value.type, value.data)) return std::to_string(*number) + type;
    const double number = *real(value.type, value.data);
    return (value.type == GgufType::float32 ? number_text(static_cast<float>(number)) : number_text(number)) + type;
  }

 private:
  static bool is_number(GgufType type) {
    return type != GgufType::boolean && type != GgufType::text && type != GgufType::array;
  }

  template <class T>
  static T load(const std::byte* at) {
    T value{};
    std::memcpy(&value, at, sizeof value);
    return value;
  }

  static std::string_view text_at(const std::byte* at) {
    return {reinterpret_cast<const char*>(at) + sizeof(std::uint64_t),
            static_cast<std::size_t>(load<std::uint64_t>(at))};
  }

  /// Nothing if it is not an integer, or negative.
  static std::optional<std::uint64_t> natural(GgufType type, const std::byte* at) {
    std::int64_t number = -1;
    switch (type) {
      case GgufType::uint64: return load<std::uint64_t>(at);
      case GgufType::uint8: number = load<std::uint8_t>(at); break;
      case GgufType::int8: number = int{load<std::int8_t>(at)}; break;
      case GgufType::uint16: number = load<std::uint16_t>(at); break;
      case GgufType::int16: number = load<std::int16_t>(at); break;
      case GgufType::uint32: number = load<std::uint32_t>(at); break;
      case GgufType::int32: number = load<std::int32_t>(at); break;
      case GgufType::int64: number = load<std::int64_t>(at); break;
      case GgufType::float32:
      case GgufType::float64:
      case GgufType::boolean:
      case GgufType::text:
      case GgufType::array: break;
    }
    return number < 0 ? std::nullopt : std::optional(static_cast<std::uint64_t>(number));
  }

  /// Nothing if it is not a number.
  static std::optional<double> real(GgufType type, const std::byte* at) {
    switch (type) {
      case GgufType::float32: return static_cast<double>(load<float>(at));
      case GgufType::float64: return load<double>(at);
      case GgufType::uint64: return static_cast<double>(load<std::uint64_t>(at));
      case GgufType::int64: return static_cast<double>(load<std::int64_t>(at));
      case GgufType::uint8: return load<std::uint8_t>(at);
      case GgufType::int8: return load<std::int8_t>(at);
      case GgufType::uint16: return load<std::uint16_t>(at);
      case GgufType::int16: return load<std::int16_t>(at);
      case GgufType::uint32: return load<std::uint32_t>(at);
      case GgufType::int32: return load<std::int32_t>(at);
      case GgufType::boolean:
      case GgufType::text:
      case GgufType::array: break;
    }
    return std::nullopt;
  }

  template <class IsRight>
  const GgufValue& array(std::string_view key, const char* what, IsRight is_right) const {
    const GgufValue* value = find(key);
    if (!value) fail(ErrorCode::missing, file_, ": ", key, " is missing");
    if (!value->is_array() || !is_right(value->element)) wrong(key, *value, std::string("an array of ") + what);
    return *value;
  }

  template <class T>
  T required(std::string_view key, const std::optional<T>& otherwise) const {
    if (!otherwise) fail(ErrorCode::missing, file_, ": ", key, " is missing");
    return *otherwise;
  }

  std::string file_;
  std::map<std::string, GgufValue, std::less<>> values_;
};

}  // namespace ple::inline PLE_ABI
