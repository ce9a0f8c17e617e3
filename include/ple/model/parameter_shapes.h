// SPDX-License-Identifier: Apache-2.0
// A parameter and its shape. Each family's shapes.h lists them from a configuration alone.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ple/core/config.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

struct ParameterShape {
  Parameter parameter = Parameter::token_embedding;
  std::size_t layer = 0;  ///< 0 for what exists once; as Parameter says for AltUp's projections
  std::vector<std::uint64_t> shape = {};
  bool used = true;  ///< false: published files hold it, but no token needs it

  std::uint64_t count() const {
    std::uint64_t n = 1;
    for (const std::uint64_t size : shape) n *= size;
    return n;
  }
};

/// What a decoder's own walk finds, in its order.
template <class Model>
std::vector<ParameterShape> parameter_shapes_of(Model& model) {
  std::vector<ParameterShape> shapes;
  model.parameters([&]<class V>(Parameter parameter, std::size_t layer, V& values) {
    if constexpr (std::same_as<V, std::vector<float>>) {
      shapes.push_back({parameter, layer, {values.size()}});
    } else {
      shapes.push_back({parameter, layer, {values.rows(), values.cols()}});
    }
  });
  return shapes;
}

}  // namespace ple::inline PLE_ABI
