// SPDX-License-Identifier: Apache-2.0
// Block types as what integer dot products want: 256 values of a row as bytes, with a scale for each sub-block.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include "ple/dtype/dtype.h"

namespace ple {

/// Rows are computed with in chunks of as many values.
inline constexpr std::size_t values_per_chunk = 256;

/// A chunk: value = scale * (integer - zero_point) - minimum, scale and minimum of the value's sub-block. Those of
/// sub-block s of n stand at lane_of(s, n).
struct IntegerChunk {
  alignas(64) std::uint8_t integers[values_per_chunk];
  float scales[16];
  float minimums[16];
};

/// The place of a sub-block's numbers among n: the order in which sums of neighbouring vectors come out.
constexpr std::size_t lane_of(std::size_t s, std::size_t n) { return s % (n / 4) * 4 + s / (n / 4); }

/// How a block type is unpacked. zero_point is 128 where all 8 bits are used, else integers are below 64.
template <class T>
struct IntegerTraits;

template <class T>
concept IntegerType = requires(const T* blocks, std::size_t count, IntegerChunk& chunk) {
  { IntegerTraits<T>::zero_point } -> std::convertible_to<int>;
  { IntegerTraits<T>::sub_block } -> std::convertible_to<std::size_t>;
  { IntegerTraits<T>::has_minimum } -> std::convertible_to<bool>;
  IntegerTraits<T>::unpack(blocks, count, chunk);
};

namespace detail {

/// Types of blocks of 32: `count` blocks, at most 8; sub-blocks that are not there count nothing.
template <class T, int zero, bool minimum>
struct SmallBlocks {
  static constexpr int zero_point = zero;
  static constexpr std::size_t sub_block = 32;
  static constexpr bool has_minimum = minimum;
  static void unpack(const T* blocks, std::size_t count, IntegerChunk& chunk) {
    for (std::size_t b = 0; b < count; ++b) {
      scales(blocks[b], b, chunk);
      IntegerTraits<T>::integers(blocks[b], chunk.integers + 32 * b);
    }
    fill_from(count, chunk);
  }
  static void scales(const T& block, std::size_t b, IntegerChunk& chunk) {
    chunk.scales[lane_of(b, 8)] = to_f32(block.scale);
    if constexpr (minimum) chunk.minimums[lane_of(b, 8)] = -to_f32(block.minimum);
  }
  static void fill_from(std::size_t count, IntegerChunk& chunk) {
    for (std::size_t b = count; b < 8; ++b) {
      std::fill_n(chunk.integers + 32 * b, 32, std::uint8_t{0});
      chunk.scales[lane_of(b, 8)] = chunk.minimums[lane_of(b, 8)] = 0;
    }
  }
};

/// Types of super-blocks of 256: always one.
template <class T, int zero, std::size_t sub, bool minimum>
struct SuperBlock {
  static constexpr int zero_point = zero;
  static constexpr std::size_t sub_block = sub;
  static constexpr bool has_minimum = minimum;
  static void unpack(const T* block, std::size_t, IntegerChunk& chunk) {
    IntegerTraits<T>::numbers(*block, chunk.scales, chunk.minimums);
    IntegerTraits<T>::integers(*block, chunk.integers);
  }
};

template <class T>
void sub_numbers(const T& block, float* scales, float* minimums) {
  const SubScales sub = unpacked(block.scales);
  const float scale = to_f32(block.scale), min_scale = to_f32(block.min_scale);
  for (std::size_t s = 0; s < 8; ++s) {
    scales[lane_of(s, 8)] = scale * static_cast<float>(sub.scales[s]);
    minimums[lane_of(s, 8)] = min_scale * static_cast<float>(sub.minimums[s]);
  }
}

}  // namespace detail

template <>
struct IntegerTraits<q8_0> : detail::SmallBlocks<q8_0, 128, false> {
  static void integers(const q8_0& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 32; ++i) out[i] = static_cast<std::uint8_t>(block.values[i] ^ 0x80);
  }
};

template <>
struct IntegerTraits<q4_0> : detail::SmallBlocks<q4_0, 8, false> {
  static void integers(const q4_0& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 32; ++i) out[i] = block.pairs[i % 16] >> (i / 16 * 4) & 15;
  }
};

template <>
struct IntegerTraits<q4_1> : detail::SmallBlocks<q4_1, 0, true> {
  static void integers(const q4_1& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 32; ++i) out[i] = block.pairs[i % 16] >> (i / 16 * 4) & 15;
  }
};

template <>
struct IntegerTraits<q5_0> : detail::SmallBlocks<q5_0, 16, false> {
  static void integers(const q5_0& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 32; ++i) out[i] = static_cast<std::uint8_t>(detail::five_bits(block, i));
  }
};

template <>
struct IntegerTraits<q5_1> : detail::SmallBlocks<q5_1, 0, true> {
  static void integers(const q5_1& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 32; ++i) out[i] = static_cast<std::uint8_t>(detail::five_bits(block, i));
  }
};

