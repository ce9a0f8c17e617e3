// SPDX-License-Identifier: Apache-2.0
// Norms as models multiply with them. Hugging Face's files of some families store w where the norm multiplies by 1 + w.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "ple/core/config.h"
#include "ple/dtype/dtype.h"
#include "ple/model/parameter.h"
#include "ple/simd/decode.h"
#include "ple/simd/scalar.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

constexpr bool is_norm(Parameter parameter) { return role_of(parameter).hf.ends_with("norm.weight"); }

/// The tensor's values plus `offset`, in f32 in new memory. `stored` is f32, bf16 or f16.
inline Tensor with_offset(const Tensor& stored, float offset) {
  std::size_t n = 1;
  for (const std::uint64_t size : stored.shape) n *= static_cast<std::size_t>(size);
  const auto values = std::make_shared<std::vector<float>>(n);
  decode<Scalar, Floats>(stored.dtype, stored.data, n, values->data());
  for (float& value : *values) value += offset;
  return {stored.file,       stored.name, Dtype::f32, stored.shape, reinterpret_cast<const std::byte*>(values->data()),
          n * sizeof(float), values};
}

}  // namespace ple::inline PLE_ABI
