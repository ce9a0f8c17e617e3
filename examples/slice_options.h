// SPDX-License-Identifier: Apache-2.0
// A MatFormer slice on a command line.
#pragma once

#include <ple/model/matformer.h>

#include "arguments.h"

#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace examples {

/// "20,21,22"
inline std::vector<std::size_t> number_list(std::string_view option, const std::string& list) {
  std::vector<std::size_t> numbers;
  const char* end = list.data() + list.size();
  for (const char* at = list.data(); at <= end;) {
    const auto [next, error] = std::from_chars(at, end, numbers.emplace_back());
    if (error != std::errc() || (next != end && *next != ','))
      throw std::runtime_error(fmt::format("{}: '{}' is not a list such as 20,21,22", option, list));
    at = next + 1;
  }
  return numbers;
}

inline constexpr const char* slice_usage =
    "  --slice NAME             a smaller model inside Gemma 3n E4B, as published: e2b, e1.96b, e2.54b\n"
    "  --skip L,L,...           layers to leave out, counted from 0\n"
    "  --width N | N,N,...      of the feed-forwards: of all layers, or of each that is left\n";

/// What those options say; everything if there are none.
inline ple::MatformerOptions slice_options(Arguments& arguments) {
  ple::MatformerOptions options;
  if (const auto name = arguments.text("--slice")) options = ple::published_slice(*name);
  if (const auto skip = arguments.text("--skip")) options.skip_layers = number_list("--skip", *skip);
  if (const auto width = arguments.text("--width")) options.intermediate_size = number_list("--width", *width);
  return options;
}

}  // namespace examples
