// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/number_text.h"

namespace ple::inline PLE_ABI {

/// How much JSON a file may hold. More is ErrorCode::limit, before memory is taken for it.
struct JsonLimits {
  /// Bytes of a text. The largest published tokenizer.json, Gemma's, has 33 MB: 262,144 pieces, half a million merges.
  std::uint64_t bytes = std::uint64_t{64} << 20;
  /// Values kept from a text, nested ones included. A tensor in a safetensors header takes about 8.
  std::uint64_t nodes = std::uint64_t{1} << 20;
};

/// A JSON value. Object members have keys and the file's order. A number takes 24 bytes; text, key or items 100 more.
class Json {
 public:
  enum class Type : std::uint8_t { null, boolean, integer, natural, real, string, array, object };

  Json() = default;
  explicit Json(bool value) : type_(Type::boolean), bits_(value) {}
  explicit Json(std::int64_t value) : type_(Type::integer), bits_(std::bit_cast<std::uint64_t>(value)) {}
  explicit Json(std::uint64_t value) : type_(Type::natural), bits_(value) {}
  explicit Json(double value) : type_(Type::real), bits_(std::bit_cast<std::uint64_t>(value)) {}
  explicit Json(std::string value) : type_(Type::string) {
    if (!value.empty()) body().text = std::move(value);
  }
  static Json array() { return Json(Type::array); }
  static Json object() { return Json(Type::object); }

  Json(const Json& other)
      : type_(other.type_), bits_(other.bits_), body_(other.body_ ? std::make_unique<Body>(*other.body_) : nullptr) {}
  Json(Json&&) = default;
  Json& operator=(const Json& other) { return *this = Json(other); }
  Json& operator=(Json&&) = default;
  ~Json() = default;

  bool is_null() const { return type_ == Type::null; }
  bool is_boolean() const { return type_ == Type::boolean; }
  bool is_natural() const { return type_ == Type::natural; }  ///< a whole number from 0 to 2^64 - 1, written as such
  bool is_real() const { return type_ == Type::real; }        ///< written with a fraction or an exponent, or too large
  bool is_number() const { return type_ == Type::integer || type_ == Type::natural || type_ == Type::real; }
  bool is_string() const { return type_ == Type::string; }
  bool is_array() const { return type_ == Type::array; }
  bool is_object() const { return type_ == Type::object; }

  // The value; its type must have been checked.
  bool boolean() const { return bits_ != 0; }
  std::uint64_t natural() const { return bits_; }
  double number() const {
    return type_ == Type::real      ? std::bit_cast<double>(bits_)
           : type_ == Type::natural ? static_cast<double>(bits_)
                                    : static_cast<double>(std::bit_cast<std::int64_t>(bits_));
  }
  // Empty for other types.
  std::string_view text() const { return body_ ? std::string_view(body_->text) : std::string_view(); }
  std::span<const Json> items() const { return body_ ? std::span<const Json>(body_->items) : std::span<const Json>(); }
  std::span<const Json> members() const { return items(); }

  /// A whole number >= 0, however written (10.0, 1e1). Nothing for others, and for reals >= 2^53, which may be rounded.
  std::optional<std::uint64_t> whole() const {
    if (is_natural()) return natural();
    constexpr double exact = 9007199254740992;  // 2^53
    if (!is_real() || !(number() >= 0 && number() < exact)) return std::nullopt;
    const auto whole = static_cast<std::uint64_t>(number());
    return static_cast<double>(whole) == number() ? std::optional(whole) : std::nullopt;
  }

  /// The key in the object that this is a member of; empty elsewhere.
  std::string_view key() const { return body_ ? std::string_view(body_->key) : std::string_view(); }

  /// The member called `key`, or null.
  const Json* find(std::string_view key) const {
    if (!is_object()) return nullptr;
    for (const Json& member : members()) {
      if (member.key() == key) return &member;
    }
    return nullptr;
  }

  Json& push_back(Json value) { return body().items.emplace_back(std::move(value)); }
  Json& add(std::string key, Json value) {
    value.body().key = std::move(key);
    return push_back(std::move(value));
  }

  /// For messages: a scalar as JSON, strings cut to 60 bytes; "an array" or "an object" for the others.
  std::string brief() const {
    switch (type_) {
      case Type::null: return "null";
      case Type::boolean: return boolean() ? "true" : "false";
      case Type::integer: return std::to_string(std::bit_cast<std::int64_t>(bits_));
      case Type::natural: return std::to_string(natural());
      case Type::real: return real_text(number());
      case Type::string:
        return std::string(1, '"').append(text().substr(0, 60)).append(text().size() > 60 ? "...\"" : "\"");
      case Type::array: return "an array";
      case Type::object: return "an object";
    }
    return "";
  }
  std::string_view type_name() const {
    constexpr std::string_view names[] = {"null", "boolean", "number", "number", "number", "string", "array", "object"};
    return names[static_cast<std::size_t>(type_)];
  }

 private:
  struct Body {
    std::string key, text;
    std::vector<Json> items;
  };

  explicit Json(Type type) : type_(type) {}

  Body& body() {
    if (!body_) body_ = std::make_unique<Body>();
    return *body_;
  }

  Type type_ = Type::null;
  std::uint64_t bits_ = 0;      // of a boolean or a number
  std::unique_ptr<Body> body_;  // null for a scalar without a key, and for what is empty
};

}  // namespace ple::inline PLE_ABI
