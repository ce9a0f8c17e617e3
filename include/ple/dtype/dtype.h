// SPDX-License-Identifier: Apache-2.0
// The number types weights are stored in. A type is the block it is stored as; DtypeTraits says what is in the block.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace ple {

/// The types a file may name.
enum class Dtype : std::uint8_t { f32, bf16, f16, q8_0, q4_0 };
inline constexpr Dtype all_dtypes[] = {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::q8_0, Dtype::q4_0};

using f32 = float;

/// The upper half of an f32: 8 bits of exponent, 7 of fraction.
struct bf16 {
  std::uint16_t bits = 0;
};

/// IEEE 754 binary16: 5 bits of exponent, 10 of fraction.
struct f16 {
  std::uint16_t bits = 0;
};

/// 32 values as 8-bit integers with a common scale, as in GGUF: value[i] = scale * values[i].
struct q8_0 {
  f16 scale;
  std::int8_t values[32] = {};
};

/// 32 values as 4-bit integers with a common scale, as in GGUF: byte i holds value i in its lower half and value i + 16
/// in its upper half; value = scale * (integer - 8).
struct q4_0 {
  f16 scale;
  std::uint8_t pairs[16] = {};
};

static_assert(sizeof(q8_0) == 34 && sizeof(q4_0) == 18, "blocks lie in files without gaps");

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

/// Rounds to nearest, ties to even; a NaN stays a NaN.
inline bf16 to_bf16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

/// Rounds to nearest, ties to even; too large becomes infinite; a NaN stays a NaN.
inline f16 to_f16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const auto with_sign = [&](std::uint32_t half) { return f16{static_cast<std::uint16_t>(sign | half)}; };
  if (magnitude > 0x7f800000u) return with_sign(0x7e00u | (magnitude >> 13 & 0x3ffu));
  if (magnitude >= 0x477ff000u) return with_sign(0x7c00u);  // 65520 and above
  if (magnitude < 0x38800000u) {                            // below 2^-14: a multiple of 2^-24
    // Adding 0.5 aligns the last place of the sum with 2^-24, so the addition itself does the rounding.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return with_sign(std::bit_cast<std::uint32_t>(sum) - 0x3f000000u);
  }
  return with_sign((magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13);
}

/// What a stored type is: its name, how many values one block holds, and how a block is decoded and encoded.
template <class T>
struct DtypeTraits;

template <>
struct DtypeTraits<f32> {
  static constexpr Dtype id = Dtype::f32;
  static constexpr std::string_view name = "f32";
  static constexpr std::size_t values_per_block = 1;
  static void decode(const f32& block, float* values) { *values = block; }
  static void encode(const float* values, f32& block) { block = *values; }
};

template <>
struct DtypeTraits<bf16> {
  static constexpr Dtype id = Dtype::bf16;
  static constexpr std::string_view name = "bf16";
  static constexpr std::size_t values_per_block = 1;
  static void decode(const bf16& block, float* values) { *values = to_f32(block); }
  static void encode(const float* values, bf16& block) { block = to_bf16(*values); }
};

template <>
struct DtypeTraits<f16> {
  static constexpr Dtype id = Dtype::f16;
  static constexpr std::string_view name = "f16";
  static constexpr std::size_t values_per_block = 1;
  static void decode(const f16& block, float* values) { *values = to_f32(block); }
  static void encode(const float* values, f16& block) { block = to_f16(*values); }
};

namespace detail {

/// x as an integer, halves away from zero; whatever is no number becomes 0.
inline int rounded(float x, int least, int most) {
  if (!(x == x)) return 0;
  if (x <= static_cast<float>(least)) return least;
  if (x >= static_cast<float>(most)) return most;
  return static_cast<int>(std::round(x));
}

}  // namespace detail

