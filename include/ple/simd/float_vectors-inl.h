// SPDX-License-Identifier: Apache-2.0
// Loads stored numbers as vectors of f32: included once per target.
#if defined(PLE_SIMD_FLOAT_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_FLOAT_VECTORS_INL_H_
#undef PLE_SIMD_FLOAT_VECTORS_INL_H_
#else
#define PLE_SIMD_FLOAT_VECTORS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/dtype/dtype.h"
#include "ple/simd/f16-inl.h"
#include "ple/simd/highway-inl.h"

PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct FloatVectors {
  using D = hn::ScalableTag<float>;
  using V = hn::Vec<D>;

#if HWY_MAX_BYTES == 64
  static PLE_INLINE float sum_of(V v) {
    const hn::Half<D> d8;
    const hn::Half<decltype(d8)> d4;
    const auto eight = hn::Add(hn::LowerHalf(d8, v), hn::UpperHalf(d8, v));
    return hn::GetLane(sum_of_block(hn::Add(hn::LowerHalf(d4, eight), hn::UpperHalf(d4, eight))));
  }
  /// y[0], ..., y[3] = sum_of(a), ..., sum_of(d), by the same additions for all four at once: half the time.
  static PLE_INLINE void store_sums(V a, V b, V c, V d, float* y) {
    const V ac = hn::Add(hn::ConcatLowerLower(D(), c, a), hn::ConcatUpperUpper(D(), c, a));
    const V bd = hn::Add(hn::ConcatLowerLower(D(), d, b), hn::ConcatUpperUpper(D(), d, b));
    // One block of 128 bits of each is left.
    const V abcd = hn::Add(hn::OddEvenBlocks(bd, ac), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(ac, bd)));
    alignas(64) static constexpr std::int32_t first_of_blocks[16] = {0, 4, 8, 12};
    const V sums = hn::TableLookupLanes(sum_of_block(abcd), hn::SetTableIndices(D(), first_of_blocks));
    const hn::Half<D> d8;
    const hn::Half<decltype(d8)> d4;
    hn::StoreU(hn::LowerHalf(d4, hn::LowerHalf(d8, sums)), d4, y);
  }
  /// Each block's sum, in all of its lanes.
  template <class Blocks>
  static PLE_INLINE Blocks sum_of_block(Blocks v) {
    const Blocks pairs = hn::Add(v, hn::Shuffle1032(v));
    return hn::Add(pairs, hn::Shuffle2301(pairs));
  }
#else
  static PLE_INLINE float sum_of(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }
  static PLE_INLINE void store_sums(V a, V b, V c, V d, float* y) {
    y[0] = sum_of(a);
    y[1] = sum_of(b);
    y[2] = sum_of(c);
    y[3] = sum_of(d);
  }
#endif

  static PLE_INLINE V load(const float* p) { return hn::LoadU(D(), p); }
  static PLE_INLINE V load(const bf16* p) {
    const hn::RebindToUnsigned<D> du;
    const hn::Rebind<std::uint16_t, D> dh;
    return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, &p->bits))));
  }
  static PLE_INLINE V load(const f16* p) {
    return promote_f16(D(), hn::LoadU(hn::Rebind<std::uint16_t, D>(), &p->bits));
  }

  /// The first `count` lanes from memory, 0 in the rest.
  template <class T>
  static PLE_INLINE V load_some(const T* p, std::size_t count) {
    if (count == hn::Lanes(D())) return load(p);
    T values[hn::MaxLanes(D())];
    copy_and_pad(p, count, values);
    return load(values);
  }
  static PLE_INLINE void store_some(V v, std::size_t count, float* p) {
    if (count == hn::Lanes(D())) return hn::StoreU(v, D(), p);
    float values[hn::MaxLanes(D())];
    hn::StoreU(v, D(), values);
    copy_out(values, count, p);
  }

 private:
  template <class T>  // not inlined: row ends are rare, and their code is long
  static HWY_NOINLINE void copy_and_pad(const T* p, std::size_t count, T* values) {
    for (std::size_t i = 0; i < hn::MaxLanes(D()); ++i) values[i] = i < count ? p[i] : T{};
  }
  static HWY_NOINLINE void copy_out(const float* values, std::size_t count, float* p) {
    for (std::size_t i = 0; i < count; ++i) p[i] = values[i];
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif  // PLE_SIMD_FLOAT_VECTORS_INL_H_
