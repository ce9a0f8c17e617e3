// SPDX-License-Identifier: Apache-2.0
// Highway, for the targets that the kernels suit. Highway itself is included once per target: hence no #pragma once.

#include "ple/simd/targets.h"

// Highway's own checks call a function of its library, which ple does without: unoptimised programs would not link.
#if !defined(HWY_IS_DEBUG_BUILD)
#define HWY_IS_DEBUG_BUILD 0
#endif

// GCC compiles kernels with optimisation even in a program that is otherwise compiled without: who debugs one waits for
// its own code, not for kernels that take fifty times as long. For that PLE_BEFORE_KERNELS stands where Highway has
// HWY_BEFORE_NAMESPACE, and Highway's functions are inlined, which it does in optimised programs only.
#include "hwy/base.h"
#if defined(__GNUC__) && !defined(__clang__) && !defined(__OPTIMIZE__)
#undef HWY_INLINE
#define HWY_INLINE inline __attribute__((always_inline))
#define PLE_BEFORE_KERNELS() \
  HWY_BEFORE_NAMESPACE();    \
  _Pragma("GCC optimize(\"O1\")") static_assert(true, "for the semicolon")
#else
#define PLE_BEFORE_KERNELS() HWY_BEFORE_NAMESPACE()
#endif

#include "hwy/cache_control.h"
#include "hwy/highway.h"

// Of a lambda in a kernel, as HWY_ATTR: compiled for the target, and inlined whatever the flags.
#if defined(__GNUC__)
#define PLE_LAMBDA_ATTR HWY_ATTR __attribute__((always_inline))
#else
#define PLE_LAMBDA_ATTR HWY_ATTR
#endif

#if HWY_TARGET & (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#error "include <ple/ple.h> before Highway: on ARM its kernels are for NEON, and Highway chose SVE"
#endif
