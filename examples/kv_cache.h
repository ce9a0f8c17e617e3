// SPDX-License-Identifier: Apache-2.0
// `--kv` of the examples: what keys and values are kept in.
#pragma once

#include <ple/dtype/dtype.h>

#include <fmt/core.h>

#include <stdexcept>

#include "arguments.h"

namespace examples {

inline ple::Dtype kv_cache_dtype(Arguments& arguments) {
  const auto name = arguments.text("--kv").value_or("f32");
  if (const auto dtype = ple::dtype_of_name(name)) return *dtype;
  throw std::runtime_error(fmt::format("--kv is '{}', expected f32, bf16, f16 or q8_0", name));
}

}  // namespace examples
