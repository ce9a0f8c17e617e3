// SPDX-License-Identifier: Apache-2.0
// Every kernel of every backend this machine runs, for every dtype, against Scalar.
#include "ple/dispatch.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "ple/simd/decode.h"

namespace ple::kernels_test {

namespace {

constexpr float unit_roundoff = 0x1p-24f;
const std::vector<std::size_t> sizes = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 47, 63, 64, 65, 100, 129, 257, 1000};

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

std::vector<float> random_values(std::size_t n, unsigned seed, float deviation = 1) {
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

bool same_bits(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

}  // namespace

TEST_CASE("matmul equals Scalar's within the rounding of a sum") {
  // Both compute a sum of n products, each with an error of at most n u sum |w x| (Higham 2002, section 3.1).
  for_each_checked_backend([]<Backend B>() {
    for_each_dtype([]<class T>() {
      for_each_case([](Case c) {
        for (const std::size_t rows : {1u, 3u, 4u, 9u}) {
          for (const std::size_t tokens : {1u, 2u, 3u, 5u, 6u, 7u, 13u}) {
            if (c.n > 200 && tokens > 7) continue;
            const std::size_t stride = c.n + 2, x_stride = c.n + 1, y_stride = rows + 3;
            const std::vector<T> w = stored<T>(c.offset + (rows - 1) * stride + c.n, 1);
            const std::vector<float> x = random_values(c.offset + (tokens - 1) * x_stride + c.n, 2);
            std::vector<float> y(tokens * y_stride, -7.0f), expected = y;
            B::matmul(w.data() + c.offset, stride, rows, c.n, x.data() + c.offset, x_stride, tokens, y.data(),
                      y_stride);
            Scalar::matmul(w.data() + c.offset, stride, rows, c.n, x.data() + c.offset, x_stride, tokens,
                           expected.data(), y_stride);
            bool good = true;
            for (std::size_t t = 0; t < tokens; ++t) {
              for (std::size_t r = 0; r < y_stride; ++r) {
                double sum = 0;
                for (std::size_t i = 0; r < rows && i < c.n; ++i) {
                  sum +=
                      std::abs(double(to_f32(w[c.offset + r * stride + i])) * double(x[c.offset + t * x_stride + i]));
                }
                const double error = std::abs(double(y[t * y_stride + r]) - double(expected[t * y_stride + r]));
                good &= error <= 2 * double(c.n) * unit_roundoff * sum;
              }
            }
            CAPTURE(rows);
            CAPTURE(tokens);
            CHECK(good);
          }
        }
      });
    });
  });
}

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

TEST_CASE("matmul of bf16 with bf16 equals Scalar's within the rounding of a sum, and does not depend on the call") {
  for_each_checked_backend([]<Backend B>() {
    for_each_case([](Case c) {
      const std::size_t rows = 9, tokens = 13, stride = c.n + 2, x_stride = c.n + 1, y_stride = rows + 3;
      const std::vector<bf16> w = stored<bf16>(c.offset + (rows - 1) * stride + c.n, 1);
      std::vector<bf16> x(c.offset + (tokens - 1) * x_stride + c.n);
      const std::vector<float> exact = random_values(x.size(), 2);
      B::round(exact.data(), exact.size(), x.data());
      std::vector<float> y(tokens * y_stride, -7.0f), expected = y;
      B::matmul(w.data() + c.offset, stride, rows, c.n, x.data() + c.offset, x_stride, tokens, y.data(), y_stride);
      Scalar::matmul(w.data() + c.offset, stride, rows, c.n, x.data() + c.offset, x_stride, tokens, expected.data(),
                     y_stride);
      bool good = true, same = true;
      for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t r = 0; r < y_stride; ++r) {
          double sum = 0;
          for (std::size_t i = 0; r < rows && i < c.n; ++i) {
            sum +=
                std::abs(double(to_f32(w[c.offset + r * stride + i])) * double(to_f32(x[c.offset + t * x_stride + i])));
          }
          // The instruction takes denormals for 0: the smallest weights here, of at most 2^-126 each.
          const double bound = 2 * double(c.n) * (unit_roundoff * sum + 4 * 0x1p-126);
          good &= std::abs(double(y[t * y_stride + r]) - double(expected[t * y_stride + r])) <= bound;
          if (r >= rows) continue;
          float one = 0;
          B::matmul(w.data() + c.offset + r * stride, stride, 1, c.n, x.data() + c.offset + t * x_stride, x_stride, 1,
                    &one, 1);
          same &= same_bits(one, y[t * y_stride + r]);
        }
      }
      CHECK(good);
      CHECK(same);
    });
  });
}

