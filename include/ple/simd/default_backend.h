// SPDX-License-Identifier: Apache-2.0
// The backend of models that name none.
#pragma once

#include "ple/core/config.h"
#include "ple/simd/backend.h"

// Without flags, x86 compilers target CPUs of 2003. Then kernels for newer ones are compiled too, and the program
// chooses at run time. Only flags decide, so that the files of a program agree.
#if defined(__x86_64__) && !defined(__SSE4_2__)
#include "ple/simd/best_simd.h"
#endif

namespace ple::inline PLE_ABI {

/// Simd, the vectors of this file's target; BestSimd where no -march gives one.
#if defined(__x86_64__) && !defined(__SSE4_2__)
using DefaultBackend = BestSimd;
#else
using DefaultBackend = Simd;
#endif

}  // namespace ple::inline PLE_ABI
