// SPDX-License-Identifier: Apache-2.0
// The Unicode that ple/text needs: well-formed UTF-8 and whitespace.
#pragma once

#include <cstddef>
#include <string_view>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// Bytes (1 to 4) of the well-formed UTF-8 character at the start of `text`; 0 if there is none (empty text, a stray or
/// missing continuation byte, an overlong form, a surrogate, a value above U+10FFFF). Unicode 15, table 3-7.
inline std::size_t utf8_length(std::string_view text) {
  const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](std::size_t i, unsigned low, unsigned high) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  if (text.empty()) return 0;
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  if (lead < 0xE0) return continues(1, 0x80, 0xBF) ? 2 : 0;
  if (lead < 0xF0) {
    const unsigned low = lead == 0xE0 ? 0xA0 : 0x80;
    const unsigned high = lead == 0xED ? 0x9F : 0xBF;
    return continues(1, low, high) && continues(2, 0x80, 0xBF) ? 3 : 0;
  }
  const unsigned low = lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xF4 ? 0x8F : 0xBF;
  return continues(1, low, high) && continues(2, 0x80, 0xBF) && continues(3, 0x80, 0xBF) ? 4 : 0;
}

/// The code point of one well-formed character, as utf8_length() measured it.
inline char32_t utf8_decode(std::string_view character) {
  const auto lead = static_cast<unsigned char>(character[0]);
  if (character.size() == 1) return lead;
  char32_t code = lead & (0x7Fu >> character.size());
  for (std::size_t i = 1; i < character.size(); ++i) {
    code = (code << 6) | (static_cast<unsigned char>(character[i]) & 0x3Fu);
  }
  return code;
}

inline bool is_utf8_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0u) == 0x80u; }

/// Bytes before the first that is not part of a well-formed character.
inline std::size_t utf8_prefix(std::string_view text) {
  std::size_t size = 0;
  while (const std::size_t length = utf8_length(text.substr(size))) size += length;
  return size;
}

inline bool is_utf8(std::string_view text) { return utf8_prefix(text) == text.size(); }

/// Unicode's White_Space property: what `\s` matches in the reference tokenizer.
inline bool is_whitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// Bytes of the leading characters for which `is_space(char32_t)` holds.
template <class IsSpace>
std::size_t space_prefix(std::string_view text, IsSpace is_space) {
  std::size_t size = 0;
  while (true) {
    const std::string_view rest = text.substr(size);
    const std::size_t length = utf8_length(rest);
    if (length == 0 || !is_space(utf8_decode(rest.substr(0, length)))) return size;
    size += length;
  }
}

/// Bytes of the trailing ones.
template <class IsSpace>
std::size_t space_suffix(std::string_view text, IsSpace is_space) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t begin = end - 1;
    while (begin > 0 && end - begin < 4 && is_utf8_continuation(text[begin])) --begin;
    const std::string_view character = text.substr(begin, end - begin);
    if (utf8_length(character) != character.size() || !is_space(utf8_decode(character))) break;
    end = begin;
  }
  return text.size() - end;
}

}  // namespace ple::inline PLE_ABI
