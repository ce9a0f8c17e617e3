// SPDX-License-Identifier: Apache-2.0
// Which of Highway's targets the kernels are compiled for. Included before Highway is.
#pragma once

#if !defined(HWY_DISABLED_TARGETS)
#if defined(__aarch64__)
// ARM means NEON, which every such CPU has. The size of SVE's vectors is known at run time only, so they can be no
// members of a struct, and the kernels' are.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#elif defined(__x86_64__) || defined(__i386__)
// What AVX3_DL has beyond AVX3 the kernels bring themselves (simd/dot-inl.h). Highway 1.0.3 does not compile where it
// is the compiler's own target (-march=native on Sapphire Rapids or Zen 5).
#define HWY_DISABLED_TARGETS HWY_AVX3_DL
#endif
#endif
