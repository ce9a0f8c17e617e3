// SPDX-License-Identifier: Apache-2.0
// GGUF's super-blocks of 256 values: sub-blocks of 16 or 32, each with a small scale, and an f16 super-block scale.
// Decoding gives the same bits as ggml's Python package. The product of an f16 scale (11 significant bits), a
// sub-block's scale (at most 7) and an integer (at most 5; a table's entry has 7, with a scale of 5) has at most 23
// bits, so f32 holds it exactly. Only the one subtraction rounds, in any order, fused or not.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ple/core/config.h"
#include "ple/dtype/floats.h"
#include "ple/dtype/k_quants_fit.h"
#include "ple/dtype/quants.h"
#include "ple/dtype/traits.h"

namespace ple::inline PLE_ABI {

/// 16 sub-blocks of 16: value = scale * sub_scale * integer - min_scale * sub_minimum
struct q2_k {
  std::uint8_t scales[16] = {};  ///< of each sub-block: scale in the lower half, minimum in the upper
  std::uint8_t quads[64] = {};   ///< bits 2 j, 2 j + 1 of byte i of half h: value 32 j + i of the h-th 128
  f16 scale, min_scale;
};

/// 16 sub-blocks of 16, without minimums: value = scale * (sub_scale - 32) * (integer - 4)
struct q3_k {
  std::uint8_t high[32] = {};    ///< bit g of byte i: the third bit of value 32 g + i
  std::uint8_t quads[64] = {};   ///< the lower two, as in q2_k
  std::uint8_t scales[12] = {};  ///< of 6 bits: the lower 4 in the halves of bytes 0 to 7, the upper 2 in bytes 8 to 11
  f16 scale;
};

/// 8 sub-blocks of 32: value = scale * sub_scale * integer - min_scale * sub_minimum
struct q4_k {
  f16 scale, min_scale;
  std::uint8_t scales[12] = {};  ///< scales and minimums of 6 bits: detail::unpacked
  std::uint8_t pairs[128] = {};  ///< halves of byte 32 j + i: value i of sub-blocks 2 j and 2 j + 1
};

/// As q4_k, with a fifth bit
struct q5_k {
  f16 scale, min_scale;
  std::uint8_t scales[12] = {};
  std::uint8_t high[32] = {};  ///< bit s of byte i: the fifth bit of value i of sub-block s
  std::uint8_t pairs[128] = {};
};

/// 16 sub-blocks of 16: value = scale * sub_scale * (integer - 32)
struct q6_k {
  std::uint8_t pairs[128] = {};  ///< the lower 4 bits; halves of byte i of half h: values i and 64 + i of the h-th 128
  std::uint8_t high[64] = {};    ///< the upper 2 bits, as q2_k's integers
  std::int8_t scales[16] = {};
  f16 scale;
};

/// 8 sub-blocks of 32, each with pairs as iq4_nl: value = scale * (sub_scale - 32) * iq4_values[integer]
struct iq4_xs {
  f16 scale;
  std::uint8_t scales_high[2] = {};  ///< the upper 2 bits of sub-block s: bits 2 s, 2 s + 1 of the 16
  std::uint8_t scales_low[4] = {};   ///< the lower 4 bits of sub-blocks 2 j and 2 j + 1: the halves of byte j
  std::uint8_t pairs[128] = {};
};

static_assert(sizeof(q2_k) == 84 && sizeof(q3_k) == 110 && sizeof(q4_k) == 144 && sizeof(q5_k) == 176 &&
                  sizeof(q6_k) == 210 && sizeof(iq4_xs) == 136,
              "blocks have no padding in files");

namespace detail {

/// The 2-bit integer of value i of 256.
inline int two_bits(const std::uint8_t* quads, std::size_t i) {
  return quads[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/// Unpacks 8 scales and 8 minimums of 6 bits, as q4_k and q5_k have them, from 12 bytes. The first four of both: the
/// lower 6 bits of bytes 0 to 7. The others: lower 4 bits in the halves of bytes 8 to 11, upper 2 atop bytes 0 to 7.
inline SubScales unpacked(const std::uint8_t* bytes) {
  SubScales sub;
  for (std::size_t s = 0; s < 4; ++s) {
    sub.scales[s] = bytes[s] & 63;
    sub.minimums[s] = bytes[s + 4] & 63;
    sub.scales[s + 4] = (bytes[s + 8] & 15) | bytes[s] >> 6 << 4;
    sub.minimums[s + 4] = bytes[s + 8] >> 4 | bytes[s + 4] >> 6 << 4;
  }
  return sub;
}

inline void pack(const SubScales& sub, std::uint8_t* bytes) {
  for (std::size_t s = 0; s < 4; ++s) {
    bytes[s] = static_cast<std::uint8_t>(sub.scales[s] | sub.scales[s + 4] >> 4 << 6);
    bytes[s + 4] = static_cast<std::uint8_t>(sub.minimums[s] | sub.minimums[s + 4] >> 4 << 6);
    bytes[s + 8] = static_cast<std::uint8_t>((sub.scales[s + 4] & 15) | (sub.minimums[s + 4] & 15) << 4);
  }
}

/// Where value i of 256 lies in `pairs` (sub-blocks 2 j and 2 j + 1 share 32 bytes), and by how many bits to shift.
inline std::size_t pair_of(std::size_t i) { return i / 64 * 32 + i % 32; }
inline int half_of(std::size_t i) { return static_cast<int>(i / 32 % 2 * 4); }

/// Decodes q4_k and q5_k; integer(i) is that of value i.
template <class Block, class F>
void decode_with_minimums(const Block& block, float* values, F&& integer) {
  const SubScales sub = unpacked(block.scales);
  for (std::size_t s = 0; s < 8; ++s) {
    const float scale = to_f32(block.scale) * static_cast<float>(sub.scales[s]);
    const float minimum = to_f32(block.min_scale) * static_cast<float>(sub.minimums[s]);
    for (std::size_t i = 32 * s; i < 32 * s + 32; ++i) values[i] = scale * static_cast<float>(integer(i)) - minimum;
  }
}

}  // namespace detail

template <>
struct DtypeTraits<q2_k> : BlockTraits<Dtype::q2_k, 256> {
  static constexpr std::string_view name = "q2_k";
  static void decode(const q2_k& block, float* values) {
    for (std::size_t s = 0; s < 16; ++s) {
      const float scale = to_f32(block.scale) * static_cast<float>(block.scales[s] & 15);
      const float minimum = to_f32(block.min_scale) * static_cast<float>(block.scales[s] >> 4);
      for (std::size_t i = 16 * s; i < 16 * s + 16; ++i) {
        values[i] = scale * static_cast<float>(detail::two_bits(block.quads, i)) - minimum;
      }
    }
  }
};

template <>
struct DtypeTraits<q3_k> : BlockTraits<Dtype::q3_k, 256> {
  static constexpr std::string_view name = "q3_k";
  static void decode(const q3_k& block, float* values) {
    for (std::size_t s = 0; s < 16; ++s) {
      const int low = block.scales[s % 8] >> (s / 8 * 4) & 15, high = block.scales[8 + s % 4] >> (s / 4 * 2) & 3;
      const float scale = to_f32(block.scale) * static_cast<float>((low | high << 4) - 32);
      for (std::size_t i = 16 * s; i < 16 * s + 16; ++i) {
        const int third = block.high[i % 32] >> (i / 32) & 1;
        values[i] = scale * static_cast<float>((detail::two_bits(block.quads, i) | third << 2) - 4);
      }
    }
  }
};

template <>
struct DtypeTraits<q4_k> : BlockTraits<Dtype::q4_k, 256> {
  static constexpr std::string_view name = "q4_k";
  static void decode(const q4_k& block, float* values) {
    detail::decode_with_minimums(
        block, values, [&](std::size_t i) { return block.pairs[detail::pair_of(i)] >> detail::half_of(i) & 15; });
  }
  /// Seeks the least squared error.
  static void encode(const float* values, q4_k& block) {
    const detail::MinimumsFit fit = detail::fit_with_minimums(values, 15);
    block = {.scale = fit.scale, .min_scale = fit.min_scale};
    detail::pack(fit.sub, block.scales);
    for (std::size_t i = 0; i < 256; ++i) {
      std::uint8_t& pair = block.pairs[detail::pair_of(i)];
      pair = static_cast<std::uint8_t>(pair | fit.integers[i] << detail::half_of(i));
    }
  }
};

template <>
struct DtypeTraits<q5_k> : BlockTraits<Dtype::q5_k, 256> {
  static constexpr std::string_view name = "q5_k";
  static void decode(const q5_k& block, float* values) {
    detail::decode_with_minimums(block, values, [&](std::size_t i) {
      const int low = block.pairs[detail::pair_of(i)] >> detail::half_of(i) & 15;
      return low | (block.high[i % 32] >> (i / 32) & 1) << 4;
    });
  }
  /// Seeks the least squared error.
  static void encode(const float* values, q5_k& block) {
    const detail::MinimumsFit fit = detail::fit_with_minimums(values, 31);
    block = {.scale = fit.scale, .min_scale = fit.min_scale};
    detail::pack(fit.sub, block.scales);
    for (std::size_t i = 0; i < 256; ++i) {
      std::uint8_t &pair = block.pairs[detail::pair_of(i)], &high = block.high[i % 32];
      pair = static_cast<std::uint8_t>(pair | (fit.integers[i] & 15) << detail::half_of(i));
      high = static_cast<std::uint8_t>(high | fit.integers[i] >> 4 << (i / 32));
    }
  }
};

template <>
struct DtypeTraits<q6_k> : BlockTraits<Dtype::q6_k, 256> {
  static constexpr std::string_view name = "q6_k";
  static void decode(const q6_k& block, float* values) {
    for (std::size_t s = 0; s < 16; ++s) {
      const float scale = to_f32(block.scale) * static_cast<float>(block.scales[s]);
      for (std::size_t i = 16 * s; i < 16 * s + 16; ++i) {
        const int low = block.pairs[pair_of(i)] >> half_of(i) & 15;
        values[i] = scale * static_cast<float>((low | detail::two_bits(block.high, i) << 4) - 32);
      }
    }
  }
  /// Seeks the least squared error.
  static void encode(const float* values, q6_k& block) {
    const detail::SymmetricFit fit = detail::fit_symmetric(values);
    block = {.scale = fit.scale};
    std::copy_n(fit.scales, 16, block.scales);
    for (std::size_t i = 0; i < 256; ++i) {
      std::uint8_t &pair = block.pairs[pair_of(i)], &high = block.high[i / 128 * 32 + i % 32];
      pair = static_cast<std::uint8_t>(pair | (fit.integers[i] & 15) << half_of(i));
      high = static_cast<std::uint8_t>(high | fit.integers[i] >> 4 << (i % 128 / 32 * 2));
    }
  }

 private:
  static std::size_t pair_of(std::size_t i) { return i / 128 * 64 + i % 64; }
  static int half_of(std::size_t i) { return static_cast<int>(i % 128 / 64 * 4); }
};

template <>
struct DtypeTraits<iq4_xs> : BlockTraits<Dtype::iq4_xs, 256> {
  static constexpr std::string_view name = "iq4_xs";
  static void decode(const iq4_xs& block, float* values) {
    for (std::size_t s = 0; s < 8; ++s) {
      const int low = block.scales_low[s / 2] >> (s % 2 * 4) & 15, high = block.scales_high[s / 4] >> (s % 4 * 2) & 3;
      const float scale = to_f32(block.scale) * static_cast<float>((low | high << 4) - 32);
      for (std::size_t i = 0; i < 16; ++i) {
        const std::uint8_t pair = block.pairs[16 * s + i];
        values[32 * s + i] = scale * static_cast<float>(iq4_values[pair & 15]);
        values[32 * s + 16 + i] = scale * static_cast<float>(iq4_values[pair >> 4]);
      }
    }
  }
};

}  // namespace ple::inline PLE_ABI
