// SPDX-License-Identifier: Apache-2.0
// Converts f16 to f32, and loads numbers that are either. Included once per target.
#if defined(PLE_SIMD_F16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_F16_INL_H_
#undef PLE_SIMD_F16_INL_H_
#else
#define PLE_SIMD_F16_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/simd/highway-inl.h"

PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Widens one f16, given by its bits, per lane of d.
template <class D, class VU16>
PLE_INLINE hn::Vec<D> promote_f16(D d, VU16 halves) {
#if (HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2) || (HWY_ARCH_ARM_A64 && HWY_TARGET < HWY_EMU128)
  const hn::Rebind<hwy::float16_t, D> dh;
  return hn::PromoteTo(d, hn::BitCast(dh, halves));
#else
  // Integer arithmetic and one exact multiplication: without the instruction, Highway's promotion takes inf and NaN for
  // numbers. The f16 bits, shifted in place and read as f32, times 2^112 are the value, subnormals included.
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  const auto bits = hn::PromoteTo(du, halves);
  const auto magnitude = hn::And(bits, hn::Set(du, 0x7fffu));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(du, 0x8000u)));
  const auto value = hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(magnitude)), hn::Set(d, 0x1p112f));
  const auto special = hn::BitCast(d, hn::Or(hn::ShiftLeft<13>(magnitude), hn::Set(du, 0x7f800000u)));
  const auto is_special = hn::RebindMask(d, hn::Gt(hn::BitCast(di, magnitude), hn::Set(di, 0x7bff)));
  return hn::Or(hn::IfThenElse(is_special, special, value), hn::BitCast(d, sign));
#endif
}

/// Loads one number per lane of d, from number `at` of `all` on: f32 or f16.
template <class D>
PLE_INLINE hn::Vec<D> load_scales(D d, bool are_f32, const std::byte* all, std::size_t at) {
  if (are_f32) return hn::LoadU(d, reinterpret_cast<const float*>(all) + at);
  return promote_f16(d, hn::LoadU(hn::Rebind<std::uint16_t, D>(), reinterpret_cast<const std::uint16_t*>(all) + at));
}

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif  // PLE_SIMD_F16_INL_H_
