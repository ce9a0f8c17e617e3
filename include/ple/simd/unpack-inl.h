// SPDX-License-Identifier: Apache-2.0
// Blocks into integers, in vectors: what IntegerTraits does in plain C++. Included once per target.
#if defined(PLE_SIMD_UNPACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_UNPACK_INL_H_
#undef PLE_SIMD_UNPACK_INL_H_
#else
#define PLE_SIMD_UNPACK_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/highway.h"
#include "ple/dtype/integers.h"
#include "ple/simd/f16-inl.h"

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

template <class T>
struct NibblePieces {
  static HWY_INLINE V16 piece(const T* blocks, std::size_t p) {
    const V16 v = load16(blocks[p / 2].pairs);
    return with_bits(p % 2 ? shifted_right(v, 4) : v, 15);
  }
};
template <>
struct Pieces<q4_0> : NibblePieces<q4_0> {};
template <>
struct Pieces<q4_1> : NibblePieces<q4_1> {};

template <class T>
struct FiveBitPieces {
  static HWY_INLINE V16 piece(const T* blocks, std::size_t p) {
    // Byte i of the vector gets the byte that has its fifth bit, and keeps that bit.
    alignas(16) static constexpr std::uint8_t from[16] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    alignas(16) static constexpr std::uint8_t bit[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const std::uint8_t* high = blocks[p / 2].high + p % 2 * 2;
    const hn::Repartition<std::uint16_t, D16> d;
    const V16 both = hn::BitCast(D16(), hn::Set(d, static_cast<std::uint16_t>(high[0] | high[1] << 8)));
    const V16 bits = hn::Load(D16(), bit), mine = hn::And(hn::TableLookupBytes(both, hn::Load(D16(), from)), bits);
    const V16 fifth = with_bits(hn::VecFromMask(D16(), hn::Eq(mine, bits)), 16);
    return hn::Or(NibblePieces<T>::piece(blocks, p), fifth);
  }
};
template <>
struct Pieces<q5_0> : FiveBitPieces<q5_0> {};
template <>
struct Pieces<q5_1> : FiveBitPieces<q5_1> {};

/// iq4_values, and 128.
HWY_INLINE V16 iq4_lookup(V16 nibbles) {
  alignas(16) static constexpr std::uint8_t values[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                          129, 141, 153, 166, 181, 197, 217, 241};
  return hn::TableLookupBytes(hn::Load(D16(), values), nibbles);
}
template <>
struct Pieces<iq4_nl> {
  static HWY_INLINE V16 piece(const iq4_nl* blocks, std::size_t p) {
    return iq4_lookup(NibblePieces<iq4_nl>::piece(blocks, p));
  }
};
template <>
struct Pieces<iq4_xs> {
  static HWY_INLINE V16 piece(const iq4_xs* block, std::size_t p) {
    const V16 v = load16(block->pairs + p / 2 * 16);
    return iq4_lookup(with_bits(p % 2 ? shifted_right(v, 4) : v, 15));
  }
};

/// Two bits of piece p, times 1 << up: q2_k's integers, and the higher bits of others.
HWY_INLINE V16 two_bit_piece(const std::uint8_t* quads, std::size_t p) {
  return with_bits(shifted_right(load16(quads + p / 8 * 32 + p % 2 * 16), static_cast<int>(p % 8 / 2 * 2)), 3);
}
/// The bit of piece p where bit p / 2 of byte i is that of value i of 32.
HWY_INLINE V16 one_bit_piece(const std::uint8_t* high, std::size_t p) {
  return with_bits(shifted_right(load16(high + p % 2 * 16), static_cast<int>(p / 2)), 1);
}

template <>
struct Pieces<q2_k> {
  static HWY_INLINE V16 piece(const q2_k* block, std::size_t p) { return two_bit_piece(block->quads, p); }
};
template <>
struct Pieces<q3_k> {
  static HWY_INLINE V16 piece(const q3_k* block, std::size_t p) {
    return hn::Or(two_bit_piece(block->quads, p), shifted_left(one_bit_piece(block->high, p), 2));
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
struct Pieces<q5_k> {
  static HWY_INLINE V16 piece(const q5_k* block, std::size_t p) {
    const V16 v = load16(block->pairs + p / 4 * 32 + p % 2 * 16);
    return hn::Or(with_bits(p / 2 % 2 ? shifted_right(v, 4) : v, 15), shifted_left(one_bit_piece(block->high, p), 4));
  }
};
template <>
struct Pieces<q6_k> {
  static HWY_INLINE V16 piece(const q6_k* block, std::size_t p) {
    const V16 v = load16(block->pairs + p / 8 * 64 + p % 4 * 16);
    return hn::Or(with_bits(p % 8 / 4 ? shifted_right(v, 4) : v, 15), shifted_left(two_bit_piece(block->high, p), 4));
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
    } else if constexpr (has_wide<D>) {
      return wide(d, chunk, at);
    } else {
      const hn::Half<D> half;
      return hn::Combine(d, integers(half, chunk, at + hn::MaxLanes(half)), integers(half, chunk, at));
    }
  }

  /// Scales and minimums by lane_of.
  static HWY_INLINE void numbers(const T* chunk, float* scales, float* minimums) {
    if constexpr (blocks > 1) {
      eight(
          chunk, [](const T& block) { return block.scale.bits; }, scales);
      if constexpr (IntegerTraits<T>::has_minimum) {
        eight(
            chunk, [](const T& block) { return static_cast<std::uint16_t>(block.minimum.bits ^ 0x8000); }, minimums);
      }
    } else {
      IntegerTraits<T>::numbers(*chunk, scales, minimums);
    }
  }

 private:
  template <class D>
  static constexpr bool has_wide = hn::MaxLanes(D()) == 32 &&
                                   (std::is_same_v<T, q8_0> || std::is_same_v<T, q4_0> || std::is_same_v<T, q4_1>);

  template <class D>
  static HWY_INLINE hn::Vec<D> wide(D d, const q8_0* chunk, std::size_t at) {
    const auto* values = reinterpret_cast<const std::uint8_t*>(chunk[at / 32].values);
    return hn::Xor(hn::LoadU(d, values), hn::Set(d, 128));
  }
  template <class D, class Nibbles>
  static HWY_INLINE hn::Vec<D> wide(D d, const Nibbles* chunk, std::size_t at) {
    const V16 v = load16(chunk[at / 32].pairs);
    return with_bits(hn::Combine(d, shifted_right(v, 4), v), 15);
  }

  /// Eight blocks' halves to f32, the even ones first.
  template <class F>
  static HWY_INLINE void eight(const T* chunk, F&& bits, float* out) {
    const hn::CappedTag<float, 4> d;
    const hn::CappedTag<std::uint64_t, 1> d64;
    const auto four = [&](std::size_t b) {
      const auto half = [&](std::size_t i) { return static_cast<std::uint64_t>(bits(chunk[b + 2 * i])) << (16 * i); };
      const auto halves = hn::Set(d64, half(0) | half(1) | half(2) | half(3));
      return promote_f16(d, hn::BitCast(hn::Rebind<std::uint16_t, decltype(d)>(), halves));
    };
    hn::StoreU(four(0), d, out);
    hn::StoreU(four(1), d, out + 4);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple
HWY_AFTER_NAMESPACE();
#endif
#endif  // PLE_SIMD_UNPACK_INL_H_
