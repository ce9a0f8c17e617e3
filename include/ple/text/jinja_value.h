// SPDX-License-Identifier: Apache-2.0
// Jinja values, and the limit on the work of computing them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json.h"
#include "ple/text/jinja_parser.h"

namespace ple::inline PLE_ABI {
namespace detail {

struct JinjaItems;

/// A value as in Python. The heap owns text and items, so that a value is a few words.
struct JinjaValue {
  enum class Kind : std::uint8_t { undefined, none, boolean, integer, string, list, mapping, record, macro, function };
  Kind kind = Kind::undefined;
  std::int64_t number = 0;      // an integer, or a boolean's 0 or 1
  std::string_view text;        // a string; the name of a function, or of what is undefined
  JinjaItems* items = nullptr;  // of a list, a mapping, or a record: a namespace, or `loop`
  const JinjaNode* macro = nullptr;

  bool is(Kind k) const { return kind == k; }
  bool is_number() const { return kind == Kind::integer || kind == Kind::boolean; }
  bool is_true() const;

  static JinjaValue none() { return {Kind::none, 0, {}, nullptr, nullptr}; }
  static JinjaValue boolean(bool value) { return {Kind::boolean, value, {}, nullptr, nullptr}; }
  static JinjaValue integer(std::int64_t value) { return {Kind::integer, value, {}, nullptr, nullptr}; }
  static JinjaValue string(std::string_view text) { return {Kind::string, 0, text, nullptr, nullptr}; }
  static JinjaValue undefined(std::string_view name) { return {Kind::undefined, 0, name, nullptr, nullptr}; }
  static JinjaValue function(std::string_view name) { return {Kind::function, 0, name, nullptr, nullptr}; }
  static JinjaValue of(Kind kind, JinjaItems& items) { return {kind, 0, {}, &items, nullptr}; }
};

struct JinjaItems {
  std::vector<JinjaValue> values;
  std::vector<std::string_view> keys;  // one for each value; none in a list

  const JinjaValue* find(std::string_view key) const {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (keys[i] == key) return &values[i];
    }
    return nullptr;
  }
  void put(std::string_view key, const JinjaValue& value) {
    if (const JinjaValue* old = find(key)) {
      values[static_cast<std::size_t>(old - values.data())] = value;
    } else {
      keys.push_back(key);
      values.push_back(value);
    }
  }
};

inline bool JinjaValue::is_true() const {
  switch (kind) {
    case Kind::undefined:
    case Kind::none: return false;
    case Kind::boolean:
    case Kind::integer: return number != 0;
    case Kind::string: return !text.empty();
    case Kind::list:
    case Kind::mapping: return !items->values.empty();
    case Kind::record:
    case Kind::macro:
    case Kind::function: break;
  }
  return true;
}

/// The arguments of a call, positional and keyword.
struct JinjaArguments {
  std::vector<JinjaValue> values;
  std::vector<std::string_view> keywords;  // one for each value; empty if positional

  /// The positional argument at `place`, or the one named `keyword`.
  const JinjaValue* find(std::size_t place, std::string_view keyword) const {
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (keywords[i].empty() ? i == place : keywords[i] == keyword) return &values[i];
    }
    return nullptr;
  }
};

/// Owns what a rendering makes, and counts its cost: every step and every byte.
class JinjaHeap {
 public:
  explicit JinjaHeap(const JinjaSource& source) : source_(source) {}
  JinjaHeap(const JinjaHeap&) = delete;
  JinjaHeap& operator=(const JinjaHeap&) = delete;

  /// Byte offset in the source of the current work, for messages.
  std::size_t at = 0;

  [[noreturn]] void wrong(std::string_view what) const { source_.wrong(ErrorCode::malformed, at, what); }
  [[noreturn]] void not_supported(std::string_view what) const {
    source_.wrong(ErrorCode::not_supported, at, std::string(what) + " is not supported");
  }

