// SPDX-License-Identifier: Apache-2.0
// Jinja tokens, with transformers' trim_blocks and lstrip_blocks but no keep_trailing_newline. Source: jinja2's lexer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/text/utf8.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// What Python's str.isspace() calls whitespace.
inline bool is_python_space(char32_t c) { return is_whitespace(c) || (c >= 0x1C && c <= 0x1F); }

/// Remove at the left or the right end the whitespace that Python's str.strip() removes.
inline std::string_view strip_left(std::string_view text) { return text.substr(space_prefix(text, is_python_space)); }
inline std::string_view strip_right(std::string_view text) {
  return text.substr(0, text.size() - space_suffix(text, is_python_space));
}

/// A template's text, with '\n' for every line break and without the last one, and its name for messages.
struct JinjaSource {
  std::string text, name;

  JinjaSource(std::string_view source, std::string source_name) : name(std::move(source_name)) {
    text.reserve(source.size());
    for (std::size_t i = 0; i < source.size(); ++i) {
      const bool after_return = i > 0 && source[i - 1] == '\r';
      if (source[i] == '\n' && after_return) continue;
      text += source[i] == '\r' ? '\n' : source[i];
    }
    if (text.ends_with('\n')) text.pop_back();
  }

  [[noreturn, gnu::noinline, gnu::cold]] void wrong(ErrorCode code, std::size_t at, std::string_view what) const {
    const auto line = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n') + 1;
    fail(code, name, ": line ", line, ": ", what);
  }
};

struct JinjaToken {
  enum class Kind : std::uint8_t { text, output_begin, tag_begin, end_of_tag, name, string, number, symbol, end };
  Kind kind = Kind::end;
  std::string_view text;  // of a string: without quotes, escapes as written
  std::size_t at = 0;     // byte offset in the source
};

/// Yields the tokens one by one; a copy looks ahead.
class JinjaLexer {
 public:
  explicit JinjaLexer(const JinjaSource& source) : source_(&source), text_(source.text) {}

  JinjaToken next() { return in_tag_ ? inside_tag() : outside_tag(); }

 private:
  using Kind = JinjaToken::Kind;

  char at(std::size_t i) const { return i < text_.size() ? text_[i] : '\0'; }
  bool stands(std::string_view what, std::size_t i) const {
    return text_.substr((std::min)(i, text_.size()), what.size()) == what;
  }
  void skip_space() { at_ += space_prefix(text_.substr(at_), is_python_space); }
  JinjaToken token(Kind kind, std::size_t begin) const { return {kind, text_.substr(begin, at_ - begin), begin}; }
  [[noreturn]] void wrong(std::size_t position, std::string_view what) const {
    source_->wrong(ErrorCode::malformed, position, what);
  }

  /// Text, or the start of a tag. Skips comments.
  JinjaToken outside_tag() {
    while (at_ < text_.size()) {
      const std::size_t begin = at_;
      std::size_t open = text_.find('{', at_);
      while (open != std::string_view::npos && at(open + 1) != '{' && at(open + 1) != '%' && at(open + 1) != '#')
        open = text_.find('{', open + 1);
      at_ = (std::min)(open, text_.size());
      const std::string_view text = before_tag(text_.substr(begin, at_ - begin));
      if (at_ > begin) at_line_start_ = text_[at_ - 1] == '\n';
      if (!text.empty()) return {Kind::text, text, begin};
      if (at_ == text_.size()) break;
      const char type = at(at_ + 1);
      const std::size_t opening = at_;
      at_ += at(at_ + 2) == '-' || at(at_ + 2) == '+' ? 3 : 2;
      if (type != '#') {
        in_tag_ = true;
        is_output_ = type == '{';
        return token(is_output_ ? Kind::output_begin : Kind::tag_begin, opening);
      }
      const std::size_t close = text_.find("#}", at_);
      if (close == std::string_view::npos) wrong(opening, "a comment without '#}'");
      const char sign = close > at_ ? text_[close - 1] : ' ';
      at_ = close + 2;
      after_tag(sign, /*trim=*/true);
    }
    return {Kind::end, {}, text_.size()};
  }

  /// The text before the tag at at_, after whitespace control.
  std::string_view before_tag(std::string_view text) const {
    const char sign = at(at_ + 2);
    if (at_ == text_.size()) return text;
    if (sign == '-') return strip_right(text);
    if (sign == '+' || at(at_ + 1) == '{') return text;
    const std::size_t line = text.rfind('\n') + 1;  // 0 if there is none
    const bool blank = strip_left(text.substr(line)).empty();
    return blank && (line > 0 || at_line_start_) ? text.substr(0, line) : text;
  }

  void after_tag(char sign, bool trim) {
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && trim && at(at_) == '\n') {
      ++at_;
    }
    at_line_start_ = text_[at_ - 1] == '\n';
  }

  JinjaToken inside_tag() {
    skip_space();
    const std::size_t begin = at_;
    if (brackets_ == 0) {
      const bool signed_end = at(at_) == '-' || (at(at_) == '+' && !is_output_);
      if (stands(is_output_ ? "}}" : "%}", at_ + (signed_end ? 1 : 0))) {
        at_ += signed_end ? 3 : 2;
        const JinjaToken end = token(Kind::end_of_tag, begin);
        in_tag_ = false;
        after_tag(signed_end ? end.text[0] : ' ', !is_output_);
        return end;
      }
    }
    const char c = at(at_);
    if (at_ == text_.size()) wrong(begin, "the template ends inside a tag");
    if (c == '\'' || c == '"') return string(c);
    const auto is_digit = [](char d) { return d >= '0' && d <= '9'; };
    const auto in_name = [&](char d) {
      return is_digit(d) || (d >= 'a' && d <= 'z') || (d >= 'A' && d <= 'Z') || d == '_';
    };
    if (is_digit(c)) {
      while (in_name(at(at_)) || (at(at_) == '.' && is_digit(at(at_ + 1)))) ++at_;
      return token(Kind::number, begin);
    }
    if (in_name(c)) {
      while (in_name(at(at_))) ++at_;
      return token(Kind::name, begin);
    }
    for (const std::string_view pair : {"==", "!=", "<=", ">=", "//", "**"}) {
      if (!stands(pair, at_)) continue;
      at_ += 2;
      return token(Kind::symbol, begin);
    }
    if (std::string_view("+-*/%~=<>.,:|()[]{}").find(c) == std::string_view::npos)
      wrong(begin, "a character that no expression may contain");
    if (std::string_view("([{").find(c) != std::string_view::npos) ++brackets_;
    if (std::string_view(")]}").find(c) != std::string_view::npos && brackets_ > 0) --brackets_;
    ++at_;
    return token(Kind::symbol, begin);
  }

  JinjaToken string(char quote) {
    const std::size_t begin = ++at_;
    while (at_ < text_.size() && text_[at_] != quote) at_ += text_[at_] == '\\' ? 2 : 1;
    if (at_ >= text_.size()) wrong(begin - 1, "a string without its closing quote");
    const JinjaToken string = token(Kind::string, begin);
    ++at_;
    return string;
  }

  const JinjaSource* source_;
  std::string_view text_;
  std::size_t at_ = 0, brackets_ = 0;
  bool in_tag_ = false, is_output_ = false, at_line_start_ = true;
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
