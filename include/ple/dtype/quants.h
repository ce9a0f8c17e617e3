// SPDX-License-Identifier: Apache-2.0
// GGUF's blocks of 32 values: integers of 4 to 8 bits with a common scale, some with a common minimum. Decoding and
// encoding give the same bits as ggml's Python package. In decoding, a scale (11 significant bits) times an integer is
// exact in f32, so only a sum rounds, in any order, fused or not. In encoding, a product is rounded before it is added.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ple/core/config.h"
#include "ple/dtype/floats.h"
#include "ple/dtype/traits.h"

namespace ple::inline PLE_ABI {

/// value[i] = scale * values[i]
struct q8_0 {
  f16 scale;
  std::int8_t values[32] = {};
};

/// 4-bit integers, value i in the lower half of byte i, value i + 16 in the upper: value = scale * (integer - 8)
struct q4_0 {
  f16 scale;
  std::uint8_t pairs[16] = {};
};

/// As q4_0, but value = scale * integer + minimum
struct q4_1 {
  f16 scale, minimum;
  std::uint8_t pairs[16] = {};
};

/// 5-bit integers: the lower 4 as in q4_0, the top bit of value i is bit i of `high`: value = scale * (integer - 16)
struct q5_0 {
  f16 scale;
  std::uint8_t high[4] = {};
  std::uint8_t pairs[16] = {};
};

/// As q5_0, but value = scale * integer + minimum
struct q5_1 {
  f16 scale, minimum;
  std::uint8_t high[4] = {};
  std::uint8_t pairs[16] = {};
};

/// As q4_0, but the integer indexes a table of unequal steps: value = scale * iq4_values[integer]
struct iq4_nl {
  f16 scale;
  std::uint8_t pairs[16] = {};
};

/// The values of iq4_nl and iq4_xs: denser around 0, as weights are.
alignas(16) inline constexpr std::int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                           1,    13,   25,  38,  53,  69,  89,  113};

static_assert(sizeof(q8_0) == 34 && sizeof(q4_0) == 18 && sizeof(q4_1) == 20 && sizeof(q5_0) == 22 &&
                  sizeof(q5_1) == 24 && sizeof(iq4_nl) == 18,
              "blocks have no padding in files");

namespace detail {

/// x rounded to an integer in [least, most], halves away from zero; NaN becomes 0.
inline int rounded(float x, int least, int most) {
  if (!(x == x)) return 0;
  if (x <= static_cast<float>(least)) return least;
  if (x >= static_cast<float>(most)) return most;
  return static_cast<int>(std::round(x));
}

/// x + half, truncated to [0, most], where half is a whole number plus 0.5; NaN becomes 0.
inline unsigned truncated_sum(float x, float half, unsigned most) {
  const volatile float separate = x;  // keeps the compiler from fusing the product that x is with the sum
  const float sum = separate + half;
  return sum >= 0 ? static_cast<unsigned>((std::min)(sum, static_cast<float>(most))) : 0u;
}

inline float value_of_largest_magnitude(const float* values, std::size_t count) {
  float extreme = values[0];
  for (std::size_t i = 1; i < count; ++i) {
    if (std::fabs(values[i]) > std::fabs(extreme)) extreme = values[i];
  }
  return extreme;
}

/// The 5-bit integer of value i.
template <class Block>
int five_bits(const Block& block, std::size_t i) {
  const int low = block.pairs[i % 16] >> (i / 16 * 4) & 15, high = block.high[i / 8] >> (i % 8) & 1;
  return low | high << 4;
}

template <class Block>
void set_five_bits(Block& block, std::size_t i, unsigned integer) {
  block.pairs[i % 16] = static_cast<std::uint8_t>(block.pairs[i % 16] | (integer & 15) << (i / 16 * 4));
  block.high[i / 8] = static_cast<std::uint8_t>(block.high[i / 8] | (integer >> 4) << (i % 8));
}

}  // namespace detail

template <>
struct DtypeTraits<q8_0> : BlockTraits<Dtype::q8_0, 32> {
  static constexpr std::string_view name = "q8_0";
  static void decode(const q8_0& block, float* values) {
    const float scale = to_f32(block.scale);
    for (std::size_t i = 0; i < 32; ++i) values[i] = scale * static_cast<float>(block.values[i]);
  }
  /// The largest magnitude becomes 127.
  static void encode(const float* values, q8_0& block) {
    float largest = 0;
    for (std::size_t i = 0; i < 32; ++i) largest = (std::max)(largest, std::fabs(values[i]));
    const float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
    block.scale = to_f16(scale);
    for (std::size_t i = 0; i < 32; ++i) {
      block.values[i] = static_cast<std::int8_t>(detail::rounded(values[i] * inverse, -127, 127));
    }
  }
};

