// SPDX-License-Identifier: Apache-2.0
// Every kernel but products, of every backend this machine runs, for every dtype, against Scalar.
#include "kernel_cases.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "ple/simd/decode.h"

namespace ple::kernels_test {

using namespace testing;

TEST_CASE("rounding to bf16 is to_bf16, for every upper half of a float") {
  std::vector<float> x;
  for (std::uint32_t upper = 0; upper < 0x10000; ++upper) {
    for (const std::uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(std::bit_cast<float>(upper << 16 | lower));
    }
  }
  for_each_checked_backend([&]<Backend B>() {
    std::vector<bf16> y(x.size() + 1, bf16{0x1234});
    B::round(x.data(), x.size(), y.data());
    bool good = y.back().bits == 0x1234;
    for (std::size_t i = 0; i < x.size(); ++i) good &= y[i].bits == to_bf16(x[i]).bits;
    CHECK(good);
  });
}

TEST_CASE("decode is exact for every bit pattern of a 16-bit type") {
  for_each_checked_backend([]<Backend B>() {
    const auto check_all = []<class T>() {
      std::vector<T> all(65536);
      for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
      std::vector<float> y(all.size());
      B::decode(all.data(), all.size(), y.data());
      std::size_t different = 0;
      for (std::size_t i = 0; i < all.size(); ++i) {
        const float expected = to_f32(all[i]);
        different += std::isnan(expected) ? !std::isnan(y[i]) : !same_bits(y[i], expected);
      }
      CHECK(different == 0);
    };
    check_all.template operator()<bf16>();
    check_all.template operator()<f16>();
  });
}

TEST_CASE("decode, add, multiply and scale equal Scalar's bit for bit") {
  for_each_checked_backend([]<Backend B>() {
    for_each_dtype([]<class T>() {
      for_each_case([](Case c) {
        const std::vector<T> x = stored<T>(c.offset + c.n, 8);
        std::vector<float> y(c.n), expected(c.n);
        B::decode(x.data() + c.offset, c.n, y.data());
        Scalar::decode(x.data() + c.offset, c.n, expected.data());
        bool same = true;
        for (std::size_t i = 0; i < c.n; ++i) same &= same_bits(y[i], expected[i]);
        CHECK(same);
      });
    });
    for_each_case([](Case c) {
      const std::vector<float> x = stored<f32>(c.offset + c.n, 9);
      std::vector<float> start = random_values(c.offset + c.n, 10), y = start, expected = start;
      const auto check_same = [&] {
        bool same = true;
        for (std::size_t i = 0; i < y.size(); ++i) same &= same_bits(y[i], expected[i]);
        CHECK(same);
        y = expected = start;
      };
      B::add(x.data() + c.offset, c.n, y.data() + c.offset);
      Scalar::add(x.data() + c.offset, c.n, expected.data() + c.offset);
      check_same();
      B::multiply(x.data() + c.offset, c.n, y.data() + c.offset);
      Scalar::multiply(x.data() + c.offset, c.n, expected.data() + c.offset);
      check_same();
      B::scale(0.3f, c.n, y.data() + c.offset);
      Scalar::scale(0.3f, c.n, expected.data() + c.offset);
      check_same();
    });
  });
}

TEST_CASE("rms_norm equals Scalar's within rounding, with and without weight, in place too") {
  // The mean of squares is off by at most (n + 2) u, its root by half of that; three more roundings follow.
  for_each_checked_backend([]<Backend B>() {
    for_each_case([](Case c) {
      const std::vector<float> x = random_values(c.offset + c.n, 11, 3), weight = random_values(c.offset + c.n, 12);
      for (const bool weighted : {false, true}) {
        const float* w = weighted ? weight.data() + c.offset : nullptr;
        std::vector<float> y(c.n), expected(c.n), in_place = x;
        B::rms_norm(x.data() + c.offset, w, c.n, 1e-6f, y.data());
        B::rms_norm(in_place.data() + c.offset, w, c.n, 1e-6f, in_place.data() + c.offset);
        Scalar::rms_norm(x.data() + c.offset, w, c.n, 1e-6f, expected.data());
        bool good = true;
        for (std::size_t i = 0; i < c.n; ++i) {
          good &= std::abs(y[i] - expected[i]) <= float(c.n + 8) * unit_roundoff * std::abs(expected[i]);
          good &= same_bits(y[i], in_place[c.offset + i]);
        }
        CHECK(good);
      }
    });
    std::vector<float> zero(17, 0.0f);
    B::rms_norm(zero.data(), nullptr, zero.size(), 1e-6f, zero.data());
    CHECK(zero == std::vector<float>(17, 0.0f));
  });
}

TEST_CASE("rope equals Scalar's within rounding and keeps a pair's length") {
  for_each_checked_backend([]<Backend B>() {
    for_each_case([](Case c) {
      std::vector<float> x = random_values(c.offset + 2 * c.n, 13), expected = x, cosine(c.n), sine(c.n);
      for (std::size_t i = 0; i < c.n; ++i) cosine[i] = std::cos(float(i)), sine[i] = std::sin(float(i));
      const std::vector<float> start = x;
      B::rope(cosine.data(), sine.data(), c.n, x.data() + c.offset);
      Scalar::rope(cosine.data(), sine.data(), c.n, expected.data() + c.offset);
      bool good = true;
      for (std::size_t i = c.offset; i < c.offset + c.n; ++i) {
        const float length = std::hypot(start[i], start[i + c.n]);
        good &= std::abs(x[i] - expected[i]) <= 4 * unit_roundoff * length;
        good &= std::abs(x[i + c.n] - expected[i + c.n]) <= 4 * unit_roundoff * length;
        good &= std::abs(std::hypot(x[i], x[i + c.n]) - length) <= 8 * unit_roundoff * length;
      }
      CHECK(good);
    });
  });
}

TEST_CASE("gelu, softcap and exp_sum equal the formula in f64") {
  // exp and tanh of Highway and of libm are good to a few units in the last place; the argument of exp, up to 88, is
  // rounded itself, which moves exp by |argument| u. So: 100 u relative, and nothing below the smallest normal number.
  const auto close = [](float y, double expected, float ulps) {
    return std::abs(double(y) - expected) <= double(ulps * unit_roundoff) * std::abs(expected) + double(0x1p-120f);
  };
  const auto gelu = [](double x) { return x / (1 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))); };
  for_each_checked_backend([&]<Backend B>() {
    for_each_case([&](Case c) {
      const std::vector<float> x = random_values(c.offset + c.n, 14, 4);
      std::vector<float> y = x;
      B::gelu(c.n, y.data() + c.offset);
      bool good = true;
      for (std::size_t i = c.offset; i < y.size(); ++i) good &= close(y[i], gelu(double(x[i])), 300);
      CHECK(good);

      y = x;
      B::softcap(3.0f, c.n, y.data() + c.offset);
      good = true;
      for (std::size_t i = c.offset; i < y.size(); ++i) good &= close(y[i], 3 * std::tanh(double(x[i]) / 3), 20);
      CHECK(good);

      y = x;
      const ExpSum got = B::exp_sum(c.n, y.data() + c.offset);
      double largest = -1e30, sum = 0;
      for (std::size_t i = c.offset; i < x.size(); ++i) largest = std::max(largest, double(x[i]));
      for (std::size_t i = c.offset; i < x.size(); ++i) sum += std::exp(double(x[i]) - largest);
      good = double(got.largest) == largest && close(got.sum, sum, 100 + float(c.n));
      for (std::size_t i = c.offset; i < y.size(); ++i) good &= close(y[i], std::exp(double(x[i]) - largest), 100);
      CHECK(good);
    });
    {
      const float most = std::numeric_limits<float>::max();
      std::vector<float> y = {0.0f, -0.0f, 1e-40f, -1e-40f, 50.0f, -50.0f, most, -most, 1e10f, -1e10f};
      const std::vector<float> x = y;
      B::gelu(y.size(), y.data());
      for (std::size_t i = 0; i < y.size(); ++i) {
        CAPTURE(x[i]);
        CHECK(std::abs(y[i] - std::max(x[i], 0.0f)) <= 1e-6f * std::abs(std::max(x[i], 0.0f)) + 1e-30f);
      }
      y = x;
      B::softcap(30.0f, y.size(), y.data());
      for (std::size_t i = 0; i < y.size(); ++i) {
        CAPTURE(x[i]);
        CHECK(std::abs(y[i]) <= 30.0f);
        CHECK((x[i] == 0 ? y[i] == 0 : (y[i] > 0) == (x[i] > 0)));
      }
      std::vector<float> same(37, 1000.0f);
      const ExpSum of_same = B::exp_sum(same.size(), same.data());
      CHECK(of_same.largest == 1000.0f);
      CHECK(of_same.sum == 37.0f);
      CHECK(same == std::vector<float>(37, 1.0f));
      std::vector<float> apart = {-most, 0.0f, -most};
      CHECK(B::exp_sum(apart.size(), apart.data()).sum == 1.0f);
      CHECK(apart == std::vector<float>{0.0f, 1.0f, 0.0f});
    }
    {  // a NaN stays one
      std::vector<float> y(20, 1.0f);
      y[3] = y[19] = std::numeric_limits<float>::quiet_NaN();
      std::vector<float> z = y;
      B::gelu(y.size(), y.data());
      B::softcap(30.0f, z.size(), z.data());
      for (const std::size_t i : {3u, 19u}) {
        CHECK(std::isnan(y[i]));
        CHECK(std::isnan(z[i]));
      }
    }
  });
}

