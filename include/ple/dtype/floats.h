// SPDX-License-Identifier: Apache-2.0
// f32, and its two 16-bit relatives.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ple/core/config.h"
#include "ple/dtype/traits.h"

namespace ple::inline PLE_ABI {

using f32 = float;

/// The upper half of an f32: 8 bits of exponent, 7 of fraction.
struct bf16 {
  std::uint16_t bits = 0;
};

/// IEEE 754 binary16: 5 bits of exponent, 10 of fraction.
struct f16 {
  std::uint16_t bits = 0;
};

inline float to_f32(float x) { return x; }

inline float to_f32(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

inline float to_f32(f16 x) {
  const std::uint32_t sign = static_cast<std::uint32_t>(x.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);  // inf, NaN
  if (magnitude >= 0x400u) return std::bit_cast<float>(sign | ((magnitude << 13) + (112u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(subnormal));
}

/// Rounds to nearest, ties to even; NaN stays NaN.
inline bf16 to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

/// Rounds to nearest, ties to even; too large becomes infinity; NaN stays NaN.
inline f16 to_f16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const auto with_sign = [&](std::uint32_t half) { return f16{static_cast<std::uint16_t>(sign | half)}; };
  if (magnitude > 0x7f800000u) return with_sign(0x7e00u | (magnitude >> 13 & 0x3ffu));
  if (magnitude >= 0x477ff000u) return with_sign(0x7c00u);     // 65520 and above
  if (magnitude < 0x38800000u) {                               // below 2^-14: a multiple of 2^-24
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;  // its last bit is then 2^-24: the addition rounds
    return with_sign(std::bit_cast<std::uint32_t>(sum) - 0x3f000000u);
  }
  return with_sign((magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

template <>
struct DtypeTraits<f32> : BlockTraits<Dtype::f32, 1> {
  static constexpr std::string_view name = "f32";
  static void decode(const f32& block, float* values) { *values = block; }
  static void encode(const float* values, f32& block) { block = *values; }
};

template <>
struct DtypeTraits<bf16> : BlockTraits<Dtype::bf16, 1> {
  static constexpr std::string_view name = "bf16";
  static void decode(const bf16& block, float* values) { *values = to_f32(block); }
  static void encode(const float* values, bf16& block) { block = to_bf16(*values); }
};

template <>
struct DtypeTraits<f16> : BlockTraits<Dtype::f16, 1> {
  static constexpr std::string_view name = "f16";
  static void decode(const f16& block, float* values) { *values = to_f32(block); }
  static void encode(const float* values, f16& block) { block = to_f16(*values); }
};

}  // namespace ple::inline PLE_ABI
