// SPDX-License-Identifier: Apache-2.0
// Opt-in: ple::BestSimd and ple::with_best_backend choose the vectors at run time. A program compiled without -march
// already does this, as ple::DefaultBackend. This header adds a few seconds of compile time.
#pragma once

#include "ple/simd/best_simd.h"
