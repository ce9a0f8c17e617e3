// SPDX-License-Identifier: Apache-2.0
// Unpacks block types for integer dot products, in plain C++: 256 values of a row as bytes, and their scales.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ple/core/config.h"
#include "ple/dtype/coded.h"
#include "ple/dtype/dtype.h"
#include "ple/dtype/packed_bits.h"

namespace ple::inline PLE_ABI {

inline constexpr std::size_t values_per_chunk = 256;  ///< rows are processed in chunks of this many values

/// A chunk: value = factor * scale * (integer - zero_point) - minimum, with the sub-block's scale and minimum.
/// `integer` is the quant, or the table's entry for it, plus 128, where the type has a table.
struct QuantChunk {
  alignas(64) std::uint8_t quants[values_per_chunk];
  /// Bits of f16 or bf16, or integers below 128 (signed without minimums) to multiply with super_scale, super_minimum.
  std::uint16_t scales[16], minimums[16];
  std::uint16_t super_scale = 0, super_minimum = 0;  // bits of f16
};

/// Unpacks a type: `quants` writes a block's quants; `scales`, for blocks of 256, its scales and minimums. A type of
/// codes has `unpack`, which does all. zero_point is 128 where integers use all 8 bits or are a table's; others are
/// below 64.
template <class T>
struct IntegerTraits;

template <class T>
concept IntegerType = requires(const T& block, std::uint8_t* out) {
  { IntegerTraits<T>::zero_point } -> std::convertible_to<int>;
  { IntegerTraits<T>::sub_block } -> std::convertible_to<std::size_t>;
  { IntegerTraits<T>::has_minimum } -> std::convertible_to<bool>;
}
&&(CodedType<T> || requires(const T& block, std::uint8_t* out) { IntegerTraits<T>::quants(block, out); });

namespace detail {

/// A type of single values, or a type of blocks that has IntegerTraits: there is no product with other blocks.
template <class T>
inline constexpr bool can_be_multiplied = DtypeTraits<T>::values_per_block == 1 || IntegerType<T>;

template <int zero, std::size_t sub, int all_bits, bool minimum>
struct IntegerShape {
  static constexpr int zero_point = zero;
  static constexpr std::size_t sub_block = sub;
  static constexpr int bits = all_bits;  // of a quant
  static constexpr bool has_minimum = minimum;
  static constexpr const std::int8_t* table = nullptr;
  static constexpr float factor = 1;
};

template <class Block>
void five_bit_quants(const Block& block, std::uint8_t* out) {
  nibbles(block.pairs, out);
  for (std::size_t i = 0; i < 4; ++i) store8(load8(out + 8 * i) | spread(block.high[i]) << 4, out + 8 * i);
}

/// ORs 256 quants of 1 bit (bit i / 32 of byte i % 32), shifted left by `up`, into `out`.
inline void add_one_bit(const std::uint8_t* high, int up, std::uint8_t* out) {
  for (std::size_t i = 0; i < 256; i += 8) {
    const std::uint64_t one = load8(high + i % 32) >> (i / 32) & all8(1);
    store8(load8(out + i) | one << up, out + i);
  }
}
/// 256 quants of 4 bits, stored as in q4_k.
inline void pairs_of_sub_blocks(const std::uint8_t* pairs, std::uint8_t* out) {
  for (std::size_t i = 0; i < 256; i += 8) {
    store8(load8(pairs + pair_of(i)) >> half_of(i) & all8(15), out + i);
  }
}

template <class T>
void sub_scales(const T& block, QuantChunk& chunk) {
  const SubScales sub = unpacked(block.scales);
  std::copy_n(sub.scales, 8, chunk.scales);
  std::copy_n(sub.minimums, 8, chunk.minimums);
  chunk.super_minimum = block.min_scale.bits;
}

}  // namespace detail

template <>
struct IntegerTraits<q8_0> : detail::IntegerShape<128, 32, 8, false> {
  static void quants(const q8_0& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 32; i += 8)
      detail::store8(detail::load8(block.values + i) ^ detail::all8(128), out + i);
  }
};

