// SPDX-License-Identifier: Apache-2.0
// Decimal numbers as text and back, with a point in every locale: strtod and printf follow setlocale(), files do not.
// Uses the standard's locale-free functions where they exist; libc++ reads floats with them only from version 20 on.
#pragma once

#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

namespace detail {

inline constexpr std::string_view number_characters = "0123456789+-.eE";

/// As printf writes it in the "C" locale, with `precision` significant digits.
inline std::string printed_number(double value, int precision) {
  char text[64];
  const int size = std::snprintf(text, sizeof text, "%.*g", precision, value);
  std::string number(text, static_cast<std::size_t>(size));
  if (!(value - value == 0)) return number;  // "inf", "nan"
  // Any other character is the locale's decimal point, which may take several bytes in UTF-8.
  const std::size_t begin = number.find_first_not_of(number_characters);
  if (begin == std::string::npos) return number;
  const std::size_t end = number.find_first_of(number_characters, begin);
  return number.replace(begin, end - begin, ".");
}

/// As strtod and strtof read it in the "C" locale: infinity if too large for T, 0 if too small.
template <class T>
std::optional<T> scanned_number(std::string_view text) {
  char half[16];
  const int size = std::snprintf(half, sizeof half, "%.1f", 0.5);  // the locale's point between '0' and '5'
  std::string local(text);
  if (const std::size_t point = local.find('.'); point != std::string::npos)
    local.replace(point, 1, half + 1, static_cast<std::size_t>(size) - 2);
  char* end = nullptr;
  T value{};
  if constexpr (std::is_same_v<T, float>) {
    value = std::strtof(local.c_str(), &end);
  } else {
    value = std::strtod(local.c_str(), &end);
  }
  return !local.empty() && end == local.c_str() + local.size() ? std::optional(value) : std::nullopt;
}

}  // namespace detail

/// Reads "-12.5e3" as the nearest T: infinity if too large, 0 if too small. Nothing unless all of the text is a number.
template <std::floating_point T>
std::optional<T> parse_number(std::string_view text) {
  if (text.empty() || text[0] == '+' || text.find_first_not_of(detail::number_characters) != std::string_view::npos)
    return std::nullopt;
#if defined(__cpp_lib_to_chars)
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  if (error != std::errc::result_out_of_range) return std::nullopt;  // too large or too small: see below
#endif
  return detail::scanned_number<T>(text);
}

/// The shortest text that reads back as the same number of its type.
template <std::floating_point T>
std::string number_text(T value) {
#if defined(__cpp_lib_to_chars)
  char text[64];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return {text, end};
#else
  std::string shortest = detail::printed_number(static_cast<double>(value), 17);
  for (int precision = 1; precision < 17; ++precision) {
    const std::string text = detail::printed_number(static_cast<double>(value), precision);
    if (text.size() < shortest.size() && parse_number<T>(text) == value) shortest = text;
  }
  return shortest;
#endif
}

/// As number_text, but always with a point or an exponent, so that typed readers do not take it for a whole number.
template <std::floating_point T>
std::string real_text(T value) {
  const std::string number = number_text(value);
  return number.find_first_not_of("-0123456789") == std::string::npos ? number + ".0" : number;
}

}  // namespace ple::inline PLE_ABI
