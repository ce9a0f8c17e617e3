// SPDX-License-Identifier: Apache-2.0
// GGUF's blocks of 256 values that are chosen in groups: an index says which row of a grid 8 or 4 magnitudes are. Signs
// are apart: a bit each, or 7 bits for 8 of which an even number is negative. iq4_nl and iq4_xs have no grid.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ple/core/config.h"
#include "ple/dtype/coded.h"
#include "ple/dtype/floats.h"
#include "ple/dtype/iq_grids.h"
#include "ple/dtype/packed_bits.h"
#include "ple/dtype/traits.h"

namespace ple::inline PLE_ABI {

/// Sub-blocks of 32: value = scale * (2 sub_scale + 1) / 8 * magnitude
struct iq2_xxs {
  f16 scale;
  std::uint8_t parts[64] = {};  ///< of a sub-block: 4 bytes of indices; 4 times 7 bits of signs, 4 of sub_scale
};

/// Sub-blocks of 16: value as iq2_xxs's
struct iq2_xs {
  f16 scale;
  std::uint8_t groups[64] = {};     ///< 16 bits for 8 values: 9 of index, 7 of signs
  std::uint8_t sub_scales[8] = {};  ///< 4 bits each, as in the halves of bytes below
};

/// Sub-blocks of 16: value as iq2_xxs's
struct iq2_s {
  f16 scale;
  std::uint8_t indices[32] = {};      ///< the lower 8 bits
  std::uint8_t signs[32] = {};        ///< bit i: of value i of 8
  std::uint8_t indices_high[8] = {};  ///< bits 2 g, 2 g + 1: of group g of 4
  std::uint8_t sub_scales[8] = {};
};

/// Sub-blocks of 32, groups of 4: value = scale * (2 sub_scale + 1) / 4 * magnitude
struct iq3_xxs {
  f16 scale;
  std::uint8_t indices[64] = {};
  std::uint8_t parts[32] = {};  ///< of a sub-block: 4 times 7 bits of signs, 4 of sub_scale
};

/// Sub-blocks of 32, groups of 4: value = scale * (2 sub_scale + 1) * magnitude
struct iq3_s {
  f16 scale;
  std::uint8_t indices[64] = {};      ///< the lower 8 bits
  std::uint8_t indices_high[8] = {};  ///< bit g: of group g of 8
  std::uint8_t signs[32] = {};
  std::uint8_t sub_scales[4] = {};
};

/// Sub-blocks of 32: value = scale * (2 sub_scale + 1) * (g + delta), g: -1, 0 or 1; delta: 1/8 or -1/8
struct iq1_s {
  f16 scale;
  std::uint8_t indices[32] = {};  ///< the lower 8 bits
  std::uint8_t parts[16] = {};  ///< of a sub-block: 4 times the upper 3 bits of an index, 3 of sub_scale, delta's sign
};

/// Sub-blocks of 16, value as iq1_s's, but delta has a sign for each 8 values
struct iq1_m {
  std::uint8_t indices[32] = {};  ///< the lower 8 bits
  std::uint8_t parts[16] = {};    ///< 4 bits for 8 values: the upper 3 of the index, delta's sign
  std::uint8_t scales[8] = {};    ///< 16 bits for 4 sub-blocks: 4 times 3 of sub_scale, 4 of the scale, an f16
};

static_assert(sizeof(iq2_xxs) == 66 && sizeof(iq2_xs) == 74 && sizeof(iq2_s) == 82 && sizeof(iq3_xxs) == 98 &&
                  sizeof(iq3_s) == 110 && sizeof(iq1_s) == 50 && sizeof(iq1_m) == 56,
              "blocks have no padding in files");

namespace detail {

// Codes are an element of a grid and, above it, a bit for the sign: of the value, or of iq1's delta.
alignas(16) inline constexpr std::int8_t iq2_values[16] = {8, 25, 43, 0, -8, -25, -43};
alignas(16) inline constexpr std::int8_t iq3_xxs_values[16] = {2,  6,  10,  14,  18,  22,  26,  31,
                                                               -2, -6, -10, -14, -18, -22, -26, -31};
alignas(16) inline constexpr std::int8_t iq3_s_values[16] = {1,  3,  5,  7,  9,  11,  13,  15,
                                                             -1, -3, -5, -7, -9, -11, -13, -15};
alignas(16) inline constexpr std::int8_t iq1_values[16] = {-7, 1, 9, 0, -9, -1, 7};

template <class T, Dtype type, std::size_t sub>
struct Iq2Traits : CodedTraits<T, type, 256, sub> {
  static constexpr const std::int8_t* table = iq2_values;
  static constexpr float factor = 0x1p-3f;
};

template <class T, Dtype type, std::size_t sub>
struct Iq1Traits : CodedTraits<T, type, 256, sub> {
  static constexpr const std::int8_t* table = iq1_values;
  static constexpr float factor = 0x1p-3f;
};

/// All eight signs: the number of negative ones is even.
inline std::uint8_t eight_signs(unsigned seven) {
  return static_cast<std::uint8_t>(seven | (static_cast<unsigned>(std::popcount(seven)) & 1) << 7);
}

/// Codes of a row of 8 elements of 2 bits. `high`: for each, whether bit 2 is set.
inline void put_group(const std::uint64_t* grid, std::size_t row, std::uint64_t high, std::uint8_t* codes) {
  store8(spread_pairs(grid_row(grid, row)) | high << 2, codes);
}
/// Codes of two rows of 4 elements of 3 bits.
inline void put_groups(const std::uint64_t* grid, std::size_t row, std::size_t second, std::uint8_t signs,
                       std::uint8_t* codes) {
  const std::uint64_t low = spread_nibbles(grid_row(grid, row)), high = spread_nibbles(grid_row(grid, second));
  store8(low | high << 32 | spread(signs) << 3, codes);
}

constexpr std::uint16_t odd(std::uint32_t sub_scale) { return static_cast<std::uint16_t>(2 * sub_scale + 1); }

/// Scales of 4 bits: of sub-blocks 2 j and 2 j + 1 in the halves of byte j.
inline void put_scales(const std::uint8_t* pairs, std::size_t count, std::uint16_t* scales) {
  for (std::size_t s = 0; s < count; ++s) scales[s] = odd(pairs[s / 2] >> (s % 2 * 4) & 15u);
}

}  // namespace detail

template <>
struct DtypeTraits<iq2_xxs> : detail::Iq2Traits<iq2_xxs, Dtype::iq2_xxs, 32> {
  static constexpr std::string_view name = "iq2_xxs";
  static void unpack(const iq2_xxs& block, std::uint8_t* codes, std::uint16_t* scales) {
    for (std::size_t s = 0; s < 8; ++s) {
      const std::uint8_t* rows = block.parts + 8 * s;
      const std::uint32_t bits = detail::load4(rows + 4);
      for (std::size_t g = 0; g < 4; ++g, codes += 8) {
        detail::put_group(iq2_xxs_grid, rows[g], detail::spread(detail::eight_signs(bits >> (7 * g) & 127)), codes);
      }
      scales[s] = detail::odd(bits >> 28);
    }
  }
};

template <>
struct DtypeTraits<iq2_xs> : detail::Iq2Traits<iq2_xs, Dtype::iq2_xs, 16> {
  static constexpr std::string_view name = "iq2_xs";
  static void unpack(const iq2_xs& block, std::uint8_t* codes, std::uint16_t* scales) {
    for (std::size_t g = 0; g < 32; ++g) {
      const unsigned bits = detail::load2(block.groups + 2 * g);
      detail::put_group(iq2_xs_grid, bits & 511, detail::spread(detail::eight_signs(bits >> 9)), codes + 8 * g);
    }
    detail::put_scales(block.sub_scales, 16, scales);
  }
};

template <>
struct DtypeTraits<iq2_s> : detail::Iq2Traits<iq2_s, Dtype::iq2_s, 16> {
  static constexpr std::string_view name = "iq2_s";
  static void unpack(const iq2_s& block, std::uint8_t* codes, std::uint16_t* scales) {
    for (std::size_t g = 0; g < 32; ++g) {
      const unsigned high = block.indices_high[g / 4] >> (g % 4 * 2) & 3u;
      detail::put_group(iq2_s_grid, block.indices[g] | high << 8, detail::spread(block.signs[g]), codes + 8 * g);
    }
    detail::put_scales(block.sub_scales, 16, scales);
  }
};

template <>
struct DtypeTraits<iq3_xxs> : detail::CodedTraits<iq3_xxs, Dtype::iq3_xxs, 256, 32> {
  static constexpr std::string_view name = "iq3_xxs";
  static constexpr const std::int8_t* table = detail::iq3_xxs_values;  // half of the magnitudes: all are even
  static constexpr float factor = 0.5f;
  static void unpack(const iq3_xxs& block, std::uint8_t* codes, std::uint16_t* scales) {
    for (std::size_t s = 0; s < 8; ++s) {
      const std::uint8_t* rows = block.indices + 8 * s;
      const std::uint32_t bits = detail::load4(block.parts + 4 * s);
      for (std::size_t g = 0; g < 4; ++g, codes += 8) {
        detail::put_groups(iq3_xxs_grid, rows[2 * g], rows[2 * g + 1], detail::eight_signs(bits >> (7 * g) & 127),
                           codes);
      }
      scales[s] = detail::odd(bits >> 28);
    }
  }
};

template <>
struct DtypeTraits<iq3_s> : detail::CodedTraits<iq3_s, Dtype::iq3_s, 256, 32> {
  static constexpr std::string_view name = "iq3_s";
  static constexpr const std::int8_t* table = detail::iq3_s_values;
  static void unpack(const iq3_s& block, std::uint8_t* codes, std::uint16_t* scales) {
    const auto row = [&](std::size_t g) { return block.indices[g] | (block.indices_high[g / 8] >> (g % 8) & 1u) << 8; };
    for (std::size_t g = 0; g < 32; ++g) {
      detail::put_groups(iq3_s_grid, row(2 * g), row(2 * g + 1), block.signs[g], codes + 8 * g);
    }
    detail::put_scales(block.sub_scales, 8, scales);
  }
};

template <>
struct DtypeTraits<iq1_s> : detail::Iq1Traits<iq1_s, Dtype::iq1_s, 32> {
  static constexpr std::string_view name = "iq1_s";
  static void unpack(const iq1_s& block, std::uint8_t* codes, std::uint16_t* scales) {
    for (std::size_t g = 0; g < 32; ++g) {
      const unsigned bits = detail::load2(block.parts + g / 4 * 2), high = bits >> (g % 4 * 3) & 7;
      detail::put_group(iq1_grid, block.indices[g] | high << 8, detail::all8(bits >> 15), codes + 8 * g);
      scales[g / 4] = detail::odd(bits >> 12 & 7);
    }
  }
};

template <>
struct DtypeTraits<iq1_m> : detail::Iq1Traits<iq1_m, Dtype::iq1_m, 16> {
  static constexpr std::string_view name = "iq1_m";
  static void unpack(const iq1_m& block, std::uint8_t* codes, std::uint16_t* scales) {
    for (std::size_t g = 0; g < 32; ++g) {
      const unsigned bits = block.parts[g / 2] >> (g % 2 * 4) & 15u;
      detail::put_group(iq1_grid, block.indices[g] | (bits & 7) << 8, detail::all8(bits >> 3), codes + 8 * g);
    }
    for (std::size_t s = 0; s < 16; ++s) {
      scales[s] = detail::odd(detail::load2(block.scales + s / 4 * 2) >> (s % 4 * 3) & 7u);
    }
  }
  /// Four bits in each of the last bytes.
  static f16 super_scale(const iq1_m& block) {
    unsigned bits = 0;
    for (std::size_t i = 0; i < 4; ++i) bits |= static_cast<unsigned>(block.scales[2 * i + 1] >> 4) << (4 * i);
    return {static_cast<std::uint16_t>(bits)};
  }
};

}  // namespace ple::inline PLE_ABI
