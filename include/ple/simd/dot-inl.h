// SPDX-License-Identifier: Apache-2.0
// Sums of four products of bytes, the step of every integer product, and of two products of bf16. Highway has them only
// since 1.0.6, and its targets predate CPUs with one instruction for them: hence this bridge. Included once per target.
#if defined(PLE_SIMD_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_DOT_INL_H_
#undef PLE_SIMD_DOT_INL_H_
#else
#define PLE_SIMD_DOT_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/simd/highway-inl.h"

#include "ple/dtype/floats.h"

PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// BestDot::quads(sum, w, x) is sum[i] + w[4 i] x[4 i] + ... + w[4 i + 3] x[4 i + 3], exact, for x from -127 to 127. The
// bytes w are -128 to 127 if is_signed, else 0 to 255. runs_here() asks the CPU. Where they exist, small_quads is
// faster for w from 0 to 63, and quads_of reads four bytes, the same for all lanes of x, straight from memory.

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3 && (defined(__AVX512VNNI__) || HWY_TARGET != HWY_STATIC_TARGET)

/// AVX-512 VNNI. As assembly, because code compiled for AVX-512 without VNNI must contain it.
struct BestDot {
  static bool runs_here() { return __builtin_cpu_supports("avx512vnni"); }
  static constexpr bool is_signed = false;
  template <class VI, class VU8, class VI8>
  static PLE_INLINE VI quads(VI sum, VU8 w, VI8 x) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
    return sum;
  }
  template <class VI, class VU8>
  static PLE_INLINE VI quads_of(VI sum, VU8 w, const std::int8_t* x) {
    static_assert(sizeof sum.raw == 64);
    asm("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(sum.raw)
        : "v"(w.raw), "m"(*reinterpret_cast<const std::int8_t(*)[4]>(x)));
    return sum;
  }
};

#elif HWY_ARCH_X86 && (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_SSE4)

/// Multiplies bytes, one of them unsigned, and adds pairs in 16 bits: 2 * 128 * 127 fits.
struct BestDot {
  static constexpr bool runs_here() { return true; }
  static constexpr bool is_signed = true;
  template <class VI, class VU8, class VI8>
  static PLE_INLINE VI quads(VI sum, VU8 w, VI8 x) {
#if HWY_TARGET == HWY_AVX2
    const auto pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w.raw), _mm256_sign_epi8(x.raw, w.raw));
    return hn::Add(sum, VI{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))});
#else
    const auto pairs = _mm_maddubs_epi16(_mm_abs_epi8(w.raw), _mm_sign_epi8(x.raw, w.raw));
    return hn::Add(sum, VI{_mm_madd_epi16(pairs, _mm_set1_epi16(1))});
#endif
  }
  template <class VI, class VU8, class VI8>
  static PLE_INLINE VI small_quads(VI sum, VU8 w, VI8 x) {
#if HWY_TARGET == HWY_AVX2
    return hn::Add(sum, VI{_mm256_madd_epi16(_mm256_maddubs_epi16(w.raw, x.raw), _mm256_set1_epi16(1))});
#else
    return hn::Add(sum, VI{_mm_madd_epi16(_mm_maddubs_epi16(w.raw, x.raw), _mm_set1_epi16(1))});
#endif
  }
};

#elif HWY_ARCH_ARM_A64 && HWY_TARGET < HWY_EMU128  // NEON: several targets since Highway 1.1

/// Armv8.2's dot product where the compiler may use it, else 16-bit products added in pairs.
struct BestDot {
  static constexpr bool runs_here() { return true; }
  static constexpr bool is_signed = true;
  template <class VI, class VU8, class VI8>
  static PLE_INLINE VI quads(VI sum, VU8 w, VI8 x) {
    const int8x16_t ws = vreinterpretq_s8_u8(w.raw);
#if defined(__ARM_FEATURE_DOTPROD)
    sum.raw = vdotq_s32(sum.raw, ws, x.raw);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(ws), vget_low_s8(x.raw)), high = vmull_high_s8(ws, x.raw);
    sum.raw = vpadalq_s16(sum.raw, vpaddq_s16(low, high));  // a pair's sum is at most 2 * 128 * 127
#endif
    return sum;
  }
};

#elif HWY_TARGET != HWY_SCALAR

/// With Highway's operations only.
struct BestDot {
  static constexpr bool runs_here() { return true; }
  static constexpr bool is_signed = false;
  template <class VI, class VU8, class VI8>
  static PLE_INLINE VI quads(VI sum, VU8 w, VI8 x) {
    const hn::DFromV<VI> di;
    const hn::Repartition<std::int16_t, decltype(di)> d16;
    const hn::Repartition<std::uint16_t, decltype(di)> du16;
    const auto w16 = hn::BitCast(du16, w);  // even and odd bytes separately: 255 * 127 fits 16 bits
    const auto x16 = hn::BitCast(d16, x);
    const auto even =
        hn::Mul(hn::BitCast(d16, hn::And(w16, hn::Set(du16, 255))), hn::ShiftRight<8>(hn::ShiftLeft<8>(x16)));
    const auto odd = hn::Mul(hn::BitCast(d16, hn::ShiftRight<8>(w16)), hn::ShiftRight<8>(x16));
    const auto halves = [&](auto products) {
      const auto both = hn::BitCast(di, products);
      return hn::Add(hn::ShiftRight<16>(hn::ShiftLeft<16>(both)), hn::ShiftRight<16>(both));
    };
    return hn::Add(sum, hn::Add(halves(even), halves(odd)));
  }
};

#endif

/// The step of a bf16 product: sum[i] + w[2 i] x[2 i] + w[2 i + 1] x[2 i + 1]; a V holds the bits of w or x. Only for
/// CPUs with one instruction for it, where runs_here() is true.
struct PairsOfBf16 {
  using D = hn::ScalableTag<float>;
  using V = hn::Vec<D>;
  static constexpr std::size_t values = 2;  // for each lane
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3 && (defined(__AVX512BF16__) || HWY_TARGET != HWY_STATIC_TARGET)
  static bool runs_here() { return __builtin_cpu_supports("avx512bf16"); }
  static PLE_INLINE V load(const bf16* p) {
    return hn::BitCast(D(), hn::LoadU(hn::Repartition<std::uint16_t, D>(), &p->bits));
  }
  /// As assembly, because code compiled for AVX-512 without BF16 must contain it.
  static PLE_INLINE V multiply_add(V w, V x, V sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
    return sum;
  }
#else
  static constexpr bool runs_here() { return false; }
  static PLE_INLINE V load(const bf16*) { return hn::Zero(D()); }
  static PLE_INLINE V multiply_add(V, V, V sum) { return sum; }
#endif
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif  // PLE_SIMD_DOT_INL_H_
