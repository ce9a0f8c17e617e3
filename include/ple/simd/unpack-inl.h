// SPDX-License-Identifier: Apache-2.0
// Blocks into integers in vectors, for the types that are used most: IntegerTraits says what they are. Included once
// per target.
#if defined(PLE_SIMD_UNPACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_UNPACK_INL_H_
#undef PLE_SIMD_UNPACK_INL_H_
#else
#define PLE_SIMD_UNPACK_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ple/dtype/integers.h"
#include "ple/simd/f16-inl.h"
#include "ple/simd/highway-inl.h"

#if HWY_TARGET != HWY_SCALAR  // which has no vectors of bytes
HWY_BEFORE_NAMESPACE();
namespace ple {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// 16 bytes, what all targets have.
using D16 = hn::CappedTag<std::uint8_t, 16>;
using V16 = hn::Vec<D16>;
using D32 = hn::CappedTag<std::uint8_t, 32>;

// For vectors of bytes of any width.
template <class V>
HWY_INLINE V with_bits(V v, int bits) {
  return hn::And(v, hn::Set(hn::DFromV<V>(), static_cast<std::uint8_t>(bits)));
}
/// All bits of two neighbours shifted together: the caller masks what came from the other one.
template <class V>
HWY_INLINE V shifted_right(V v, int bits) {
  const hn::DFromV<V> d;
  const hn::Repartition<std::uint16_t, decltype(d)> d16;
  return hn::BitCast(d, hn::ShiftRightSame(hn::BitCast(d16, v), bits));
}
template <class V>
HWY_INLINE V shifted_left(V v, int bits) {
  const hn::DFromV<V> d;
  const hn::Repartition<std::uint16_t, decltype(d)> d16;
  return hn::BitCast(d, hn::ShiftLeftSame(hn::BitCast(d16, v), bits));
}
HWY_INLINE V16 load16(const void* p) { return hn::LoadU(D16(), static_cast<const std::uint8_t*>(p)); }

/// piece(blocks, p): integers 16 p to 16 p + 15 of a chunk.
template <class T>
struct Pieces;

template <>
struct Pieces<q8_0> {
  static HWY_INLINE V16 piece(const q8_0* blocks, std::size_t p) {
    return hn::Xor(load16(blocks[p / 2].values + p % 2 * 16), hn::Set(D16(), 128));
  }
};

template <>
struct Pieces<q4_0> {
  static HWY_INLINE V16 piece(const q4_0* blocks, std::size_t p) {
    const V16 v = load16(blocks[p / 2].pairs);
    return with_bits(p % 2 ? shifted_right(v, 4) : v, 15);
  }
};

template <>
struct Pieces<q4_k> {
  static HWY_INLINE V16 piece(const q4_k* block, std::size_t p) {
    const V16 v = load16(block->pairs + p / 4 * 32 + p % 2 * 16);
    return with_bits(p / 2 % 2 ? shifted_right(v, 4) : v, 15);
  }
};

template <>
struct Pieces<q6_k> {
  static HWY_INLINE V16 piece(const q6_k* block, std::size_t p) {
    const V16 v = load16(block->pairs + p / 8 * 64 + p % 4 * 16);
    const V16 high = shifted_right(load16(block->high + p / 8 * 32 + p % 2 * 16), static_cast<int>(p % 8 / 2 * 2));
    return hn::Or(with_bits(p % 8 / 4 ? shifted_right(v, 4) : v, 15), shifted_left(with_bits(high, 3), 4));
  }
};

/// What a product needs of a type: integers as vectors of the target, scales.
template <class T>
struct Unpack {
  static constexpr std::size_t blocks = values_per_chunk / DtypeTraits<T>::values_per_block;  // of a chunk

