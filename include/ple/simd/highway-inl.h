// SPDX-License-Identifier: Apache-2.0
// Highway for the targets that suit the kernels, and the kernels' macros. No #pragma once, because Highway is included
// once per target. Highway's macros end as they would without us; ours end with simd/kernels-inl.h.

#include "ple/simd/targets.h"

// Highway's debug checks call its library, which ple does not link: unoptimised programs would not link. So kernels are
// compiled without them. The macros are first given Highway's values for the same flags, to be restored below.
#if !defined(HWY_IS_DEBUG_BUILD)
#define HWY_IS_DEBUG_BUILD 0
#include "hwy/base.h"
#if (!defined(__OPTIMIZE__) && !defined(NDEBUG)) || HWY_IS_ASAN || HWY_IS_HWASAN || HWY_IS_MSAN || HWY_IS_TSAN || \
    HWY_IS_UBSAN
#undef HWY_IS_DEBUG_BUILD
#define HWY_IS_DEBUG_BUILD 1
#undef HWY_DASSERT
#define HWY_DASSERT(condition) HWY_ASSERT(condition)
#endif
#endif
#include "hwy/base.h"
#pragma push_macro("HWY_IS_DEBUG_BUILD")
#pragma push_macro("HWY_DASSERT")
#pragma push_macro("HWY_INLINE")
#undef HWY_IS_DEBUG_BUILD
#define HWY_IS_DEBUG_BUILD 0
#undef HWY_DASSERT
#define HWY_DASSERT(condition) static_cast<void>(0)

// GCC optimises kernels even in unoptimised programs, where they would take fifty times as long. For that, Highway's
// functions are inlined, and kernels use PLE_INLINE, between PLE_BEFORE_KERNELS and PLE_AFTER_KERNELS.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__OPTIMIZE__)
#undef HWY_INLINE
#define HWY_INLINE inline __attribute__((always_inline))
#define PLE_INLINE inline __attribute__((always_inline))
#define PLE_BEFORE_KERNELS() \
  HWY_BEFORE_NAMESPACE();    \
  _Pragma("GCC push_options") _Pragma("GCC optimize(\"O1\")") static_assert(true, "for the semicolon")
#define PLE_AFTER_KERNELS() _Pragma("GCC pop_options") HWY_AFTER_NAMESPACE()
#else
#define PLE_INLINE HWY_INLINE
#define PLE_BEFORE_KERNELS() HWY_BEFORE_NAMESPACE()
#define PLE_AFTER_KERNELS() HWY_AFTER_NAMESPACE()
#endif

#include "hwy/cache_control.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

#pragma pop_macro("HWY_IS_DEBUG_BUILD")
#pragma pop_macro("HWY_DASSERT")
#pragma pop_macro("HWY_INLINE")

// For a kernel's lambda, like HWY_ATTR: compiled for the target, and inlined whatever the flags.
#if defined(__GNUC__)
#define PLE_LAMBDA_ATTR HWY_ATTR __attribute__((always_inline))
#else
#define PLE_LAMBDA_ATTR HWY_ATTR
#endif

#if HWY_TARGET & (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#error "include <ple/ple.h> before Highway: its ARM kernels are for NEON, but Highway chose SVE"
#endif
