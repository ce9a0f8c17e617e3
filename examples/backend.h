// SPDX-License-Identifier: Apache-2.0
// `--backend scalar|native|auto` of the examples.
#pragma once

#include <ple/dispatch.h>

#include <fmt/core.h>

#include <stdexcept>
#include <string>

namespace examples {

/// Calls f.template operator()<B>() with plain C++ (scalar), the vectors the compiler was told of (native), or the best
/// this CPU has (auto).
template <class F>
void with_backend(const std::string& name, F&& f) {
  if (name == "scalar") {
    f.template operator()<ple::Scalar>();
  } else if (name == "native") {
    f.template operator()<ple::Simd>();
  } else if (name == "auto") {
    f.template operator()<ple::BestSimd>();
  } else {
    throw std::runtime_error(fmt::format("--backend is '{}', expected scalar, native or auto", name));
  }
}

}  // namespace examples
