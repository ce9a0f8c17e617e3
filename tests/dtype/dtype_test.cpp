// SPDX-License-Identifier: Apache-2.0
#include "ple/dtype/dtype.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace ple;

namespace {

/// The value of an f16 by the definition of the format.
double by_definition(f16 x) {
  const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  const double sign = x.bits & 0x8000 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

/// Whether `rounded` is the nearest value of T to x, the one with an even last bit in a tie.
template <class T>
bool nearest(float x, T rounded) {
  if (std::isinf(to_f32(rounded))) return true;  // checked apart
  const double error = std::abs(double(x) - double(to_f32(rounded)));
  for (const int step : {-1, 1}) {
    const T other{static_cast<std::uint16_t>(rounded.bits + step)};
    const double other_error = std::abs(double(x) - double(to_f32(other)));
    if (!std::isfinite(to_f32(other))) continue;
    if (other_error < error || (other_error == error && rounded.bits % 2 == 1)) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("every f16 has the value of its definition, and survives the way to f32 and back") {
  std::size_t wrong = 0;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const f16 half{static_cast<std::uint16_t>(bits)};
    const double expected = by_definition(half);
    const float value = to_f32(half);
    if (std::isnan(expected)) {
      wrong += !std::isnan(value) || !std::isnan(to_f32(to_f16(value)));
    } else {
      wrong +=
          double(value) != expected || std::signbit(value) != std::signbit(expected) || to_f16(value).bits != half.bits;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("every bf16 survives the way to f32 and back") {
  std::size_t wrong = 0;
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const bf16 value{static_cast<std::uint16_t>(bits)};
    wrong +=
        std::isnan(to_f32(value)) ? !std::isnan(to_f32(to_bf16(to_f32(value)))) : to_bf16(to_f32(value)).bits != bits;
  }
  CHECK(wrong == 0);
}

TEST_CASE("rounding to 16 bits takes the nearest value, ties to even") {
  std::mt19937 generator(1);
  std::size_t wrong = 0;
  for (int i = 0; i < 300000; ++i) {
    const auto x = std::bit_cast<float>(static_cast<std::uint32_t>(generator()));
    if (!std::isfinite(x)) continue;
    wrong += !nearest(x, to_bf16(x));
    wrong += !nearest(x, to_f16(x));
    const float small =
        std::ldexp(static_cast<float>(generator()) / 4294967296.0f, -static_cast<int>(generator() % 30));
    wrong += !nearest(small, to_f16(small));
  }
  CHECK(wrong == 0);
  CHECK(to_f16(65519.0f).bits == 0x7bff);
  CHECK(to_f16(65520.0f).bits == 0x7c00);
  CHECK(to_f16(-1e30f).bits == 0xfc00);
  CHECK(to_f16(0x1p-25f).bits == 0);
  CHECK(to_f16(0x1.1p-25f).bits == 1);
  CHECK(to_bf16(std::numeric_limits<float>::max()).bits == 0x7f80);
  CHECK(to_bf16(1.00390625f).bits == 0x3f80);  // a tie: 1 + 2^-8 goes down to the even 1
  CHECK(to_bf16(1.01171875f).bits == 0x3f82);  // a tie: 1 + 3 * 2^-8 goes up
}

// The files come from tests/reference/make_dtype_golden.py.
template <class T>
void check_against_gguf(const char* name) {
  std::ifstream file(std::string(PLE_TEST_DATA) + "/dtype/" + name + ".bin", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  std::uint32_t blocks = 0;
  REQUIRE(bytes.size() > sizeof blocks);
  std::memcpy(&blocks, bytes.data(), sizeof blocks);
  constexpr std::size_t n = DtypeTraits<T>::values_per_block;
  std::vector<float> values(blocks * n), decoded(blocks * n);
  std::vector<T> stored(blocks);
  REQUIRE(bytes.size() == sizeof blocks + 2 * values.size() * sizeof(float) + blocks * sizeof(T));
  const char* at = bytes.data() + sizeof blocks;
  const auto take = [&](auto& list) {
    std::memcpy(list.data(), at, list.size() * sizeof list[0]);
    at += list.size() * sizeof list[0];
  };
  take(values);
  take(stored);
  take(decoded);
  std::size_t wrong_blocks = 0, wrong_values = 0;
  for (std::size_t b = 0; b < blocks; ++b) {
    T block;
    DtypeTraits<T>::encode(values.data() + b * n, block);
    wrong_blocks += std::memcmp(&block, &stored[b], sizeof block) != 0;
    float out[n];
    DtypeTraits<T>::decode(stored[b], out);
    wrong_values += std::memcmp(out, decoded.data() + b * n, sizeof out) != 0;
  }
  CHECK(wrong_blocks == 0);
  CHECK(wrong_values == 0);
}

TEST_CASE("blocks are encoded and decoded bit for bit as the package gguf does it") {
  check_against_gguf<q8_0>("q8_0");
  check_against_gguf<q4_0>("q4_0");
}

TEST_CASE("what is no number becomes a finite integer") {
  float values[32] = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1};
  q8_0 eight;
  q4_0 four;
  DtypeTraits<q8_0>::encode(values, eight);  // the sanitizers watch the conversions
  DtypeTraits<q4_0>::encode(values, four);
  CHECK(to_f32(eight.scale) == std::numeric_limits<float>::infinity());
}

TEST_CASE("every type is found by its name") {
  for (const Dtype type : {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::q8_0, Dtype::q4_0}) {
    CHECK(dtype_of_name(name_of(type)) == type);
  }
  CHECK(dtype_of_name("q4_k_xxl") == std::nullopt);
  CHECK(bytes_of(Dtype::q4_0, 256) == 8 * 18);
}
