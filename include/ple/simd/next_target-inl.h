// SPDX-License-Identifier: Apache-2.0
// The kernels once more, for the target that HWY_TARGET says. Part of simd/more_targets.h, hence no #pragma once.
#include "ple/simd/kernels-inl.h"

#if HWY_TARGET != HWY_STATIC_TARGET  // the same where this file is included alone
#ifdef HWY_TARGET_TOGGLE
#undef HWY_TARGET_TOGGLE
#else
#define HWY_TARGET_TOGGLE
#endif
#include "ple/simd/kernels-inl.h"
#endif