template <>
struct IntegerTraits<q4_0> : detail::IntegerShape<8, 32, 4, false> {
  static void quants(const q4_0& block, std::uint8_t* out) { detail::nibbles(block.pairs, out); }
};

template <>
struct IntegerTraits<q4_1> : detail::IntegerShape<0, 32, 4, true> {
  static void quants(const q4_1& block, std::uint8_t* out) { detail::nibbles(block.pairs, out); }
};

template <>
struct IntegerTraits<q5_0> : detail::IntegerShape<16, 32, 5, false> {
  static void quants(const q5_0& block, std::uint8_t* out) { detail::five_bit_quants(block, out); }
};

template <>
struct IntegerTraits<q5_1> : detail::IntegerShape<0, 32, 5, true> {
  static void quants(const q5_1& block, std::uint8_t* out) { detail::five_bit_quants(block, out); }
};

template <>
struct IntegerTraits<iq4_nl> : detail::IntegerShape<128, 32, 4, false> {
  static constexpr const std::int8_t* table = iq4_values;
  static void quants(const iq4_nl& block, std::uint8_t* out) { detail::nibbles(block.pairs, out); }
};

template <>
struct IntegerTraits<q2_k> : detail::IntegerShape<0, 16, 2, true> {
  static void scales(const q2_k& block, QuantChunk& chunk) {
    for (std::size_t s = 0; s < 16; ++s) {
      chunk.scales[s] = block.scales[s] & 15;
      chunk.minimums[s] = block.scales[s] >> 4;
    }
    chunk.super_minimum = block.min_scale.bits;
  }
  static void quants(const q2_k& block, std::uint8_t* out) {
    std::fill_n(out, 256, std::uint8_t{0});
    detail::add_two_bits(block.quads, 0, out);
  }
};

template <>
struct IntegerTraits<q3_k> : detail::IntegerShape<4, 16, 3, false> {
  static void scales(const q3_k& block, QuantChunk& chunk) {
    for (std::size_t s = 0; s < 16; ++s) {
      const int low = block.scales[s % 8] >> (s / 8 * 4) & 15, high = block.scales[8 + s % 4] >> (s / 4 * 2) & 3;
      chunk.scales[s] = static_cast<std::uint16_t>((low | high << 4) - 32);
    }
  }
  static void quants(const q3_k& block, std::uint8_t* out) {
    std::fill_n(out, 256, std::uint8_t{0});
    detail::add_two_bits(block.quads, 0, out);
    detail::add_one_bit(block.high, 2, out);
  }
};

template <>
struct IntegerTraits<q4_k> : detail::IntegerShape<0, 32, 4, true> {
  static void scales(const q4_k& block, QuantChunk& chunk) { detail::sub_scales(block, chunk); }
  static void quants(const q4_k& block, std::uint8_t* out) { detail::pairs_of_sub_blocks(block.pairs, out); }
};

template <>
struct IntegerTraits<q5_k> : detail::IntegerShape<0, 32, 5, true> {
  static void scales(const q5_k& block, QuantChunk& chunk) { detail::sub_scales(block, chunk); }
  static void quants(const q5_k& block, std::uint8_t* out) {
    detail::pairs_of_sub_blocks(block.pairs, out);
    detail::add_one_bit(block.high, 4, out);
  }
};

template <>
struct IntegerTraits<q6_k> : detail::IntegerShape<32, 16, 6, false> {
  static void scales(const q6_k& block, QuantChunk& chunk) {
    for (std::size_t s = 0; s < 16; ++s) chunk.scales[s] = static_cast<std::uint8_t>(block.scales[s]);
  }
  static void quants(const q6_k& block, std::uint8_t* out) {
    for (std::size_t i = 0; i < 256; i += 8) {
      const std::uint64_t pairs = detail::load8(block.pairs + i / 128 * 64 + i % 64);
      detail::store8(pairs >> (i % 128 / 64 * 4) & detail::all8(15), out + i);
    }
    detail::add_two_bits(block.high, 4, out);
  }
};

