// SPDX-License-Identifier: Apache-2.0
// Compiles the kernels for each target that is better than the compiler's own and that a CPU may have. Only on x86:
// elsewhere there is one target. hwy/foreach_target.h does the same, but must come before the rest of Highway. Here, a
// user's file may have included Highway or kernels before, and may go on using Highway: each of Highway's headers is
// compiled once per state of HWY_TARGET_TOGGLE, which an even number of targets restores.
#pragma once

#include "ple/simd/kernels-inl.h"

#ifdef __x86_64__
#pragma push_macro("HWY_TARGET")
#ifdef HWY_TARGET_TOGGLE
#define PLE_SIMD_TOGGLE
#endif

#if (HWY_TARGETS & HWY_AVX3) && !defined(PLE_SIMD_AVX3_INL_H_)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX3
#include "ple/simd/next_target-inl.h"
#endif
#if (HWY_TARGETS & HWY_AVX2) && !defined(PLE_SIMD_AVX2_INL_H_)
#undef HWY_TARGET
#define HWY_TARGET HWY_AVX2
#include "ple/simd/next_target-inl.h"
#endif
#if (HWY_TARGETS & HWY_SSE4) && !defined(PLE_SIMD_SSE4_INL_H_)
#undef HWY_TARGET
#define HWY_TARGET HWY_SSE4
#include "ple/simd/next_target-inl.h"
#endif

// Makes the number even, with one of the two targets without vectors, which nobody chooses.
#if defined(PLE_SIMD_TOGGLE) != defined(HWY_TARGET_TOGGLE)
#undef HWY_TARGET
#if HWY_STATIC_TARGET == HWY_SCALAR
#define HWY_TARGET HWY_EMU128
#else
#define HWY_TARGET HWY_SCALAR
#endif
#include "ple/simd/next_target-inl.h"
#endif
#undef PLE_SIMD_TOGGLE

#pragma pop_macro("HWY_TARGET")  // restores Highway's macros for the file's own target
#ifdef HWY_SET_MACROS_PER_TARGET
#undef HWY_SET_MACROS_PER_TARGET
#else
#define HWY_SET_MACROS_PER_TARGET
#endif
#include "hwy/ops/set_macros-inl.h"
#endif