  /// Integers from `at` on, as many as d has lanes: pieces side by side, but where a type has a shorter way.
  template <class D>
  static HWY_INLINE hn::Vec<D> integers(D d, const T* chunk, std::size_t at) {
    if constexpr (hn::MaxLanes(D()) == 16) {
      return Pieces<T>::piece(chunk, at / 16);
    } else if constexpr (hn::MaxLanes(D()) == 32 && std::is_same_v<T, q8_0>) {
      const auto* values = reinterpret_cast<const std::uint8_t*>(chunk[at / 32].values);
      return hn::Xor(hn::LoadU(d, values), hn::Set(d, 128));
    } else if constexpr (hn::MaxLanes(D()) == 32 && std::is_same_v<T, q4_0>) {
      const V16 v = load16(chunk[at / 32].pairs);
      return with_bits(hn::Combine(d, shifted_right(v, 4), v), 15);
    } else {
      const hn::Half<D> half;
      return hn::Combine(d, integers(half, chunk, at + hn::MaxLanes(half)), integers(half, chunk, at));
    }
  }

  /// Scales and minimums by lane_of.
  static HWY_INLINE void numbers(const T* chunk, float* scales, float* minimums) {
    if constexpr (blocks > 1) {
      const hn::CappedTag<float, 4> d;
      const hn::CappedTag<std::uint64_t, 1> d64;
      const auto four = [&](std::size_t b) HWY_ATTR {
        const auto half = [&](std::size_t i) { return std::uint64_t{chunk[b + 2 * i].scale.bits} << (16 * i); };
        const auto halves = hn::Set(d64, half(0) | half(1) | half(2) | half(3));
        return promote_f16(d, hn::BitCast(hn::Rebind<std::uint16_t, decltype(d)>(), halves));
      };
      hn::StoreU(four(0), d, scales);
      hn::StoreU(four(1), d, scales + 4);
    } else if constexpr (std::is_same_v<T, q4_k>) {
      // Bytes as SubScales says, eight in a word.
      const std::uint64_t low = detail::load8(chunk->scales);  // 4 scales, 4 minimums, and two bits of four more
      std::uint32_t high;
      std::memcpy(&high, chunk->scales + 8, sizeof high);
      const auto word = [&](std::uint32_t first, std::uint32_t others) {
        return std::uint64_t{first & 0x3f3f3f3fu} |
               std::uint64_t{(others & 0x0f0f0f0fu) | (first >> 6 & 0x03030303u) << 4} << 32;
      };
      eight(word(static_cast<std::uint32_t>(low), high), to_f32(chunk->scale), scales);
      eight(word(static_cast<std::uint32_t>(low >> 32), high >> 4), to_f32(chunk->min_scale), minimums);
    } else {
      static_assert(std::is_same_v<T, q6_k>);
      alignas(16) static constexpr std::uint8_t order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
      alignas(16) std::int8_t ordered[16];
      const V16 bytes = hn::TableLookupBytes(load16(chunk->scales), hn::Load(D16(), order));
      hn::Store(bytes, D16(), reinterpret_cast<std::uint8_t*>(ordered));
      const hn::CappedTag<float, 16> d;
      const hn::Rebind<std::int32_t, decltype(d)> di;
      const hn::Rebind<std::int8_t, decltype(d)> d8;
      const auto scale = hn::Set(d, to_f32(chunk->scale));
      for (std::size_t i = 0; i < 16; i += hn::MaxLanes(d)) {
        const auto integers = hn::PromoteTo(di, hn::LoadU(d8, ordered + i));
        hn::StoreU(hn::Mul(scale, hn::ConvertTo(d, integers)), d, scales + i);
      }
    }
  }

 private:
  /// Eight bytes times `scale`, the even ones first.
  static HWY_INLINE void eight(std::uint64_t bytes, float scale, float* out) {
    const hn::CappedTag<float, 4> d;
    const hn::Rebind<std::int32_t, decltype(d)> di;
    const hn::Rebind<std::uint16_t, decltype(d)> d16;
    const hn::CappedTag<std::uint64_t, 1> d64;
    for (std::size_t odd = 0; odd < 2; ++odd) {
      const auto four = hn::BitCast(d16, hn::Set(d64, bytes >> (8 * odd) & 0x00ff00ff00ff00ffu));
      hn::StoreU(hn::Mul(hn::Set(d, scale), hn::ConvertTo(d, hn::PromoteTo(di, four))), d, out + 4 * odd);
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple
HWY_AFTER_NAMESPACE();
#endif
#endif  // PLE_SIMD_UNPACK_INL_H_