template <>
struct IntegerTraits<iq4_nl> : detail::SmallBlocks<iq4_nl, 128, false> {
  static void integers(const iq4_nl& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 32; ++i) {
      out[i] = static_cast<std::uint8_t>(iq4_values[block.pairs[i % 16] >> (i / 16 * 4) & 15] ^ 0x80);
    }
  }
};

template <>
struct IntegerTraits<q2_k> : detail::SuperBlock<q2_k, 0, 16, true> {
  static void numbers(const q2_k& block, float* scales, float* minimums) {
    const float scale = to_f32(block.scale), min_scale = to_f32(block.min_scale);
    for (std::size_t s = 0; s < 16; ++s) {
      scales[lane_of(s, 16)] = scale * static_cast<float>(block.scales[s] & 15);
      minimums[lane_of(s, 16)] = min_scale * static_cast<float>(block.scales[s] >> 4);
    }
  }
  static void integers(const q2_k& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 256; ++i) out[i] = static_cast<std::uint8_t>(detail::two_bits(block.quads, i));
  }
};

template <>
struct IntegerTraits<q3_k> : detail::SuperBlock<q3_k, 4, 16, false> {
  static void numbers(const q3_k& block, float* scales, float*) {
    const float scale = to_f32(block.scale);
    for (std::size_t s = 0; s < 16; ++s) {
      const int low = block.scales[s % 8] >> (s / 8 * 4) & 15, high = block.scales[8 + s % 4] >> (s / 4 * 2) & 3;
      scales[lane_of(s, 16)] = scale * static_cast<float>((low | high << 4) - 32);
    }
  }
  static void integers(const q3_k& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 256; ++i) {
      const int third = block.high[i % 32] >> (i / 32) & 1;
      out[i] = static_cast<std::uint8_t>(detail::two_bits(block.quads, i) | third << 2);
    }
  }
};

template <>
struct IntegerTraits<q4_k> : detail::SuperBlock<q4_k, 0, 32, true> {
  static void numbers(const q4_k& block, float* scales, float* minimums) {
    detail::sub_numbers(block, scales, minimums);
  }
  static void integers(const q4_k& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 256; ++i) out[i] = block.pairs[detail::pair_of(i)] >> detail::half_of(i) & 15;
  }
};

template <>
struct IntegerTraits<q5_k> : detail::SuperBlock<q5_k, 0, 32, true> {
  static void numbers(const q5_k& block, float* scales, float* minimums) {
    detail::sub_numbers(block, scales, minimums);
  }
  static void integers(const q5_k& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 256; ++i) {
      const int low = block.pairs[detail::pair_of(i)] >> detail::half_of(i) & 15;
      out[i] = static_cast<std::uint8_t>(low | (block.high[i % 32] >> (i / 32) & 1) << 4);
    }
  }
};

template <>
struct IntegerTraits<q6_k> : detail::SuperBlock<q6_k, 32, 16, false> {
  static void numbers(const q6_k& block, float* scales, float*) {
    const float scale = to_f32(block.scale);
    for (std::size_t s = 0; s < 16; ++s) scales[lane_of(s, 16)] = scale * static_cast<float>(block.scales[s]);
  }
  static void integers(const q6_k& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 256; ++i) {
      const int low = block.pairs[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
      out[i] = static_cast<std::uint8_t>(low | detail::two_bits(block.high, i) << 4);
    }
  }
};

template <>
struct IntegerTraits<iq4_xs> : detail::SuperBlock<iq4_xs, 128, 32, false> {
  static void numbers(const iq4_xs& block, float* scales, float*) {
    for (std::size_t s = 0; s < 8; ++s) {
      const int low = block.scales_low[s / 2] >> (s % 2 * 4) & 15, high = block.scales_high[s / 4] >> (s % 4 * 2) & 3;
      scales[lane_of(s, 8)] = to_f32(block.scale) * static_cast<float>((low | high << 4) - 32);
    }
  }
  static void integers(const iq4_xs& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 256; ++i) {
      out[i] =
          static_cast<std::uint8_t>(iq4_values[block.pairs[i / 32 * 16 + i % 16] >> (i % 32 / 16 * 4) & 15] ^ 0x80);
    }
  }
};

/// Calls f.template operator()<T>() with the type that `dtype` stands for, which must be an IntegerType.
template <class F>
decltype(auto) with_integer_type(Dtype dtype, F&& f) {
  return with_dtype(dtype, [&]<class T>() -> decltype(f.template operator()<q8_0>()) {
    if constexpr (IntegerType<T>) {
      return f.template operator()<T>();
    } else {
      return f.template operator()<q8_0>();  // never asked for
    }
  });
}

inline bool is_integer_type(Dtype dtype) {
  return with_dtype(dtype, []<class T>() { return IntegerType<T>; });
}

}  // namespace ple