template <>
struct IntegerTraits<iq4_xs> : detail::IntegerShape<128, 32, 4, false> {
  static constexpr const std::int8_t* table = iq4_values;
  static void scales(const iq4_xs& block, QuantChunk& chunk) {
    for (std::size_t s = 0; s < 8; ++s) {
      const int low = block.scales_low[s / 2] >> (s % 2 * 4) & 15, high = block.scales_high[s / 4] >> (s % 4 * 2) & 3;
      chunk.scales[s] = static_cast<std::uint16_t>((low | high << 4) - 32);
    }
  }
  static void quants(const iq4_xs& block, std::uint8_t* out) {
    for (std::size_t s = 0; s < 8; ++s) detail::nibbles(block.pairs + 16 * s, out + 32 * s);
  }
};

/// Codes of 4 bits go through their table in products, too. Those of 2 are integers, since their values are
/// consecutive.
template <CodedType T>
struct IntegerTraits<T> : detail::IntegerShape<DtypeTraits<T>::code_bits == 2 ? -DtypeTraits<T>::table[0] : 128,
                                               DtypeTraits<T>::sub_block, DtypeTraits<T>::code_bits, false> {
  static constexpr const std::int8_t* table = DtypeTraits<T>::code_bits == 2 ? nullptr : DtypeTraits<T>::table;
  static constexpr float factor = DtypeTraits<T>::factor;
};

/// A block type at run time: a table, as DtypeInfo.
struct IntegerFormat {
  int zero_point = 0;
  std::size_t sub_block = 0;
  int bits = 0;
  bool has_minimum = false;
  bool has_super_scale = false;        ///< scales and minimums are integers, to multiply with the super-block's
  bool has_bf16_scales = false;        ///< and not f16
  const std::int8_t* table = nullptr;  ///< of 16 values, aligned, that quants index; they get 128 added. Or null
  /// A power of two that belongs to every scale but is not stored with it: products multiply it to the activations'.
  float factor = 1;
  /// Unpacks a chunk's `count` sub-blocks; what is missing to 256 values becomes 0.
  void (*unpack)(const std::byte* blocks, std::size_t count, QuantChunk& chunk) = nullptr;
};

namespace detail {

template <class T>
void unpack_chunk(const std::byte* bytes, std::size_t count, QuantChunk& chunk) {
  constexpr std::size_t values = DtypeTraits<T>::values_per_block, sub = IntegerTraits<T>::sub_block;
  const T* blocks = reinterpret_cast<const T*>(bytes);
  if constexpr (values == values_per_chunk) {
    if constexpr (CodedType<T>) {
      DtypeTraits<T>::unpack(*blocks, chunk.quants, chunk.scales);
      chunk.super_scale = DtypeTraits<T>::super_scale(*blocks).bits;
    } else {
      IntegerTraits<T>::scales(*blocks, chunk);
      chunk.super_scale = blocks->scale.bits;
      IntegerTraits<T>::quants(*blocks, chunk.quants);
    }
  } else {
    count = (std::min)(count, values_per_chunk / sub);
    for (std::size_t b = 0; b < count * sub / values; ++b) {
      if constexpr (CodedType<T>) {
        DtypeTraits<T>::unpack(blocks[b], chunk.quants + values * b, chunk.scales + values / sub * b);
      } else {
        chunk.scales[b] = blocks[b].scale.bits;
        // These types add their minimum, so its sign is flipped.
        if constexpr (IntegerTraits<T>::has_minimum) chunk.minimums[b] = blocks[b].minimum.bits ^ 0x8000;
        IntegerTraits<T>::quants(blocks[b], chunk.quants + values * b);
      }
    }
    for (std::size_t s = count; s < values_per_chunk / sub; ++s) {
      std::fill_n(chunk.quants + sub * s, sub, std::uint8_t{0});
      chunk.scales[s] = chunk.minimums[s] = 0;
    }
  }
}

template <class T>
constexpr IntegerFormat integer_format_of() {
  if constexpr (IntegerType<T>) {
    using Traits = IntegerTraits<T>;
    constexpr bool has_super_scale = DtypeTraits<T>::values_per_block == values_per_chunk;
    return {Traits::zero_point,  Traits::sub_block, Traits::bits,
            Traits::has_minimum, has_super_scale,   CodedType<T> && !has_super_scale,
            Traits::table,       Traits::factor,    &unpack_chunk<T>};
  } else {
    return {};
  }
}

template <class... Ts>
constexpr auto integer_formats_of(TypeList<Ts...> /*types*/) {
  return std::array{integer_format_of<Ts>()...};
}

inline constexpr auto integer_formats = integer_formats_of(StoredTypes());

}  // namespace detail

