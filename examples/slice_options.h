// SPDX-License-Identifier: Apache-2.0
// A MatFormer slice on a command line.
#pragma once

#include <ple/family/gemma3n/matformer.h>

#include "arguments.h"

#include <cstddef>

namespace examples {

inline constexpr const char* slice_usage =
    "  --slice NAME             a smaller model inside Gemma 3n E4B, as published: e2b, e1.96b, e2.54b\n"
    "  --skip L,L,...           layers to leave out, counted from 0\n"
    "  --width N | N,N,...      of the feed-forwards: of all layers, or of each that is left\n";

/// What those options say; everything if there are none.
inline ple::MatformerOptions slice_options(Arguments& arguments) {
  ple::MatformerOptions options;
  if (const auto name = arguments.text("--slice")) options = ple::published_slice(*name);
  if (const auto skip = arguments.text("--skip")) options.skip_layers = numbers_of<std::size_t>("--skip", *skip);
  if (const auto width = arguments.text("--width"))
    options.intermediate_size = numbers_of<std::size_t>("--width", *width, 1);
  return options;
}

}  // namespace examples