  void charge(std::size_t cost) {
    if (cost > left_) source_.wrong(ErrorCode::limit, at, "takes more work than a chat template should");
    left_ -= cost;
  }

  std::string_view keep(std::string text) {
    charge(text.size());
    return made().text = std::move(text);
  }
  JinjaValue string(std::string text) { return JinjaValue::string(keep(std::move(text))); }

  JinjaItems& items() { return made().items; }
  void push(JinjaItems& items, const JinjaValue& value) {
    charge(sizeof(JinjaValue));
    items.values.push_back(value);
  }
  void put(JinjaItems& items, std::string_view key, const JinjaValue& value) {
    charge(sizeof(JinjaValue) + items.keys.size());
    items.put(key, value);
  }

  JinjaValue from_json(const Json& json) {
    if (json.is_null()) return JinjaValue::none();
    if (json.is_boolean()) return JinjaValue::boolean(json.boolean());
    if (json.is_string()) return string(std::string(json.text()));
    if (json.is_number()) {
      if (json.is_real() || !(json.number() > -largest && json.number() < largest)) not_supported("this number");
      return JinjaValue::integer(static_cast<std::int64_t>(json.number()));
    }
    JinjaItems& all = items();
    for (const Json& item : json.items()) {
      push(all, from_json(item));
      if (json.is_object()) all.keys.push_back(keep(std::string(item.key())));
    }
    return JinjaValue::of(json.is_object() ? JinjaValue::Kind::mapping : JinjaValue::Kind::list, all);
  }

  /// A value as it is printed.
  std::string_view text_of(const JinjaValue& value) {
    switch (value.kind) {
      case JinjaValue::Kind::undefined: return {};
      case JinjaValue::Kind::none: return "None";
      case JinjaValue::Kind::boolean: return value.number != 0 ? "True" : "False";
      case JinjaValue::Kind::integer: return keep(std::to_string(value.number));
      case JinjaValue::Kind::string: return value.text;
      default: not_supported("printing a value that is neither a string nor a number");
    }
  }

  static constexpr std::size_t step = 32;
  static constexpr double largest = 1LL << 31;  // bound of integers, so that no result of two overflows

 private:
  /// Text or items: one type for both compiles faster.
  struct Made {
    std::string text;
    JinjaItems items;
  };

  Made& made() {
    charge(sizeof(Made) + step);
    made_.push_back(std::make_unique<Made>());
    return *made_.back();
  }

  const JinjaSource& source_;
  std::size_t left_ = std::size_t{8} << 20;
  std::vector<std::unique_ptr<Made>> made_;
};

/// Compares strings, numbers, lists and mappings by value, anything else by identity.
inline bool jinja_equal(JinjaHeap& heap, const JinjaValue& a, const JinjaValue& b, std::size_t level = 0) {
  using Kind = JinjaValue::Kind;
  heap.charge(JinjaHeap::step);
  if (level > JinjaParser::deepest) heap.not_supported("comparing values nested this deep");
  if (a.is_number() && b.is_number()) return a.number == b.number;
  if (a.kind != b.kind) return false;
  if (a.is(Kind::string)) return heap.charge(a.text.size()), a.text == b.text;
  if (a.is(Kind::undefined) || a.is(Kind::none)) return true;
  if (!a.is(Kind::list) && !a.is(Kind::mapping)) return a.items == b.items && a.macro == b.macro && a.text == b.text;
  if (a.items->values.size() != b.items->values.size()) return false;
  for (std::size_t i = 0; i < a.items->values.size(); ++i) {
    const JinjaValue* other = &b.items->values[i];
    if (a.is(Kind::mapping)) {
      heap.charge(b.items->keys.size());
      other = b.items->find(a.items->keys[i]);
    }
    if (other == nullptr || !jinja_equal(heap, a.items->values[i], *other, level + 1)) return false;
  }
  return true;
}

}  // namespace detail
}  // namespace ple::inline PLE_ABI
