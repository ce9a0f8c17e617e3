// SPDX-License-Identifier: Apache-2.0
// Opt-in: ple::BestSimd and ple::with_best_backend, the choice of vectors at run time. A program compiled without
// -march has them already, as ple::DefaultBackend. It takes a few seconds more to compile.
#pragma once

#include "ple/simd/best_simd.h"
