// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/formats/gguf_metadata.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// Reads a GGUF header front to back, never past the file. Errors: ErrorCode::malformed with file, item and both sizes.
class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), file_(file) {}

  const std::string& file() const { return file_; }
  std::uint64_t position() const { return position_; }
  std::uint64_t left() const { return bytes_.size() - position_; }

  template <class T>
  T number(std::string_view what) {
    T value{};
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    return value;
  }

  std::string_view text(std::string_view what) {
    const auto size = number<std::uint64_t>(what);
    return {reinterpret_cast<const char*>(take(size, what)), static_cast<std::size_t>(size)};
  }

  /// A count of items that take at least `least` bytes each.
  std::uint64_t count(std::string_view what, std::uint64_t least) {
    const auto n = number<std::uint64_t>(what);
    if (n > left() / least) {
      malformed(what, "the count is ", n, ", but only ", left(), " bytes follow, enough for ", left() / least);
    }
    return n;
  }

  /// Skips a value of the type and says where it lies.
  GgufValue value(GgufType type, std::string_view key, int depth = 0) {
    GgufValue value{type, type, 1, bytes_.data() + position_};
    switch (type) {
      case GgufType::text: text(key); break;
      case GgufType::boolean: booleans(1, key); break;
      case GgufType::array: {
        if (depth == deepest) malformed(key, "arrays are nested deeper than ", deepest);
        value.element = this->type(key);
        value.count = count(key, least_bytes(value.element));
        value.data = bytes_.data() + position_;
        if (value.element == GgufType::boolean) {
          booleans(value.count, key);
        } else if (value.element == GgufType::text) {
          for (std::uint64_t i = 0; i < value.count; ++i) text(key);
        } else if (value.element == GgufType::array) {
          for (std::uint64_t i = 0; i < value.count; ++i) this->value(GgufType::array, key, depth + 1);
        } else {
          take(value.count * least_bytes(value.element), key);
        }
        break;
      }
      default: take(least_bytes(type), key);
    }
    value.bytes = static_cast<std::uint64_t>(bytes_.data() + position_ - value.data);
    return value;
  }

  GgufType type(std::string_view key) {
    const auto id = number<std::uint32_t>(key);
    if (id >= gguf_type_count) malformed(key, "the type of its value is ", id, ", expected 0 to ", gguf_type_count - 1);
    return static_cast<GgufType>(id);
  }

  template <class... Parts>
  [[noreturn, gnu::always_inline]] void malformed(std::string_view what, const Parts&... parts) const {
    fail(ErrorCode::malformed, file_, ": ", what, ": ", parts...);
  }

 private:
  static constexpr int deepest = 4;

  const std::byte* take(std::uint64_t size, std::string_view what) {
    if (size > left()) {
      malformed(what, "takes ", size, " bytes from byte ", position_, " on, but the file has ", bytes_.size(),
                ": is it truncated?");
    }
    const std::byte* at = bytes_.data() + position_;
    position_ += size;
    return at;
  }

  void booleans(std::uint64_t count, std::string_view key) {
    const std::byte* at = take(count, key);
    for (std::uint64_t i = 0; i < count; ++i) {
      if (at[i] > std::byte{1}) malformed(key, "a bool is ", std::to_integer<unsigned>(at[i]), ", expected 0 or 1");
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& file_;
  std::uint64_t position_ = 0;
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
