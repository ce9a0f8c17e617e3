// SPDX-License-Identifier: Apache-2.0
// Compiles the kernels again, for HWY_TARGET. A part of simd/more_targets.h, hence no #pragma once.
#include "ple/simd/kernels-inl.h"

#if HWY_TARGET != HWY_STATIC_TARGET  // equal where this file is included alone
#ifdef HWY_TARGET_TOGGLE
#undef HWY_TARGET_TOGGLE
#else
#define HWY_TARGET_TOGGLE
#endif
#include "ple/simd/kernels-inl.h"
#endif
