// SPDX-License-Identifier: Apache-2.0
// The kernels of training, of every backend this machine runs, against their formulas in f64. Every sum's bound is that
// of n roundings of its terms' magnitudes.
#include "kernel_cases.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace ple::gradient_kernels_test {

using namespace testing;

namespace {

constexpr double u = double(unit_roundoff);

}  // namespace

TEST_CASE("gemm adds a b to c, for any strides; bits do not depend on what is computed at once") {
  for_each_checked_backend([]<Backend B>() {
    for (const std::size_t m : {1, 5, 6, 7, 12, 13, 40}) {
      for (const std::size_t n : {1, 8, 15, 16, 33, 70, 140}) {
        for (const std::size_t depth : {0, 1, 7, 128, 150}) {
          const std::vector<float> a = random_values(m * (depth + 3) + 1, 1), b = random_values((n + 5) * depth + n, 2),
                                   start = random_values(m * (n + 2), 3);
          const auto check = [&](Strided x, Strided y) {
            std::vector<float> c = start;
            B::gemm(x, y, m, n, depth, c.data(), n + 2);
            bool good = true;
            for (std::size_t i = 0; i < m; ++i) {
              for (std::size_t j = 0; j < n + 2; ++j) {
                double sum = double(start[i * (n + 2) + j]), terms = std::abs(sum);
                for (std::size_t k = 0; k < depth && j < n; ++k) {
                  const double term = double(x.data[i * x.row + k * x.col]) * double(y.data[k * y.row + j * y.col]);
                  sum += term;
                  terms += std::abs(term);
                }
                const double error = std::abs(double(c[i * (n + 2) + j]) - sum);
                good &= j < n ? error <= double(depth + 1) * u * terms : error == 0;
              }
            }
            CHECK(good);
            std::vector<float> parts = start;  // row by row, and columns in pieces
            for (std::size_t i = 0; i < m; ++i) {
              for (std::size_t first = 0; first < n; first += 20) {
                B::gemm(Strided{x.data + i * x.row, x.row, x.col}, Strided{y.data + first * y.col, y.row, y.col}, 1,
                        (std::min)(std::size_t{20}, n - first), depth, parts.data() + i * (n + 2) + first, n + 2);
              }
            }
            CHECK(parts == c);
          };
          check({a.data(), depth + 3, 1}, {b.data(), n + 5, 1});
          check({a.data(), 1, m}, {b.data(), 1, depth});  // both transposed
        }
      }
    }
  });
}

TEST_CASE("rms_norm_backward is the derivative of rms_norm") {
  for_each_checked_backend([]<Backend B>() {
    for_each_case([](Case c) {
      const std::vector<float> x = random_values(c.offset + c.n, 4), w = random_values(c.offset + c.n, 5),
                               dy = random_values(c.offset + c.n, 6);
      for (const bool weighted : {true, false}) {
        std::vector<float> dx(c.n), in_place = dy;
        const float* weight = weighted ? w.data() + c.offset : nullptr;
        B::rms_norm_backward(x.data() + c.offset, weight, c.n, 1e-6f, dy.data() + c.offset, dx.data());
        B::rms_norm_backward(x.data() + c.offset, weight, c.n, 1e-6f,
                             const_cast<const float*>(in_place.data()) + c.offset, in_place.data() + c.offset);
        double squares = 0, products = 0, terms = 0;
        for (std::size_t i = 0; i < c.n; ++i) {
          const double value = double(x[c.offset + i]), g = double(dy[c.offset + i]) * (weight ? double(weight[i]) : 1);
          squares += value * value;
          products += g * value;
          terms += std::abs(g * value);
        }
        const double n = double(c.n), r = 1 / std::sqrt(squares / n + 1e-6), bound = (n + 10) * u;
        bool good = true, same = true;
        for (std::size_t i = 0; i < c.n; ++i) {
          const double value = double(x[c.offset + i]), g = double(dy[c.offset + i]) * (weight ? double(weight[i]) : 1);
          const double expected = r * (g - value * r * r * products / n);
          good &=
              std::abs(double(dx[i]) - expected) <= bound * r * (std::abs(g) + 3 * std::abs(value) * r * r * terms / n);
          same &= same_bits(dx[i], in_place[c.offset + i]);
        }
        CHECK(good);
        CHECK(same);
      }
    });
  });
}