template <>
struct DtypeTraits<q4_0> : BlockTraits<Dtype::q4_0, 32> {
  static constexpr std::string_view name = "q4_0";
  static void decode(const q4_0& block, float* values) {
    const float scale = to_f32(block.scale);
    for (std::size_t i = 0; i < 16; ++i) {
      values[i] = scale * static_cast<float>((block.pairs[i] & 15) - 8);
      values[i + 16] = scale * static_cast<float>((block.pairs[i] >> 4) - 8);
    }
  }
  /// The value of largest magnitude becomes -8; the scale takes its sign.
  static void encode(const float* values, q4_0& block) {
    const float scale = detail::value_of_largest_magnitude(values, 32) / -8, inverse = scale != 0 ? 1 / scale : 0;
    block.scale = to_f16(scale);
    const auto integer = [&](float value) { return detail::truncated_sum(value * inverse, 8.5f, 15); };
    for (std::size_t i = 0; i < 16; ++i) {
      block.pairs[i] = static_cast<std::uint8_t>(integer(values[i]) | integer(values[i + 16]) << 4);
    }
  }
};

template <>
struct DtypeTraits<q4_1> : BlockTraits<Dtype::q4_1, 32> {
  static constexpr std::string_view name = "q4_1";
  static void decode(const q4_1& block, float* values) {
    const float scale = to_f32(block.scale), minimum = to_f32(block.minimum);
    for (std::size_t i = 0; i < 16; ++i) {
      values[i] = scale * static_cast<float>(block.pairs[i] & 15) + minimum;
      values[i + 16] = scale * static_cast<float>(block.pairs[i] >> 4) + minimum;
    }
  }
  /// The least value becomes 0, the largest 15.
  static void encode(const float* values, q4_1& block) {
    const float least = *std::min_element(values, values + 32), largest = *std::max_element(values, values + 32);
    const float scale = (largest - least) / 15, inverse = scale != 0 ? 1 / scale : 0;
    block.scale = to_f16(scale);
    block.minimum = to_f16(least);
    const auto integer = [&](float value) { return detail::truncated_sum((value - least) * inverse, 0.5f, 15); };
    for (std::size_t i = 0; i < 16; ++i) {
      block.pairs[i] = static_cast<std::uint8_t>(integer(values[i]) | integer(values[i + 16]) << 4);
    }
  }
};

template <>
struct DtypeTraits<q5_0> : BlockTraits<Dtype::q5_0, 32> {
  static constexpr std::string_view name = "q5_0";
  static void decode(const q5_0& block, float* values) {
    const float scale = to_f32(block.scale);
    for (std::size_t i = 0; i < 32; ++i) values[i] = scale * static_cast<float>(detail::five_bits(block, i) - 16);
  }
  /// The value of largest magnitude becomes -16; the scale takes its sign.
  static void encode(const float* values, q5_0& block) {
    const float scale = detail::value_of_largest_magnitude(values, 32) / -16, inverse = scale != 0 ? 1 / scale : 0;
    block = {.scale = to_f16(scale)};
    for (std::size_t i = 0; i < 32; ++i) {
      detail::set_five_bits(block, i, detail::truncated_sum(values[i] * inverse, 16.5f, 31));
    }
  }
};

template <>
struct DtypeTraits<q5_1> : BlockTraits<Dtype::q5_1, 32> {
  static constexpr std::string_view name = "q5_1";
  static void decode(const q5_1& block, float* values) {
    const float scale = to_f32(block.scale), minimum = to_f32(block.minimum);
    for (std::size_t i = 0; i < 32; ++i) {
      values[i] = scale * static_cast<float>(detail::five_bits(block, i)) + minimum;
    }
  }
  /// The least value becomes 0, the largest 31.
  static void encode(const float* values, q5_1& block) {
    const float least = *std::min_element(values, values + 32), largest = *std::max_element(values, values + 32);
    const float scale = (largest - least) / 31, inverse = scale != 0 ? 1 / scale : 0;
    block = {.scale = to_f16(scale), .minimum = to_f16(least)};
    for (std::size_t i = 0; i < 32; ++i) {
      detail::set_five_bits(block, i, detail::truncated_sum((values[i] - least) * inverse, 0.5f, 31));
    }
  }
};

template <>
struct DtypeTraits<iq4_nl> : BlockTraits<Dtype::iq4_nl, 32> {
  static constexpr std::string_view name = "iq4_nl";
  static void decode(const iq4_nl& block, float* values) {
    const float scale = to_f32(block.scale);
    for (std::size_t i = 0; i < 16; ++i) {
      values[i] = scale * static_cast<float>(iq4_values[block.pairs[i] & 15]);
      values[i + 16] = scale * static_cast<float>(iq4_values[block.pairs[i] >> 4]);
    }
  }
};

}  // namespace ple::inline PLE_ABI
