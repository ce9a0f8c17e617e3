// SPDX-License-Identifier: Apache-2.0
// What the library asks of the compiler, and the namespace that everything lives in. Every header includes it.
//
// Files of one program may be compiled with different flags: -march=native here, none there. Of an inline function the
// linker keeps one body, so a file for old CPUs could end up calling code made for new ones. Hence the version and the
// instruction sets that the compiler may use are part of every name: to the linker, `ple::Chat` is
// `ple::v0_1_avx2::Chat`. Such files work side by side, each with code of its own. To pass one of ple's
// types from one to the other is an error when linking, which names both sets of flags.
#pragma once

#include "ple/version.h"

#if defined(__AVX512F__)
#define PLE_ABI_VECTORS _avx512
#elif defined(__AVX2__) && defined(__FMA__) && defined(__BMI2__)
#define PLE_ABI_VECTORS _avx2
#elif defined(__AVX2__) && defined(__FMA__)
#define PLE_ABI_VECTORS _avx2_fma
#elif defined(__AVX2__)
#define PLE_ABI_VECTORS _avx2_basic
#elif defined(__AVX__)
#define PLE_ABI_VECTORS _avx
#elif defined(__SSE4_1__)
#define PLE_ABI_VECTORS _sse4
#elif defined(__ARM_FEATURE_SVE)
#define PLE_ABI_VECTORS _sve
#else
#define PLE_ABI_VECTORS
#endif
#if defined(__AVX512VNNI__)
#define PLE_ABI_BYTES _vnni
#elif defined(__AVXVNNI__)
#define PLE_ABI_BYTES _avxvnni
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#define PLE_ABI_BYTES _i8mm
#elif defined(__ARM_FEATURE_DOTPROD)
#define PLE_ABI_BYTES _dotprod
#else
#define PLE_ABI_BYTES
#endif
#if defined(__AVX512FP16__) || defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
#define PLE_ABI_HALVES _fp16
#else
#define PLE_ABI_HALVES
#endif
#if defined(__AVX512BF16__) || defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define PLE_ABI_BF16 _bf16
#else
#define PLE_ABI_BF16
#endif

#define PLE_ABI_JOIN_(major, minor, a, b, c, d) v##major##_##minor##a##b##c##d
#define PLE_ABI_JOIN(...) PLE_ABI_JOIN_(__VA_ARGS__)
#define PLE_ABI \
  PLE_ABI_JOIN(PLE_VERSION_MAJOR, PLE_VERSION_MINOR, PLE_ABI_VECTORS, PLE_ABI_BYTES, PLE_ABI_HALVES, PLE_ABI_BF16)

/// Everything that is public. The inline namespace is for the linker only: write `ple::Chat`.
namespace ple {
inline namespace PLE_ABI {}
}  // namespace ple