TEST_CASE("gaussian_topk takes the mean and some deviations away, and what is below becomes 0") {
  const auto check = [&]<Backend B>() {
    const std::string backend = B::name();
    CAPTURE(backend);
    for_each_case([&](Case c) {
      for (const float z : {-1.0f, 0.0f, 1.6448536f}) {
        CAPTURE(z);
        std::vector<float> y = random_values(c.offset + c.n, 15, 3);
        for (float& value : y) value += 2;
        const std::vector<float> x = y;
        B::gaussian_topk(z, c.n, y.data() + c.offset);
        double mean = 0, variance = 0, most = 0;
        for (std::size_t i = c.offset; i < x.size(); ++i) mean += double(x[i]) / double(c.n);
        for (std::size_t i = c.offset; i < x.size(); ++i) {
          variance += std::pow(double(x[i]) - mean, 2) / double(c.n);
          most = std::max(most, std::abs(double(x[i])));
        }
        const double cutoff = mean + double(z) * std::sqrt(variance);
        // A sum of n terms is off by n u times their absolute sum: the mean by n u most, the variance by (n + 4) u of
        // itself and its root, at most 2 most, by half of that; and an error of the mean moves the root by no more.
        const double bound = (1 + std::abs(double(z))) * double(2 * c.n + 10) * double(unit_roundoff) * most;
        bool good = true;
        for (std::size_t i = 0; i < y.size(); ++i) {
          const double expected = i < c.offset ? double(x[i]) : std::max(double(x[i]) - cutoff, 0.0);
          good &= std::abs(double(y[i]) - expected) <= bound;
        }
        CHECK(good);
      }
    });
    std::vector<float> constant(37, 1.5f);  // no deviation: nothing is above the mean
    B::gaussian_topk(1, constant.size(), constant.data());
    CHECK(constant == std::vector<float>(37, 0.0f));
    std::vector<float> y(20, 1.0f);
    y[3] = std::numeric_limits<float>::quiet_NaN();
    B::gaussian_topk(1, y.size(), y.data());
    for (const float value : y) CHECK(std::isnan(value));
  };
  check.operator()<Scalar>();
  for_each_backend(check);
}