// What B::matmul gives for all rows and tokens has the bits that it gives for each by itself.
template <Backend B, class W, class X>
bool same_one_by_one(std::size_t rows, std::size_t n, std::size_t tokens, const std::vector<W>& w,
                     const std::vector<X>& x) {
  std::vector<float> all(tokens * rows);
  B::matmul(w.data(), n, rows, n, x.data(), n, tokens, all.data(), rows);
  bool same = true;
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t r = 0; r < rows; ++r) {
      float one = 0;
      B::matmul(w.data() + r * n, n, 1, n, x.data() + t * n, n, 1, &one, 1);
      same &= same_bits(one, all[t * rows + r]);
    }
  }
  return same;
}

TEST_CASE("matmul gives a row the same bits however many rows and tokens are in the call") {
  for_each_checked_backend([&]<Backend B>() {
    for_each_dtype([&]<class T>() {
      for (const std::size_t n : {7u, 100u, 257u}) {
        CAPTURE(n);
        CHECK(same_one_by_one<B>(11, n, 17, stored<T>(11 * n, 3), random_values(17 * n, 4)));
      }
    });
  });
}

TEST_CASE("so it does where the rows fill more than the cache, and where a row does") {
  struct Shape {
    std::size_t rows, n, tokens;
  };
  for_each_checked_backend([&]<Backend B>() {
    for (const Shape shape : {Shape{70, 1025, 8}, Shape{70, 1025, 1}, Shape{7, 9001, 1}, Shape{5, 33000, 3}}) {
      CAPTURE(shape.n);
      CAPTURE(shape.tokens);
      const std::vector<float> x = random_values(shape.tokens * shape.n, 4);
      for_each_dtype([&]<class T>() {
        CHECK(same_one_by_one<B>(shape.rows, shape.n, shape.tokens, stored<T>(shape.rows * shape.n, 3), x));
      });
      std::vector<bf16> rounded(x.size());
      B::round(x.data(), x.size(), rounded.data());
      CHECK(same_one_by_one<B>(shape.rows, shape.n, shape.tokens, stored<bf16>(shape.rows * shape.n, 3), rounded));
    }
  });
}

TEST_CASE("weighted_sum adds to what is there, within the rounding of a sum, and does not depend on where it is cut") {
  for_each_checked_backend([]<Backend B>() {
    for_each_case([](Case c) {
      for (const std::size_t tokens : {1u, 2u, 3u, 6u, 9u}) {
        if (c.n > 200 && tokens > 3) continue;
        const std::size_t n = 13, stride = c.n + 1, weights_stride = n + 2, y_stride = c.n + 3;
        const std::vector<float> rows = stored<f32>(c.offset + n * stride, 5);
        const std::vector<float> weights = random_values(tokens * weights_stride, 6);
        const std::vector<float> start = random_values(tokens * y_stride, 7);
        std::vector<float> y = start, expected = start, cut = start;
        const auto add = [&]<Backend Any>(std::size_t first, std::size_t count, std::size_t t, std::size_t some,
                                          std::vector<float>& sums) {
          Any::weighted_sum(rows.data() + c.offset + first * stride, stride, count, c.n,
                            weights.data() + t * weights_stride + first, weights_stride, some,
                            sums.data() + t * y_stride, y_stride);
        };
        add.template operator()<B>(0, n, 0, tokens, y);
        add.template operator()<Scalar>(0, n, 0, tokens, expected);
        for (std::size_t t = 0; t < tokens; ++t) {
          add.template operator()<B>(0, 5, t, 1, cut);
          add.template operator()<B>(5, n - 5, t, 1, cut);
        }
        bool good = true, same = true;
        for (std::size_t i = 0; i < y.size(); ++i) {
          const std::size_t t = i / y_stride, column = i % y_stride;
          double sum = std::abs(double(start[i]));
          for (std::size_t r = 0; r < n && column < c.n; ++r) {
            sum += std::abs(double(weights[t * weights_stride + r]) * double(rows[c.offset + r * stride + column]));
          }
          const double bound = column < c.n ? 2 * double(n + 1) * unit_roundoff * sum : 0;
          good &= std::abs(double(y[i]) - double(expected[i])) <= bound;
          same &= same_bits(y[i], cut[i]);
        }
        CAPTURE(tokens);
        CHECK(good);
        CHECK(same);
      }
    });
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

TEST_CASE("keep_above takes the mean and some deviations away, and what is below becomes 0") {
  const auto check = [&]<Backend B>() {
    const std::string backend = B::name();
    CAPTURE(backend);
    for_each_case([&](Case c) {
      for (const float z : {-1.0f, 0.0f, 1.6448536f}) {
        CAPTURE(z);
        std::vector<float> y = random_values(c.offset + c.n, 15, 3);
        for (float& value : y) value += 2;
        const std::vector<float> x = y;
        B::keep_above(z, c.n, y.data() + c.offset);
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
    B::keep_above(1, constant.size(), constant.data());
    CHECK(constant == std::vector<float>(37, 0.0f));
    std::vector<float> y(20, 1.0f);
    y[3] = std::numeric_limits<float>::quiet_NaN();
    B::keep_above(1, y.size(), y.data());
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
