// SPDX-License-Identifier: Apache-2.0
// JSON (RFC 8259) from untrusted files: strict, bounded nesting, errors with a position. Our own, because a general
// library would double the compile time of every program that opens a model. It reads only what configurations need.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json_value.h"
#include "ple/core/number_text.h"

namespace ple::inline PLE_ABI {

/// Receives the contents of a JSON text in order. May move from the strings that it gets.
class JsonHandler {
 public:
  virtual ~JsonHandler() = default;
  virtual void start_object() = 0;
  virtual void key(std::string& name) = 0;
  virtual void end_object() = 0;
  virtual void start_array() = 0;
  virtual void end_array() = 0;
  virtual void string(std::string& text) = 0;
  virtual void scalar(Json value) = 0;  ///< a number, true, false or null
};

/// Reads a JSON text without recursion. Errors: ErrorCode::malformed with `source`, position and what was found;
/// ErrorCode::limit for more than limits.bytes.
class JsonReader {
 public:
  JsonReader(std::string_view text, const std::string& source, JsonHandler& handler, const JsonLimits& limits = {})
      : text_(text), source_(source), handler_(handler), most_bytes_(limits.bytes) {}

  void read() {
    if (text_.size() > most_bytes_) {
      fail(ErrorCode::limit, source_, ": has ", text_.size(), " bytes of JSON, more than JsonLimits::bytes, which is ",
           most_bytes_);
    }
    bool value_expected = true;
    do {
      space();
      if (value_expected) {
        value_expected = value();
      } else {
        value_expected = after_value();
      }
    } while (depth_ > 0 || value_expected);
    space();
    if (at_ != text_.size()) wrong("the end of the text");
  }

  static constexpr std::size_t deepest = 64;  // levels: objects_ has a bit for each

 private:
  [[noreturn, gnu::noinline, gnu::cold]] void wrong(const char* expected) const {
    const std::string_view found = at_ < text_.size() ? text_.substr(at_, 1) : "the end";
    fail(ErrorCode::malformed, source_, ": not valid JSON: found ", found, " at byte ", at_, ", expected ", expected);
  }

  void space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
  }
  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c, const char* name) {
    if (!take(c)) wrong(name);
  }

  void open(bool object) {
    if (depth_ == deepest) fail(ErrorCode::malformed, source_, ": nested deeper than ", deepest, " levels");
    objects_ = objects_ << 1 | std::uint64_t{object};
    ++depth_;
    ++at_;
  }
  bool in_object() const { return objects_ & 1; }

  /// Reads a value, or the start of one. Returns whether another value must follow at once.
  bool value() {
    if (at_ == text_.size()) wrong("a value");
    switch (text_[at_]) {
      case '{':
        open(true);
        handler_.start_object();
        space();
        if (take('}')) return close();
        member_name();
        return true;
      case '[':
        open(false);
        handler_.start_array();
        space();
        if (take(']')) return close();
        return true;
      case '"':
        string();
        handler_.string(buffer_);
        return false;
      case 't': return literal("true", Json(true));
      case 'f': return literal("false", Json(false));
      case 'n': return literal("null", Json());
      default: number(); return false;
    }
  }

  /// After a value in an object or array: takes a comma and, in an object, the next name; or the closing bracket.
  bool after_value() {
    const bool object = in_object();
    if (take(',')) {
      space();
      if (object) member_name();
      return true;
    }
    expect(object ? '}' : ']', object ? "',' or '}'" : "',' or ']'");
    return close();
  }

  bool close() {
    const bool object = in_object();
    objects_ >>= 1;
    --depth_;
    if (object) {
      handler_.end_object();
    } else {
      handler_.end_array();
    }
    return false;
  }

  void member_name() {
    if (at_ == text_.size() || text_[at_] != '"') wrong("a name in quotes");
    string();
    handler_.key(buffer_);
    space();
    expect(':', "':'");
  }

  bool literal(std::string_view word, Json value) {
    if (text_.substr(at_, word.size()) != word) wrong("a value");
    at_ += word.size();
    handler_.scalar(std::move(value));
    return false;
  }

  void digits() {
    if (at_ == text_.size() || text_[at_] < '0' || text_[at_] > '9') wrong("a digit");
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
  }

  void number() {
    const std::size_t begin = at_;
    const bool negative = take('-');
    if (at_ < text_.size() && text_[at_] != '-' && (text_[at_] < '0' || text_[at_] > '9'))
      wrong(negative ? "a digit" : "a value");
    if (!take('0')) digits();
    bool whole = true;
    if (take('.')) {
      digits();
      whole = false;
    }
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      digits();
      whole = false;
    }
    const char *first = text_.data() + begin, *last = text_.data() + at_;
    std::uint64_t natural = 0;
    std::int64_t integer = 0;
    if (whole && !negative && std::from_chars(first, last, natural).ec == std::errc())
      return handler_.scalar(Json(natural));
    if (whole && negative && std::from_chars(first, last, integer).ec == std::errc())
      return handler_.scalar(Json(integer));
    handler_.scalar(Json(parse_number<double>({first, last}).value_or(0)));  // the grammar above ensures a number
  }

  void string() {
    buffer_.clear();
    ++at_;
    while (true) {
      const std::size_t begin = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
             static_cast<unsigned char>(text_[at_]) >= 0x20)
        ++at_;
      buffer_.append(text_, begin, at_ - begin);
      if (at_ == text_.size()) wrong("the end of a string");
      if (text_[at_] == '"') break;
      if (text_[at_] != '\\') wrong("an escape instead of a control character in a string");
      ++at_;
      escape();
    }
    ++at_;
  }

  void escape() {
    constexpr std::string_view names = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
    if (take('u')) return unicode();
    const std::size_t i = at_ < text_.size() ? names.find(text_[at_]) : std::string_view::npos;
    if (i == std::string_view::npos) wrong("an escape");
    buffer_ += meanings[i];
    ++at_;
  }

  std::uint32_t four_hex_digits() {
    std::uint32_t code = 0;
    const char *first = text_.data() + at_, *last = first + std::min<std::size_t>(4, text_.size() - at_);
    if (std::from_chars(first, last, code, 16).ptr != first + 4) wrong("four hexadecimal digits");
    at_ += 4;
    return code;
  }

  void unicode() {
    std::uint32_t code = four_hex_digits();
    if (code >= 0xd800 && code < 0xdc00) {
      const bool pair = take('\\') && take('u');
      const std::uint32_t low = pair ? four_hex_digits() : 0;
      if (low < 0xdc00 || low > 0xdfff) wrong("the second half of a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xdc00 && code < 0xe000) {
      wrong("a surrogate pair instead of a lone surrogate");
    }
    const auto put = [&](std::uint32_t byte) { buffer_ += static_cast<char>(byte); };
    if (code < 0x80) return put(code);
    if (code < 0x800) {
      put(0xc0 | code >> 6);
    } else {
      if (code < 0x10000) {
        put(0xe0 | code >> 12);
      } else {
        put(0xf0 | code >> 18);
        put(0x80 | (code >> 12 & 0x3f));
      }
      put(0x80 | (code >> 6 & 0x3f));
    }
    put(0x80 | (code & 0x3f));
  }

  std::string_view text_;
  const std::string& source_;
  JsonHandler& handler_;
  std::uint64_t most_bytes_;
  std::size_t at_ = 0;
  std::size_t depth_ = 0;
  std::uint64_t objects_ = 0;  // a bit per open level, the innermost lowest: 1 for an object, 0 for an array
  std::string buffer_;
};

