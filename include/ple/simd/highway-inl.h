// SPDX-License-Identifier: Apache-2.0
// Highway, for the targets that the kernels suit. Highway itself is included once per target: hence no #pragma once.

// ARM means NEON, which every such CPU has. The size of SVE's vectors is known at run time only, so they can be no
// members of a struct, and the kernels' are.
#if defined(__aarch64__) && !defined(HWY_DISABLED_TARGETS)
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#endif

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#if HWY_TARGET & (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#error "include <ple/ple.h> before Highway: on ARM its kernels are for NEON, and Highway chose SVE"
#endif
