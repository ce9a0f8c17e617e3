// SPDX-License-Identifier: Apache-2.0
// The name of the inline namespace that everything lives in. It holds the version and the instruction sets that the
// compiler may use: to the linker, `ple::Chat` is `ple::v0_1_x86_v3::Chat`. Reason: the files of a program may be
// compiled with different flags, such as -march=native or none. The linker keeps one body of each inline function, so
// a file for old CPUs could call code made for new ones. With the names, each file has its own code. Passing a ple
// type from one such file to the other is a link error that names both sets.
#pragma once

#include "ple/version.h"

#define PLE_ABI_JOIN2_(a, b) a##b
#define PLE_ABI_JOIN2(a, b) PLE_ABI_JOIN2_(a, b)
#define PLE_ABI_JOIN8_(a, b, c, d, e, f, g, h) a##b##c##d##e##f##g##h
#define PLE_ABI_JOIN8(...) PLE_ABI_JOIN8_(__VA_ARGS__)

// PLE_ABI_IF(__AVX2__, _avx2) is _avx2 where the compiler defines __AVX2__ as 1, else nothing.
#define PLE_ABI_IF_1 ignored,
#define PLE_ABI_SECOND(ignored, name, ...) name
#define PLE_ABI_CHOOSE(...) PLE_ABI_SECOND(__VA_ARGS__)
// NOLINTNEXTLINE(bugprone-macro-parentheses): `name` is part of a name
#define PLE_ABI_IF(set, name) PLE_ABI_CHOOSE(PLE_ABI_JOIN2(PLE_ABI_IF_, set) name, , )

// Sets that compilers use unasked and that otherwise similar CPUs may lack: first x86-64's levels, then newer ones.
#if defined(__x86_64__)
#define PLE_ABI_SSE                                                                                          \
  PLE_ABI_JOIN8(PLE_ABI_IF(__SSE3__, _sse3), PLE_ABI_IF(__SSSE3__, _ssse3), PLE_ABI_IF(__SSE4_1__, _sse4_1), \
                PLE_ABI_IF(__SSE4_2__, _sse4_2), PLE_ABI_IF(__POPCNT__, _popcnt), , , )
#define PLE_ABI_AVX                                                                                  \
  PLE_ABI_JOIN8(PLE_ABI_IF(__AVX__, _avx), PLE_ABI_IF(__F16C__, _f16c), PLE_ABI_IF(__FMA__, _fma),   \
                PLE_ABI_IF(__AVX2__, _avx2), PLE_ABI_IF(__BMI__, _bmi), PLE_ABI_IF(__BMI2__, _bmi2), \
                PLE_ABI_IF(__LZCNT__, _lzcnt), PLE_ABI_IF(__MOVBE__, _movbe))
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512CD__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define PLE_ABI_LEVEL _x86_v4
#elif defined(__AVX2__) && defined(__BMI__) && defined(__BMI2__) && defined(__F16C__) && defined(__FMA__) && \
    defined(__LZCNT__) && defined(__MOVBE__)
#define PLE_ABI_LEVEL PLE_ABI_JOIN2(_x86_v3, PLE_ABI_IF(__AVX512F__, _avx512f))
#elif defined(__SSSE3__) && defined(__SSE4_1__) && defined(__SSE4_2__) && defined(__POPCNT__)
#define PLE_ABI_LEVEL PLE_ABI_JOIN2(_x86_v2, PLE_ABI_AVX)
#else
#define PLE_ABI_LEVEL PLE_ABI_JOIN2(PLE_ABI_SSE, PLE_ABI_AVX)
#endif
#define PLE_ABI_MORE                                                                      \
  PLE_ABI_JOIN8(PLE_ABI_IF(__FMA4__, _fma4), PLE_ABI_IF(__AVX512VPOPCNTDQ__, _vpopcntdq), \
                PLE_ABI_IF(__AVX512VBMI__, _vbmi), PLE_ABI_IF(__AVX512VNNI__, _vnni),     \
                PLE_ABI_IF(__AVX512BF16__, _bf16), PLE_ABI_IF(__AVX512FP16__, _fp16),     \
                PLE_ABI_IF(__AVXVNNI__, _avxvnni), PLE_ABI_IF(__GFNI__, _gfni))
#define PLE_ABI_NEWEST                                                                              \
  PLE_ABI_JOIN8(PLE_ABI_IF(__AVXIFMA__, _avxifma), PLE_ABI_IF(__AVXVNNIINT8__, _avxvnniint8),       \
                PLE_ABI_IF(__AVXVNNIINT16__, _avxvnniint16), PLE_ABI_IF(__CMPCCXADD__, _cmpccxadd), \
                PLE_ABI_IF(__AVX10_2__, _avx10_2), PLE_ABI_IF(__APX_F__, _apx), , )
#elif defined(__aarch64__)
#define PLE_ABI_LEVEL                                                                           \
  PLE_ABI_JOIN8(PLE_ABI_IF(__ARM_FEATURE_ATOMICS, _lse), PLE_ABI_IF(__ARM_FEATURE_JCVT, _v8_3), \
                PLE_ABI_IF(__ARM_FEATURE_FRINT, _v8_5), PLE_ABI_IF(__ARM_FEATURE_SHA3, _sha3),  \
                PLE_ABI_IF(__ARM_FEATURE_SVE, _sve), PLE_ABI_IF(__ARM_FEATURE_SVE2, _sve2), , )
#define PLE_ABI_MORE                                                                                       \
  PLE_ABI_JOIN8(PLE_ABI_IF(__ARM_FEATURE_DOTPROD, _dotprod), PLE_ABI_IF(__ARM_FEATURE_MATMUL_INT8, _i8mm), \
                PLE_ABI_IF(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC, _fp16),                                   \
                PLE_ABI_IF(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC, _bf16), , , , )
#define PLE_ABI_NEWEST
#else
#define PLE_ABI_LEVEL
#define PLE_ABI_MORE
#define PLE_ABI_NEWEST
#endif

#define PLE_ABI PLE_ABI_JOIN8(v, PLE_VERSION_MAJOR, _, PLE_VERSION_MINOR, PLE_ABI_LEVEL, PLE_ABI_MORE, PLE_ABI_NEWEST, )
