// SPDX-License-Identifier: Apache-2.0
// The backend of models that name none.
#pragma once

#include "ple/core/config.h"
#include "ple/simd/backend.h"

// A compiler for x86 that is told nothing makes programs for CPUs of 2003. Then kernels for newer ones are compiled,
// too, and a program chooses when it runs. Flags alone decide, so that the files of a program agree.
#if defined(__x86_64__) && !defined(__SSE4_2__)
#include "ple/simd/best_simd.h"
#endif

namespace ple::inline PLE_ABI {

/// Simd, the vectors of the target that a file is compiled for; BestSimd where no -march says what there is.
#if defined(__x86_64__) && !defined(__SSE4_2__)
using DefaultBackend = BestSimd;
#else
using DefaultBackend = Simd;
#endif

}  // namespace ple::inline PLE_ABI