TEST_CASE("gated_gelu_backward is the derivative of gelu(g) u, near 0 and far from it") {
  // Of f64's derivative: the rounded argument of exp, up to 88, moves it by up to 88 u, and 1 - s loses digits near 1.
  const auto s_of = [](double x) { return 1 / (1 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))); };
  for_each_checked_backend([&]<Backend B>() {
    for_each_case([&](Case c) {
      std::vector<float> g = random_values(c.offset + c.n, 7, 4), up = random_values(c.offset + c.n, 8);
      const std::vector<float> gate = g, factor = up, da = random_values(c.offset + c.n, 9);
      B::gated_gelu_backward(c.n, da.data() + c.offset, g.data() + c.offset, up.data() + c.offset);
      bool good = true;
      for (std::size_t i = c.offset; i < g.size(); ++i) {
        const double x = double(gate[i]), s = s_of(x);
        const double slope = s + x * s * (1 - s) * 1.5957691216057308 * (1 + 3 * 0.044715 * x * x);
        good &= std::abs(double(g[i]) - double(da[i]) * double(factor[i]) * slope) <=
                300 * u * std::abs(double(da[i]) * double(factor[i])) * (std::abs(slope) + s * (1 + std::abs(x)) + u);
        good &= std::abs(double(up[i]) - double(da[i]) * x * s) <= 300 * u * std::abs(double(da[i]) * x) * s + 1e-36;
      }
      CHECK(good);
    });
    std::vector<float> g = {0.0f, 20.0f, -20.0f, 1e30f, -1e30f}, up(5, 2.0f);
    const std::vector<float> da(5, 1.0f), gate = g;
    B::gated_gelu_backward(g.size(), da.data(), g.data(), up.data());
    CHECK(g == std::vector<float>{1.0f, 2.0f, g[2], 2.0f, g[4]});
    CHECK(std::abs(g[2]) + std::abs(g[4]) < 1e-30f);
    CHECK(up[1] == 20.0f);
    CHECK(up[3] == 1e30f);
    CHECK(std::abs(up[2]) < 1e-30f);
    std::vector<float> bad = {std::numeric_limits<float>::quiet_NaN()}, one = {1.0f};
    B::gated_gelu_backward(1, da.data(), bad.data(), one.data());
    CHECK(std::isnan(bad[0]));
    CHECK(std::isnan(one[0]));
  });
}

TEST_CASE("softmax_backward, log_sum_exp and cross_entropy_backward equal their formulas in f64") {
  for_each_checked_backend([]<Backend B>() {
    for_each_case([](Case c) {
      const std::vector<float> y = random_values(c.offset + c.n, 10, 3), p = random_values(c.offset + c.n, 11);
      std::vector<float> dp = y;
      B::softmax_backward(c.n, p.data() + c.offset, 0.75f, dp.data() + c.offset);
      bool good = true;
      for (std::size_t i = c.offset; i < y.size(); ++i) {
        good &= same_bits(dp[i], p[i] * (y[i] - 0.75f));
      }
      CHECK(good);
      double sum = 0;
      for (std::size_t i = c.offset; i < y.size(); ++i) sum += std::exp(double(y[i]));
      const float lse = B::log_sum_exp(c.n, y.data() + c.offset);
      CHECK(std::abs(double(lse) - std::log(sum)) <= (double(c.n) + 100) * u * (1 + std::abs(std::log(sum))));
      for (const float cap : {0.0f, 20.0f}) {
        std::vector<float> dz = y;
        B::cross_entropy_backward(cap, lse, 0.25f, c.n, dz.data() + c.offset);
        good = true;
        for (std::size_t i = c.offset; i < y.size(); ++i) {
          const double t = cap > 0 ? double(y[i]) / double(cap) : 0;
          const double expected = 0.25 * std::exp(double(y[i]) - double(lse)) * (1 - t * t);
          good &= std::abs(double(dz[i]) - expected) <= 100 * u * expected + 1e-30;
        }
        CHECK(good);
      }
    });
    std::vector<float> large = {1e30f, -1e30f, 1e30f};
    CHECK(B::log_sum_exp(large.size(), const_cast<const float*>(large.data())) == 1e30f);
  });
}

}  // namespace ple::gradient_kernels_test
