// SPDX-License-Identifier: Apache-2.0
// Vectors of numbers as they are stored, widened to f32: included once per target.
#if defined(PLE_SIMD_FLOAT_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_FLOAT_VECTORS_INL_H_
#undef PLE_SIMD_FLOAT_VECTORS_INL_H_
#else
#define PLE_SIMD_FLOAT_VECTORS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "ple/dtype/dtype.h"
#include "ple/simd/f16-inl.h"
#include "ple/simd/highway-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ple {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct FloatVectors {
  using D = hn::ScalableTag<float>;
  using V = hn::Vec<D>;

  static HWY_INLINE float sum_of(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }

  static HWY_INLINE V load(const float* p) { return hn::LoadU(D(), p); }
  static HWY_INLINE V load(const bf16* p) {
    const hn::RebindToUnsigned<D> du;
    const hn::Rebind<std::uint16_t, D> dh;
    return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, &p->bits))));
  }
  static HWY_INLINE V load(const f16* p) {
    return promote_f16(D(), hn::LoadU(hn::Rebind<std::uint16_t, D>(), &p->bits));
  }

  /// The first `count` lanes from memory, 0 in the others.
  template <class T>
  static HWY_INLINE V load_some(const T* p, std::size_t count) {
    if (count == hn::Lanes(D())) return load(p);
    T values[hn::MaxLanes(D())];
    copy_and_pad(p, count, values);
    return load(values);
  }
  static HWY_INLINE void store_some(V v, std::size_t count, float* p) {
    if (count == hn::Lanes(D())) return hn::StoreU(v, D(), p);
    float values[hn::MaxLanes(D())];
    hn::StoreU(v, D(), values);
    copy_out(values, count, p);
  }

 private:
  // Not inlined: ends of rows are rare, and their code is long.
  template <class T>
  static HWY_NOINLINE void copy_and_pad(const T* p, std::size_t count, T* values) {
    for (std::size_t i = 0; i < hn::MaxLanes(D()); ++i) values[i] = i < count ? p[i] : T{};
  }
  static HWY_NOINLINE void copy_out(const float* values, std::size_t count, float* p) {
    for (std::size_t i = 0; i < count; ++i) p[i] = values[i];
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple
HWY_AFTER_NAMESPACE();
#endif  // PLE_SIMD_FLOAT_VECTORS_INL_H_
