// SPDX-License-Identifier: Apache-2.0
// Loads quants of integer weights into vectors and multiplies these: included once per target.
#if defined(PLE_SIMD_QUANTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_QUANTS_INL_H_
#undef PLE_SIMD_QUANTS_INL_H_
#else
#define PLE_SIMD_QUANTS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/dtype/integers.h"
#include "ple/packing/tiles.h"
#include "ple/simd/dot-inl.h"
#include "ple/simd/highway-inl.h"

#if HWY_TARGET != HWY_SCALAR  // which lacks vectors of bytes
PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// For the tiles of TileLayout and PackedRowLayout: rows_per_tile sub-blocks side by side, one per lane.
template <class Dot>
struct Quants {
  using DF = hn::CappedTag<float, rows_per_tile>;
  using DI = hn::Rebind<std::int32_t, DF>;
  using D8 = hn::Repartition<std::uint8_t, DI>;
  using VF = hn::Vec<DF>;
  using VI = hn::Vec<DI>;
  using V8 = hn::Vec<D8>;
  static constexpr std::size_t N = hn::MaxLanes(DI());  // sub-blocks per vector

  /// How a tile stores quants: see TileLayout. They have low + high bits; with `table`, they index the format's.
  struct Planes {
    int low, high;
    std::size_t sub_block;
    bool table = false;
  };

  /// Calls f with a format's planes as a constant.
  template <class F>
  static PLE_INLINE void with_planes(const IntegerFormat& format, const F& f) {
    switch (format.bits) {
      case 8: return f(Constant<Planes{8, 0, 32}>());
      case 6: return f(Constant<Planes{4, 2, 16}>());
      case 5: return f(Constant<Planes{4, 1, 32}>());
      case 3: return f(Constant<Planes{2, 1, 16}>());
      case 2: return f(Constant<Planes{2, 0, 16}>());
      default: break;
    }
    if (format.table == nullptr) return f(Constant<Planes{4, 0, 32}>());
    if (format.sub_block == 16) return f(Constant<Planes{4, 0, 16, true}>());
    f(Constant<Planes{4, 0, 32, true}>());
  }
  template <Planes p>
  struct Constant {
    static constexpr Planes value = p;
  };

  /// Whether integers lie in [0, 63].
  template <Planes p>
  static constexpr bool is_small = p.low != 8 && !p.table;

  /// Whether integers of 8 bits become signed bytes, which removes their zero point.
  static bool flips(const IntegerFormat& format) { return Dot::is_signed && format.zero_point == 128; }

  /// A format's table as integers; nothing where the planes use none.
  template <Planes p>
  static PLE_INLINE V8 table_of(const IntegerFormat& format) {
    if constexpr (p.table) {
      const V8 values = hn::LoadDup128(D8(), reinterpret_cast<const std::uint8_t*>(format.table));
      return Dot::is_signed ? values : hn::Xor(values, hn::Set(D8(), 128));
    } else {
      return hn::Zero(D8());
    }
  }

  /// Quad q of rows v N to v N + N - 1, as integers [row, 4]. `table`: table_of the format.
  template <Planes p, std::size_t q>
  static PLE_INLINE V8 integers(const std::uint8_t* quants, std::size_t v, V8 table) {
    const V8 low = plane<p.low, p.sub_block, q, 0>(quants, v);
    if constexpr (p.low == 8) return Dot::is_signed ? hn::Xor(low, hn::Set(D8(), 128)) : low;
    if constexpr (p.table) return hn::TableLookupBytes(table, low);
    if constexpr (p.high == 0) {
      return low;
    } else {
      constexpr std::size_t low_bytes = rows_per_tile * p.sub_block * static_cast<std::size_t>(p.low) / 8;
      return hn::Or(low, plane<p.high, p.sub_block, q, p.low>(quants + low_bytes, v));
    }
  }

  /// f(integers, q) for every quad of a sub-block.
  template <Planes p, std::size_t q = 0, class F>
  static PLE_INLINE void each_quad(const std::uint8_t* quants, std::size_t v, V8 table, F&& f) {
    f(integers<p, q>(quants, v, table), q);
    if constexpr (4 * q + 4 < p.sub_block) each_quad<p, q + 1>(quants, v, table, f);
  }

  /// Adds four products of weights and values to each lane of dots; `is_small`: the weights lie in [0, 63].
  template <bool is_small>
  static PLE_INLINE VI multiply_add(VI dots, V8 weights, hn::Vec<hn::Repartition<std::int8_t, DI>> values) {
    if constexpr (is_small && requires { Dot::small_quads(dots, weights, values); }) {
      return Dot::small_quads(dots, weights, values);
    } else {
      return Dot::quads(dots, weights, values);
    }
  }

 private:
  static PLE_INLINE V8 masked(V8 v, int bits) { return hn::And(v, hn::Set(D8(), static_cast<std::uint8_t>(bits))); }

  /// Bits [from, from + bits) of every byte, moved to bit `to`.
  template <int from, int bits, int to>
  static PLE_INLINE V8 moved(V8 v) {
    const hn::Repartition<std::uint16_t, D8> d16;  // bits that cross into a neighbouring byte are masked out
    constexpr int mask = ((1 << bits) - 1) << to;
    if constexpr (from == to) return masked(v, mask);
    if constexpr (from > to) return masked(hn::BitCast(D8(), hn::ShiftRight<from - to>(hn::BitCast(d16, v))), mask);
    if constexpr (from < to) return masked(hn::BitCast(D8(), hn::ShiftLeft<to - from>(hn::BitCast(d16, v))), mask);
  }

  template <int bits, std::size_t sub_block, std::size_t q, int to>
  static PLE_INLINE V8 plane(const std::uint8_t* lines, std::size_t v) {
    constexpr std::size_t count = sub_block / 4 * static_cast<std::size_t>(bits) / 8;
    if constexpr (bits == 8) {
      return hn::LoadU(D8(), lines + 64 * q + 4 * N * v);
    } else if constexpr (count > 0) {
      constexpr int at = static_cast<int>(q / count) * bits;
      return moved<at, bits, to>(hn::LoadU(D8(), lines + 64 * (q % count) + 4 * N * v));
    } else if constexpr (N == rows_per_tile) {  // half a line: rows 8 to 15 use the upper bits
      const hn::Half<D8> half;
      const auto both = hn::LoadU(half, lines);
      const hn::Repartition<std::uint16_t, decltype(half)> d16;
      const auto upper = hn::BitCast(half, hn::ShiftRight<4>(hn::BitCast(d16, both)));
      return moved<static_cast<int>(q), bits, to>(hn::Combine(D8(), upper, both));
    } else {
      const V8 line = hn::LoadU(D8(), lines + 4 * N * v % 32);
      if (4 * N * v < 32) return moved<static_cast<int>(q), bits, to>(line);
      return moved<static_cast<int>(q) + 4, bits, to>(line);
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif
#endif  // PLE_SIMD_QUANTS_INL_H_
