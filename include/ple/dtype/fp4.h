// SPDX-License-Identifier: Apache-2.0
// GGUF's blocks of 4-bit floating-point values, e2m1: a sign, two bits of exponent, one of fraction. Scales are small
// floating-point numbers, too. Source: OCP Microscaling Formats (MX) 1.0.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ple/core/config.h"
#include "ple/dtype/coded.h"
#include "ple/dtype/floats.h"
#include "ple/dtype/packed_bits.h"
#include "ple/dtype/traits.h"

namespace ple::inline PLE_ABI {

/// 32 values, in pairs as q4_0's: value = 2^(exponent - 128) * fp4_values[integer]
struct mxfp4 {
  std::uint8_t exponent = 0;
  std::uint8_t pairs[16] = {};
};

/// 4 sub-blocks of 16, in pairs (value i and i + 8 of a sub-block): value = scale / 2 * fp4_values[integer]. Scales are
/// e4m3 without a sign: the top bit is ignored, and NaN counts as 0.
struct nvfp4 {
  std::uint8_t scales[4] = {};
  std::uint8_t pairs[32] = {};
};

/// Twice the values of e2m1.
alignas(16) inline constexpr std::int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static_assert(sizeof(mxfp4) == 17 && sizeof(nvfp4) == 36, "blocks have no padding in files");

template <>
struct DtypeTraits<mxfp4> : detail::CodedTraits<mxfp4, Dtype::mxfp4, 32, 32> {
  static constexpr std::string_view name = "mxfp4";
  static constexpr const std::int8_t* table = fp4_values;
  static void unpack(const mxfp4& block, std::uint8_t* codes, std::uint16_t* scales) {
    detail::nibbles(block.pairs, codes);
    // 2^(exponent - 128) as a bf16; the two smallest are subnormal.
    const unsigned e = block.exponent;
    *scales = static_cast<std::uint16_t>(e < 2 ? 0x20u << e : (e - 1) << 7);
  }
};

template <>
struct DtypeTraits<nvfp4> : detail::CodedTraits<nvfp4, Dtype::nvfp4, 64, 16> {
  static constexpr std::string_view name = "nvfp4";
  static constexpr const std::int8_t* table = fp4_values;
  static void unpack(const nvfp4& block, std::uint8_t* codes, std::uint16_t* scales) {
    for (std::size_t s = 0; s < 4; ++s) {
      const std::uint64_t pairs = detail::load8(block.pairs + 8 * s);
      detail::store8(pairs & detail::all8(15), codes + 16 * s);
      detail::store8(pairs >> 4 & detail::all8(15), codes + 16 * s + 8);
      scales[s] = half_of(block.scales[s]).bits;
    }
  }

 private:
  /// Half of an e4m3's value.
  static bf16 half_of(std::uint8_t scale) {
    if (scale == 0x7f) return {};
    const std::uint32_t exponent = scale >> 3 & 15, fraction = scale & 7;
    if (exponent == 0) return to_bf16(static_cast<float>(fraction) * 0x1p-10f);
    return {static_cast<std::uint16_t>((exponent - 8 + 127) << 7 | fraction << 4)};
  }
};

}  // namespace ple::inline PLE_ABI
