// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/dtype/dtype.h"
#include "ple/dtype/integers.h"
#include "ple/simd/backend.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// Types that are rare in files are decoded in plain C++.
template <Backend B, class T>
void decode_blocks(const std::byte* x, std::size_t n, float* y) {
  const T* blocks = reinterpret_cast<const T*>(x);
  constexpr std::size_t per_block = DtypeTraits<T>::values_per_block;
  if constexpr (per_block == 1 || std::same_as<T, q8_0> || std::same_as<T, q4_0>) {
    B::decode(blocks, n, y);
  } else if constexpr (CodedType<T>) {
    decode_codes(DtypeTraits<T>::id, x, n, y);
  } else {
    for (std::size_t i = 0; i < n / per_block; ++i) DtypeTraits<T>::decode(blocks[i], y + i * per_block);
  }
}

/// T: a stored type, or OneOf several.
template <Backend B, class T>
struct Decode {
  static void values(Dtype /*dtype*/, const std::byte* x, std::size_t n, float* y) { decode_blocks<B, T>(x, n, y); }
};
template <Backend B, class... Ts>
struct Decode<B, OneOf<Ts...>> {
  static void values(Dtype dtype, const std::byte* x, std::size_t n, float* y) {
    static_cast<void>(((dtype == DtypeTraits<Ts>::id && (decode_blocks<B, Ts>(x, n, y), true)) || ...));
  }
};

}  // namespace detail

/// y = x, widened: n values, a whole number of blocks, of type T or, for OneOf, of the type that `dtype` names.
template <Backend B, class T = Any>
void decode(Dtype dtype, const std::byte* x, std::size_t n, float* y) {
  detail::Decode<B, T>::values(dtype, x, n, y);
}

}  // namespace ple::inline PLE_ABI
