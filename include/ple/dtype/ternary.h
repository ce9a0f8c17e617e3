// SPDX-License-Identifier: Apache-2.0
// GGUF's blocks of 256 values that are -1, 0 or 1 times one scale.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ple/core/config.h"
#include "ple/dtype/coded.h"
#include "ple/dtype/floats.h"
#include "ple/dtype/packed_bits.h"
#include "ple/dtype/traits.h"

namespace ple::inline PLE_ABI {

/// Five values a byte, as digits of base 3: byte / 256, rounded up, is 0.abcde in base 3. Digit j of byte i of `fives`:
/// value 32 j + i for the first 32 bytes, 160 + 16 j + i for the other 16. Of `fours`: value 240 + 4 j + i.
struct tq1_0 {
  std::uint8_t fives[48] = {};
  std::uint8_t fours[4] = {};
  f16 scale;
};

/// Two bits a value, as in q2_k: value = scale * (integer - 1)
struct tq2_0 {
  std::uint8_t quads[64] = {};
  f16 scale;
};

static_assert(sizeof(tq1_0) == 54 && sizeof(tq2_0) == 66, "blocks have no padding in files");

namespace detail {

inline constexpr std::int8_t ternary_values[4] = {-1, 0, 1, 2};  // a file may hold the last one, too

template <class T, Dtype type>
struct TernaryTraits : CodedTraits<T, type, 256, 16, 2> {
  static constexpr const std::int8_t* table = ternary_values;
};

/// `digits` digits of each of `count` bytes.
inline std::uint8_t* base_3(const std::uint8_t* bytes, std::size_t count, std::size_t digits, std::uint8_t* out) {
  unsigned power = 1;
  for (std::size_t j = 0; j < digits; ++j, power *= 3) {
    for (std::size_t i = 0; i < count; ++i) *out++ = static_cast<std::uint8_t>((bytes[i] * power & 255) * 3 >> 8);
  }
  return out;
}

}  // namespace detail

template <>
struct DtypeTraits<tq1_0> : detail::TernaryTraits<tq1_0, Dtype::tq1_0> {
  static constexpr std::string_view name = "tq1_0";
  static void unpack(const tq1_0& block, std::uint8_t* codes, std::uint16_t* scales) {
    codes = detail::base_3(block.fives, 32, 5, codes);
    codes = detail::base_3(block.fives + 32, 16, 5, codes);
    detail::base_3(block.fours, 4, 4, codes);
    std::fill_n(scales, 16, std::uint16_t{1});
  }
};

template <>
struct DtypeTraits<tq2_0> : detail::TernaryTraits<tq2_0, Dtype::tq2_0> {
  static constexpr std::string_view name = "tq2_0";
  static void unpack(const tq2_0& block, std::uint8_t* codes, std::uint16_t* scales) {
    std::fill_n(codes, 256, std::uint8_t{0});
    detail::add_two_bits(block.quads, 0, codes);
    std::fill_n(scales, 16, std::uint16_t{1});
  }
};

}  // namespace ple::inline PLE_ABI