TEST_CASE("blocks decode as Scalar decodes them") {
  for_each_checked_backend([]<Backend B>() {
    const auto check = []<class T>() {
      constexpr std::size_t per_block = DtypeTraits<T>::values_per_block;
      for (const std::size_t blocks : {1u, 2u, 3u, 8u}) {
        std::vector<T> stored(blocks + 1);  // the first one only moves the others
        std::mt19937 generator(5);
        for (T& block : stored) {
          auto* bytes = reinterpret_cast<unsigned char*>(&block);
          for (std::size_t i = 0; i < sizeof block; ++i) bytes[i] = static_cast<unsigned char>(generator());
        }
        std::vector<float> expected(blocks * per_block), actual(blocks * per_block);
        Scalar::decode(stored.data() + 1, expected.size(), expected.data());
        ple::decode<B>(DtypeTraits<T>::id, reinterpret_cast<const std::byte*>(stored.data() + 1), actual.size(),
                       actual.data());
        bool good = true;
        // Random scales are infinite or no number at times.
        for (std::size_t i = 0; i < actual.size(); ++i) {
          good &= same_bits(actual[i], expected[i]) || (std::isnan(actual[i]) && std::isnan(expected[i]));
        }
        CHECK(good);
      }
    };
    for (const Dtype type : all_dtypes) {
      const std::string name(name_of(type));
      CAPTURE(name);
      with_dtype(type, [&]<class T>() {
        if constexpr (DtypeTraits<T>::values_per_block > 1) check.template operator()<T>();
      });
    }
  });
}

}  // namespace ple::kernels_test
