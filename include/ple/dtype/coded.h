// SPDX-License-Identifier: Apache-2.0
// What types have in common whose values are few, a table of at most 16, times a scale for each sub-block. A block is
// unpacked to codes, one per value, that index the table. These types are read, not written.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/dtype/floats.h"
#include "ple/dtype/traits.h"

namespace ple::inline PLE_ABI {

/// A stored type with DtypeTraits as detail::CodedTraits.
template <class T>
concept CodedType = StoredType<T> && requires(const T& block, std::uint8_t* codes, std::uint16_t* scales) {
  DtypeTraits<T>::unpack(block, codes, scales);
};

namespace detail {

/// value = scale * factor * table[code]. DtypeTraits<T>, which derives from this, has
///   table    of int8, 2^code_bits of them; codes of 2 bits have consecutive values
///   unpack   writes a block's codes, and a scale per sub-block: in blocks of 256, an integer to multiply with
///   super_scale   of the block; in others, the bits of a bf16
/// `factor` is a power of two. All products are exact in f32: an f16 (11 significant bits) times a scale (at most 5)
/// times a value (at most 6).
template <class T, Dtype type, std::size_t values, std::size_t sub, int bits = 4>
struct CodedTraits : BlockTraits<type, values> {
  static constexpr std::size_t sub_block = sub;
  static constexpr int code_bits = bits;
  static constexpr float factor = 1;

  static void decode(const T& block, float* out) {
    using Traits = DtypeTraits<T>;
    std::uint8_t codes[values];
    std::uint16_t scales[values / sub];
    Traits::unpack(block, codes, scales);
    for (std::size_t i = 0; i < values; ++i) {
      float scale = Traits::factor;
      if constexpr (values == 256) {
        scale *= to_f32(Traits::super_scale(block)) * static_cast<float>(scales[i / sub]);
      } else {
        scale *= to_f32(bf16{scales[i / sub]});
      }
      out[i] = scale * static_cast<float>(Traits::table[codes[i]]);
    }
  }
  static f16 super_scale(const T& block) { return block.scale; }
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