constexpr const IntegerFormat& integer_format(Dtype dtype) {
  return detail::integer_formats[static_cast<std::size_t>(dtype)];
}

constexpr bool is_integer_type(Dtype dtype) { return integer_format(dtype).unpack != nullptr; }

/// The integer that a quant stands for.
inline std::uint8_t integer_of(const IntegerFormat& format, std::uint8_t quant) {
  return format.table ? static_cast<std::uint8_t>(format.table[quant] + 128) : quant;
}

/// A scale or minimum as one number. `scale`, `super_scale`: QuantChunk's.
inline float whole_scale(const IntegerFormat& format, std::uint16_t scale, std::uint16_t super_scale) {
  if (format.has_super_scale) return to_f32(f16{super_scale}) * static_cast<float>(static_cast<std::int8_t>(scale));
  return format.has_bf16_scales ? to_f32(bf16{scale}) : to_f32(f16{scale});
}

/// Whether a scale or minimum stored as one number is f32, for types that multiply two and for those with bf16; or f16.
constexpr bool has_f32_scales(const IntegerFormat& format) { return format.has_super_scale || format.has_bf16_scales; }

/// Bytes of a scale or minimum stored as one number.
constexpr std::size_t whole_scale_size(const IntegerFormat& format) {
  return has_f32_scales(format) ? sizeof(float) : sizeof(f16);
}

/// Stores a scale or minimum as one number. `scale`, `super_scale`: QuantChunk's.
inline void store_scale(const IntegerFormat& format, std::uint16_t scale, std::uint16_t super_scale, std::byte* to) {
  if (!has_f32_scales(format)) {
    std::memcpy(to, &scale, sizeof scale);
    return;
  }
  const float whole = whole_scale(format, scale, super_scale);
  std::memcpy(to, &whole, sizeof whole);
}

/// Reads the number at index `at` of those that store_scale wrote from `scales` on.
inline float load_scale(const IntegerFormat& format, const std::byte* scales, std::size_t at) {
  f16 half;
  float whole;
  if (has_f32_scales(format)) {
    std::memcpy(&whole, scales + at * sizeof whole, sizeof whole);
    return whole;
  }
  std::memcpy(&half, scales + at * sizeof half, sizeof half);
  return to_f32(half);
}

/// Decodes n values, whole blocks, of a type of codes: the same values as from DtypeTraits. One function for all these
/// types compiles faster than one for each.
inline void decode_codes(Dtype dtype, const std::byte* blocks, std::size_t n, float* out) {
  const IntegerFormat& format = integer_format(dtype);
  const std::size_t sub = format.sub_block;
  float values[16];
  for (int code = 0; code < 16; ++code) {
    values[code] = static_cast<float>(format.table ? format.table[code] : code - format.zero_point);
  }
  QuantChunk chunk;
  for (std::size_t i = 0; i < n; i += sub) {
    const std::size_t s = i % values_per_chunk / sub;
    if (s == 0) format.unpack(blocks + bytes_of(dtype, i), (n - i) / sub, chunk);
    const float scale = format.factor * whole_scale(format, chunk.scales[s], chunk.super_scale);
    for (std::size_t k = 0; k < sub; ++k) out[i + k] = scale * values[chunk.quants[s * sub + k]];
  }
}

}  // namespace ple::inline PLE_ABI
