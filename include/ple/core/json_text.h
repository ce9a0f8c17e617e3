// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/core/json.h"
#include "ple/core/number_text.h"

namespace ple::inline PLE_ABI {

namespace detail {

inline std::string json_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      quoted += code;
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

inline void append_json(const Json& value, const std::string& line, std::string& text) {
  const bool array = value.is_array();
  if (!array && !value.is_object()) {
    text += value.is_string() ? json_string(value.text()) : value.is_real() ? real_text(value.number()) : value.brief();
    return;
  }
  text += array ? '[' : '{';
  const std::string inner = line + "  ";
  bool first = true;
  for (const Json& item : value.items()) {
    text += first ? inner : "," + inner;
    first = false;
    if (!array) text += json_string(item.key()) + ": ";
    append_json(item, inner, text);
  }
  if (!first) text += line;
  text += array ? ']' : '}';
}

}  // namespace detail

/// One value per line, indented by two spaces per level. Numbers must be finite.
inline std::string json_text(const Json& value) {
  std::string text;
  detail::append_json(value, "\n", text);
  return text + "\n";
}

}  // namespace ple::inline PLE_ABI
