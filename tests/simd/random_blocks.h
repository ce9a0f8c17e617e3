// SPDX-License-Identifier: Apache-2.0
// Random weights of block types and a loop over these types, for the tests of their products.
#pragma once

#include "ple/dispatch.h"

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "../dtype/random_scales.h"

namespace ple::testing {

/// Blocks of random bits with finite scales, [rows, cols].
template <class T>
std::vector<T> random_blocks(std::size_t rows, std::size_t cols, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<T> blocks(rows * cols / DtypeTraits<T>::values_per_block);
  for (T& block : blocks) {
    auto* bytes = reinterpret_cast<std::uint8_t*>(&block);
    for (std::size_t i = 0; i < sizeof block; ++i) bytes[i] = static_cast<std::uint8_t>(generator());
    set_scales(block, generator);
  }
  return blocks;
}

template <class F>
void for_each_integer_type(F&& f) {
  for (const Dtype dtype : all_dtypes) {
    with_dtype(dtype, [&]<class T>() {
      if constexpr (IntegerType<T>) f.template operator()<T>();
    });
  }
}

}  // namespace ple::testing
