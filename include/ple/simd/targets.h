// SPDX-License-Identifier: Apache-2.0
// Which Highway targets a file is compiled for, where Highway's choice does not suit. Included before Highway.
#pragma once

#if !defined(HWY_HIGHWAY_INCLUDED)

// Without AES, which no kernel uses, Highway targets CPUs of 2006: -march=x86-64-v3 lacks it, and should get AVX2.
#if defined(__SSE4_2__) && !(defined(__AES__) && defined(__PCLMUL__)) && !defined(HWY_DISABLE_PCLMUL_AES)
#define HWY_DISABLE_PCLMUL_AES
#endif

// A file has one target, which Highway's macros use to the end of the file: what is disabled here stays disabled.
#if !defined(HWY_DISABLED_TARGETS)
#if defined(__x86_64__)
// Highway 1.0.3 does not compile for AVX3_DL as the compiler's own target (-march=native on Sapphire Rapids and Zen 5).
// What it adds to AVX3 is in simd/dot-inl.h.
#define HWY_DISABLED_TARGETS HWY_AVX3_DL
#include "hwy/detect_targets.h"
#if !HWY_BASELINE_AVX3_DL || defined(HWY_AVX3_SPR)  // from a newer Highway
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS 0
#endif
#elif defined(__aarch64__) && defined(__ARM_FEATURE_SVE)
// SVE vectors, sized at run time, cannot be struct members as kernels need. Every 64-bit ARM CPU has NEON.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif
#endif

#endif
