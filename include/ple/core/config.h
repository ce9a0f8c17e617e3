// SPDX-License-Identifier: Apache-2.0
// What the library requires of the compiler, and the namespace that everything lives in. Every header includes this.
#pragma once

// Compilers go on after #error and print hundreds of errors. A missing file stops them, and its name comes last.
#if defined(_MSC_VER) && !defined(__clang__)
#error "ple does not support MSVC: use clang, or g++ of MinGW-w64"
#include "ple does not support MSVC: use clang, or g++ of MinGW-w64"
#elif __cplusplus < 202002L
#error "ple is C++20: compile with -std=c++20"
#include "ple is C++20: compile with -std=c++20"
#elif !defined(__cpp_exceptions)
#error "ple reports errors as exceptions: compile without -fno-exceptions"
#include "ple reports errors as exceptions: compile without -fno-exceptions"
#elif defined(__FAST_MATH__) || __FINITE_MATH_ONLY__ || defined(__ASSOCIATIVE_MATH__)
#error "ple tests for NaN and adds in a fixed order: compile without -ffast-math, -Ofast or any part of them"
#include "ple tests for NaN and adds in a fixed order: compile without -ffast-math, -Ofast or any part of them"
#elif __SIZEOF_POINTER__ < 8 && !defined(__EMSCRIPTEN__)  // Emscripten: sandboxes of at most 4 GiB
#error "ple is for 64-bit machines: its models and caches are larger than 32-bit addresses"
#include "ple is for 64-bit machines: its models and caches are larger than 32-bit addresses"
#endif

#include "ple/core/abi.h"

/// Everything public. The inline namespace is for the linker only: write `ple::Chat`.
namespace ple {
inline namespace PLE_ABI {}
}  // namespace ple