template <>
struct DtypeTraits<q8_0> {
  static constexpr Dtype id = Dtype::q8_0;
  static constexpr std::string_view name = "q8_0";
  static constexpr std::size_t values_per_block = 32;
  static void decode(const q8_0& block, float* values) {
    const float scale = to_f32(block.scale);
    for (std::size_t i = 0; i < 32; ++i) values[i] = scale * static_cast<float>(block.values[i]);
  }
  /// The largest magnitude becomes 127.
  static void encode(const float* values, q8_0& block) {
    float largest = 0;
    for (std::size_t i = 0; i < 32; ++i) largest = std::max(largest, std::fabs(values[i]));
    const float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
    block.scale = to_f16(scale);
    for (std::size_t i = 0; i < 32; ++i) {
      block.values[i] = static_cast<std::int8_t>(detail::rounded(values[i] * inverse, -127, 127));
    }
  }
};

template <>
struct DtypeTraits<q4_0> {
  static constexpr Dtype id = Dtype::q4_0;
  static constexpr std::string_view name = "q4_0";
  static constexpr std::size_t values_per_block = 32;
  static void decode(const q4_0& block, float* values) {
    const float scale = to_f32(block.scale);
    for (std::size_t i = 0; i < 16; ++i) {
      values[i] = scale * static_cast<float>((block.pairs[i] & 15) - 8);
      values[i + 16] = scale * static_cast<float>((block.pairs[i] >> 4) - 8);
    }
  }
  /// The value of largest magnitude becomes -8, whatever its sign: the scale takes it.
  static void encode(const float* values, q4_0& block) {
    float extreme = 0;
    for (std::size_t i = 0; i < 32; ++i) {
      if (std::fabs(values[i]) > std::fabs(extreme)) extreme = values[i];
    }
    const float scale = extreme / -8, inverse = scale != 0 ? 1 / scale : 0;
    block.scale = to_f16(scale);
    const auto integer = [&](float value) {
      const float shifted = value * inverse + 8.5f;  // truncated below, so halves go up
      return shifted >= 0 ? std::min(static_cast<unsigned>(std::min(shifted, 15.0f)), 15u) : 0u;
    };
    for (std::size_t i = 0; i < 16; ++i) {
      block.pairs[i] = static_cast<std::uint8_t>(integer(values[i]) | integer(values[i + 16]) << 4);
    }
  }
};

/// A type that weights can be stored in.
template <class T>
concept StoredType = requires(const T& block, T& out, float* values, const float* in) {
  { DtypeTraits<T>::name } -> std::convertible_to<std::string_view>;
  { DtypeTraits<T>::values_per_block } -> std::convertible_to<std::size_t>;
  DtypeTraits<T>::decode(block, values);
  DtypeTraits<T>::encode(in, out);
};

/// Calls f.template operator()<T>() with the type that `type` stands for.
template <class F>
decltype(auto) with_dtype(Dtype type, F&& f) {
  switch (type) {
    case Dtype::bf16: return f.template operator()<bf16>();
    case Dtype::f16: return f.template operator()<f16>();
    case Dtype::q8_0: return f.template operator()<q8_0>();
    case Dtype::q4_0: return f.template operator()<q4_0>();
    case Dtype::f32: break;
  }
  return f.template operator()<f32>();
}

inline std::string_view name_of(Dtype type) {
  return with_dtype(type, []<class T>() { return DtypeTraits<T>::name; });
}

inline std::optional<Dtype> dtype_of_name(std::string_view name) {
  for (const Dtype type : all_dtypes) {
    if (name_of(type) == name) return type;
  }
  return std::nullopt;
}

inline std::size_t values_per_block(Dtype type) {
  return with_dtype(type, []<class T>() { return DtypeTraits<T>::values_per_block; });
}

/// Where a value of the type may begin in memory.
inline std::size_t alignment_of(Dtype type) {
  return with_dtype(type, []<class T>() { return alignof(T); });
}

/// What `count` values take, a whole number of blocks.
inline std::size_t bytes_of(Dtype type, std::size_t count) {
  return with_dtype(type, [&]<class T>() { return count / DtypeTraits<T>::values_per_block * sizeof(T); });
}

/// `value` after it was stored as `type` and read back. A single value has no block: it stays what it is there.
inline float rounded_to(Dtype type, float value) {
  if (type == Dtype::bf16) return to_f32(to_bf16(value));
  if (type == Dtype::f16) return to_f32(to_f16(value));
  return value;
}

}  // namespace ple
