// SPDX-License-Identifier: Apache-2.0
#include "ple/dtype/dtype.h"

#include <doctest/doctest.h>

#include <algorithm>
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

namespace ple::dtype_test {

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
    const float tiny = std::ldexp(static_cast<float>(generator()) / 4294967296.0f, -static_cast<int>(generator() % 30));
    wrong += !nearest(tiny, to_f16(tiny));
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

namespace {

/// Calls f.template operator()<T>() for every type that is a block of several values.
template <class F>
void for_each_block_type(F&& f) {
  for (const Dtype type : all_dtypes) {
    const std::string name(name_of(type));
    CAPTURE(name);
    with_dtype(type, [&]<class T>() {
      if constexpr (DtypeTraits<T>::values_per_block > 1) f.template operator()<T>();
    });
  }
}

template <class F>
void for_each_encodable_block_type(F&& f) {
  for_each_block_type([&]<class T>() {
    if constexpr (EncodableType<T>) f.template operator()<T>();
  });
}

/// Values as they are after they were stored, whole blocks of them.
template <EncodableType T>
std::vector<float> stored_and_read(const std::vector<float>& values) {
  constexpr std::size_t n = DtypeTraits<T>::values_per_block;
  std::vector<float> out(values.size());
  for (std::size_t i = 0; i < values.size(); i += n) {
    T block;
    DtypeTraits<T>::encode(values.data() + i, block);
    DtypeTraits<T>::decode(block, out.data() + i);
  }
  return out;
}

std::vector<float> normal_values(std::size_t count, double mean = 0, double deviation = 1) {
  std::mt19937 generator(7);
  std::normal_distribution<double> normal(mean, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(normal(generator));
  return values;
}

double rms_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
  return std::sqrt(sum / static_cast<double>(a.size()));
}

/// The RMS error of the type on normal values, in units of their deviation.
template <EncodableType T>
double error_on_normal_values(double deviation = 1) {
  const std::vector<float> values = normal_values(256 * 400, 0, deviation);
  return rms_difference(stored_and_read<T>(values), values) / deviation;
}

}  // namespace

// The files come from tests/reference/make_dtype_golden.py.
TEST_CASE("blocks are encoded and decoded bit for bit as the package gguf does it") {
  for_each_block_type([]<class T>() {
    std::ifstream file(std::string(PLE_TEST_DATA) + "/dtype/" + std::string(DtypeTraits<T>::name) + ".bin",
                       std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    std::uint32_t blocks = 0;
    REQUIRE(bytes.size() > sizeof blocks);
    std::memcpy(&blocks, bytes.data(), sizeof blocks);
    REQUIRE(blocks > 0);
    // What the package does not encode, or we do not, has files without values.
    constexpr std::size_t n = DtypeTraits<T>::values_per_block;
    constexpr bool with_values = EncodableType<T> && n == 32;
    std::vector<float> values(with_values ? blocks * n : 0), decoded(blocks * n);
    std::vector<T> stored(blocks);
    const char* at = bytes.data() + sizeof blocks;
    const auto take = [&](auto& list) {
      REQUIRE(static_cast<std::size_t>(bytes.data() + bytes.size() - at) >= list.size() * sizeof list[0]);
      if (!list.empty()) std::memcpy(list.data(), at, list.size() * sizeof list[0]);
      at += list.size() * sizeof list[0];
    };
    take(values);
    take(stored);
    take(decoded);
    REQUIRE(at == bytes.data() + bytes.size());
    std::size_t wrong_blocks = 0, wrong_values = 0;
    for (std::size_t b = 0; b < blocks; ++b) {
      if constexpr (with_values) {
        T block;
        DtypeTraits<T>::encode(values.data() + b * n, block);
        wrong_blocks += std::memcmp(&block, &stored[b], sizeof block) != 0;
      }
      float out[n];
      DtypeTraits<T>::decode(stored[b], out);
      wrong_values += std::memcmp(out, decoded.data() + b * n, sizeof out) != 0;
    }
    CHECK(wrong_blocks == 0);
    CHECK(wrong_values == 0);
  });
}

TEST_CASE("q4_k, q5_k and q6_k lose little of normal values") {
  // Measured on 512,000 values of another seed: 0.0702, 0.0347 and 0.0172 deviations. Here 102,400 values are used, so
  // the measurement itself varies by about 1 / sqrt(2 * 102,400) = 0.2 %; 2 % more is allowed.
  CHECK(error_on_normal_values<q4_k>() < 1.02 * 0.0702);
  CHECK(error_on_normal_values<q5_k>() < 1.02 * 0.0347);
  CHECK(error_on_normal_values<q6_k>() < 1.02 * 0.0172);
  // With 4.5 bits a value against 5, and 5.5 against 6, the search gains more than the coarser scales lose.
  CHECK(error_on_normal_values<q4_k>() < error_on_normal_values<q4_1>());
  CHECK(error_on_normal_values<q5_k>() < error_on_normal_values<q5_1>());
}

TEST_CASE("small and large values lose no more") {
  // At a deviation of 1e-5 nearly every sub-block of q6_k still reaches 1.2 deviations, so its scale is 1.2e-5 / 32 or
  // more: 6 of f16's smallest steps, 2^-24. Rounding up to a step makes a scale, and its error, at most 1/6 larger.
  // The other two types have fewer integers and so larger scales.
  for (const double deviation : {1e-5, 1e-4, 1e3}) {
    const double loss = deviation == 1e-5 ? 1 + 1 / 6.0 : 1.02;
    CAPTURE(deviation);
    CHECK(error_on_normal_values<q4_k>(deviation) < loss * 0.0702);
    CHECK(error_on_normal_values<q5_k>(deviation) < loss * 0.0347);
    CHECK(error_on_normal_values<q6_k>(deviation) < loss * 0.0172);
  }
}

TEST_CASE("what was stored once is stored again nearly as it is") {
  for_each_encodable_block_type([]<class T>() {
    const std::vector<float> values = normal_values(256 * 200), once = stored_and_read<T>(values),
                             twice = stored_and_read<T>(once);
    CAPTURE(rms_difference(once, values));
    CAPTURE(rms_difference(twice, once));
    CHECK(rms_difference(twice, once) < 0.1 * rms_difference(once, values));
  });
}

TEST_CASE("zeros stay zeros, and a single value among them stays what it is") {
  for_each_encodable_block_type([]<class T>() {
    const std::vector<float> zeros(256, 0.0f);
    CHECK(stored_and_read<T>(zeros) == zeros);
    // One value in each sub-block: a scale and a minimum are rounded to f16, by 2^-11 each.
    for (const float height : {32.0f, -32.0f, 0.25f}) {
      std::vector<float> spikes(256, 0.0f);
      for (std::size_t i = 0; i < 256; i += 32) spikes[i + i / 32] = height;
      const std::vector<float> stored = stored_and_read<T>(spikes);
      CAPTURE(height);
      bool good = true;
      for (std::size_t i = 0; i < 256; ++i) good &= std::abs(stored[i] - spikes[i]) <= std::abs(height) * 0x1p-10f;
      CHECK(good);
    }
  });
}

TEST_CASE("k-quants follow values that are all positive or all negative") {
  for (const double mean : {3.0, -3.0}) {
    CAPTURE(mean);
    const std::vector<float> values = normal_values(256 * 50, mean, 0.5);
    // Of 32 values with a deviation of 0.5, the least and the largest lie about 2.1 apart and 1.05 from the mean. The
    // positive ones' range begins at 0 nevertheless, as minimums are no higher. The negative ones' range moves by half
    // of a step of the minimums, the deepest of which, about 4.5, is 63 steps.
    const double range = mean > 0 ? 3 + 1.2 : 2.1, moved = mean > 0 ? 0 : 4.5 / 63 / 2;
    const auto bound = [&](int most) { return std::hypot(range / most / std::sqrt(12), moved); };
    CHECK(rms_difference(stored_and_read<q4_k>(values), values) < bound(15));
    CHECK(rms_difference(stored_and_read<q5_k>(values), values) < bound(31));
  }
}

TEST_CASE("what is no number becomes some integer, and the other blocks do not notice") {
  // The sanitizers watch the conversions.
  constexpr float infinity = std::numeric_limits<float>::infinity();
  for_each_encodable_block_type([]<class T>() {
    for (const float strange : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity, 3e38f, -3e38f}) {
      std::vector<float> values = normal_values(512);
      values[1] = strange;
      const std::vector<float> stored = stored_and_read<T>(values), plain = stored_and_read<T>(normal_values(512));
      CHECK(std::equal(stored.begin() + 256, stored.end(), plain.begin() + 256));
    }
  });
  float values[32] = {infinity, 1};
  q8_0 eight;
  DtypeTraits<q8_0>::encode(values, eight);
  CHECK(to_f32(eight.scale) == infinity);
}

TEST_CASE("every type is found by its name") {
  for (const Dtype type : all_dtypes) CHECK(dtype_of_name(name_of(type)) == type);
  for (std::size_t i = 0; i < all_dtypes.size(); ++i) CHECK(static_cast<std::size_t>(all_dtypes[i]) == i);
  CHECK(dtype_of_name("q4_k_xxl") == std::nullopt);
  CHECK(bytes_of(Dtype::q4_0, 256) == 8 * 18);
  CHECK(bytes_of(Dtype::q6_k, 512) == 2 * 210);
  CHECK(names_of_dtypes() ==
        "f32, bf16, f16, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_xs, iq2_xxs, iq2_xs, "
        "iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m, tq1_0, tq2_0, mxfp4, nvfp4");
  CHECK(names_of_dtypes(true) == "f32, bf16, f16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k");
}

}  // namespace ple::dtype_test