/// Builds a Json. Errors: ErrorCode::malformed for a key twice in an object; ErrorCode::limit above limits.nodes.
class JsonBuilder final : public JsonHandler {
 public:
  explicit JsonBuilder(const std::string& source, const JsonLimits& limits = {})
      : source_(source), most_nodes_(limits.nodes) {}
  Json take() { return std::move(root_); }

  void start_object() override { open(Json::object()); }
  void key(std::string& name) override { key_.swap(name); }
  void end_object() override {
    std::vector<std::string_view> names;
    for (const Json& member : innermost().members()) names.push_back(member.key());
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) fail(ErrorCode::malformed, source_, ": '", *twice, "' appears twice in one object");
    --depth_;
  }
  void start_array() override { open(Json::array()); }
  void end_array() override { --depth_; }
  void string(std::string& text) override { place(Json(std::move(text))); }
  void scalar(Json value) override { place(std::move(value)); }

 private:
  Json& innermost() { return *open_[depth_ - 1]; }

  Json& place(Json value) {  // pointers into the tree stay valid: only the innermost open container grows
    if (nodes_++ == most_nodes_)
      fail(ErrorCode::limit, source_, ": has more JSON values than JsonLimits::nodes, which is ", most_nodes_);
    if (depth_ == 0) return root_ = std::move(value);
    return innermost().is_array() ? innermost().push_back(std::move(value))
                                  : innermost().add(std::move(key_), std::move(value));
  }
  void open(Json container) {
    Json& placed = place(std::move(container));
    open_.at(depth_++) = &placed;
  }

  const std::string& source_;
  std::uint64_t most_nodes_, nodes_ = 0;
  Json root_;
  std::array<Json*, JsonReader::deepest> open_ = {};
  std::size_t depth_ = 0;
  std::string key_;
};

/// Errors: ErrorCode::malformed for invalid JSON, nesting deeper than 64 or a key twice in an object; ErrorCode::limit.
inline Json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits = {}) {
  JsonBuilder builder(source, limits);
  JsonReader(text, source, builder, limits).read();
  return builder.take();
}

}  // namespace ple::inline PLE_ABI
