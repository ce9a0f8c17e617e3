// SPDX-License-Identifier: Apache-2.0
// Which of Highway's targets a file is compiled for, where that is not the one Highway chooses. Included before
// Highway.
#pragma once

#if !defined(HWY_HIGHWAY_INCLUDED)

// Without the instructions for AES, which no kernel uses, Highway takes a CPU for one of 2006: -march=x86-64-v3 has
// none. For that AVX2 must be no worse a target.
#if defined(__SSE4_2__) && !(defined(__AES__) && defined(__PCLMUL__)) && !defined(HWY_DISABLE_PCLMUL_AES)
#define HWY_DISABLE_PCLMUL_AES
#endif

// A file has one target, and Highway's macros ask for it as long as the file is compiled: what is disabled here stays
// disabled.
#if !defined(HWY_DISABLED_TARGETS)
#if defined(__x86_64__)
// Highway 1.0.3 does not compile for AVX3_DL where it is the compiler's own target (-march=native on Sapphire Rapids
// and Zen 5). What it has beyond AVX3 the kernels bring themselves (simd/dot-inl.h).
#define HWY_DISABLED_TARGETS HWY_AVX3_DL
#include "hwy/detect_targets.h"
#if !HWY_BASELINE_AVX3_DL || defined(HWY_AVX3_SPR)  // which came with a newer Highway
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS 0
#endif
#elif defined(__aarch64__) && defined(__ARM_FEATURE_SVE)
// The size of SVE's vectors is known at run time only, so they can be no members of a struct, and the kernels' are.
// Every ARM CPU of 64 bits has NEON.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif
#endif

#endif
