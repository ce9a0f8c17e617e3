// SPDX-License-Identifier: Apache-2.0
// `--kv` of the examples: what keys and values are kept in.
#pragma once

#include <ple/dtype/dtype.h>

#include "arguments.h"

namespace examples {

inline ple::Dtype kv_cache_dtype(Arguments& arguments) {
  const auto name = arguments.text("--kv").value_or("f32");
  for (const ple::Dtype dtype : {ple::Dtype::f32, ple::Dtype::bf16, ple::Dtype::f16, ple::Dtype::q8_0}) {
    if (name == ple::name_of(dtype)) return dtype;
  }
  refuse("--kv is '", name, "', expected f32, bf16, f16 or q8_0");
}

}  // namespace examples
