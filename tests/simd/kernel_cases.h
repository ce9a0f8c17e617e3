// SPDX-License-Identifier: Apache-2.0
// What tests of kernels share: sizes, values and backends to try.
#pragma once

#include "ple/dispatch.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

namespace ple::testing {

inline constexpr float unit_roundoff = 0x1p-24f;
inline const std::vector<std::size_t> sizes = {1,  2,  3,  5,  7,  8,  9,   15,  16,  17,
                                               31, 33, 47, 63, 64, 65, 100, 129, 257, 1000};

// Vectors begin `offset` values into their memory, so that no vector is aligned, and end where their memory ends.
struct Case {
  std::size_t n, offset;
};

template <class F>
void for_each_case(F&& f) {
  for (const std::size_t n : sizes) {
    for (const std::size_t offset : {0u, 1u, 3u}) {
      CAPTURE(n);
      CAPTURE(offset);
      f(Case{n, offset});
    }
  }
}

template <class F>
void for_each_checked_backend(F&& f) {
  for_each_backend([&]<Backend B>() {
    const std::string backend = B::name();
    CAPTURE(backend);
    f.template operator()<B>();
  });
}

template <class F>
void for_each_dtype(F&& f) {
  f.template operator()<f32>();
  f.template operator()<bf16>();
  f.template operator()<f16>();
}

inline std::vector<float> random_values(std::size_t n, unsigned seed, float deviation = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(n);
  for (float& v : values) v = normal(generator);
  return values;
}

/// Random values with the edges between them: zeros of both signs, denormals of T, the largest value of T whose
/// products still fit in an f32.
template <class T>
std::vector<T> stored(std::size_t n, unsigned seed) {
  std::vector<float> values = random_values(n, seed);
  const float edges[] = {0.0f, -0.0f, 0x1p-24f, -0x1p-133f, std::numeric_limits<float>::denorm_min(), 60000.0f, -1e18f};
  for (std::size_t i = 0; i < n; i += 5) values[i] = edges[i / 5 % std::size(edges)];
  if (std::is_same_v<T, f16>) {
    for (float& v : values) v = std::clamp(v, -65504.0f, 65504.0f);
  }
  std::vector<T> out(n);
  for (std::size_t i = 0; i < n; ++i) DtypeTraits<T>::encode(&values[i], out[i]);
  return out;
}

inline bool same_bits(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

}  // namespace ple::testing
