// SPDX-License-Identifier: Apache-2.0
// Number types of stored weights: the block that each is stored as, and DtypeTraits, which describes the block.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// The types a file may name; those from q8_0 on are GGUF's.
enum class Dtype : std::uint8_t {
  f32,
  bf16,
  f16,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  iq4_nl,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_xs,
  iq2_xxs,
  iq2_xs,
  iq2_s,
  iq3_xxs,
  iq3_s,
  iq1_s,
  iq1_m,
  tq1_0,
  tq2_0,
  mxfp4,
  nvfp4,
};

/// A stored type's id and name, the number of values per block, and how to decode and encode a block.
template <class T>
struct DtypeTraits;

template <Dtype type, std::size_t values>
struct BlockTraits {
  static constexpr Dtype id = type;
  static constexpr std::size_t values_per_block = values;
};

/// A type that weights can be read in.
template <class T>
concept StoredType = requires(const T& block, float* values) {
  { DtypeTraits<T>::id } -> std::convertible_to<Dtype>;
  { DtypeTraits<T>::name } -> std::convertible_to<std::string_view>;
  { DtypeTraits<T>::values_per_block } -> std::convertible_to<std::size_t>;
  DtypeTraits<T>::decode(block, values);
};

/// A type that weights can be read and written in.
template <class T>
concept EncodableType = StoredType<T> && requires(const float* values, T& block) {
  DtypeTraits<T>::encode(values, block);
};

}  // namespace ple::inline PLE_ABI
