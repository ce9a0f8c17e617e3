// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "ple/ple.h"
#include "ple/simd/decode.h"

namespace ple::testing {

/// A checkpoint whose matrices are stored as `dtype` where their rows are whole blocks; or the values that they then
/// have, in f32.
struct Requantized {
  Checkpoint original;
  Dtype dtype;
  bool decoded;

  template <class Config>
  const Config& config() const {
    return original.config<Config>();
  }

  Tensor tensor(Parameter parameter, std::size_t layer) const {
    Tensor tensor = original.tensor(parameter, layer);
    const bool matrix = tensor.shape.size() == 2 && parameter != Parameter::ple_table;
    if (!matrix || tensor.shape[1] % values_per_block(dtype) != 0) return tensor;
    const std::size_t count = tensor.shape[0] * tensor.shape[1];
    std::vector<float> values(count);
    decode<Scalar>(tensor.dtype, tensor.data, count, values.data());
    auto blocks = std::make_shared<AlignedVector<std::byte>>(bytes_of(dtype, count));
    with_dtype(dtype, [&]<class T>() {
      if constexpr (EncodableType<T>) {
        constexpr std::size_t n = DtypeTraits<T>::values_per_block;
        T* to = reinterpret_cast<T*>(blocks->data());
        for (std::size_t b = 0; b < count / n; ++b) DtypeTraits<T>::encode(values.data() + b * n, to[b]);
      }
    });
    tensor.dtype = dtype;
    if (decoded) {
      auto plain = std::make_shared<AlignedVector<std::byte>>(count * sizeof(float));
      decode<Scalar>(dtype, blocks->data(), count, reinterpret_cast<float*>(plain->data()));
      blocks = std::move(plain);
      tensor.dtype = Dtype::f32;
    }
    tensor.data = blocks->data();
    tensor.bytes = blocks->size();
    tensor.map = nullptr;
    tensor.owner = std::move(blocks);
    return tensor;
  }
};

}  // namespace ple::testing
