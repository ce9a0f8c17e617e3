// SPDX-License-Identifier: Apache-2.0
// Products with plain numbers, of every backend this machine runs, for every dtype, against Scalar.
#include "kernel_cases.h"

#include <cmath>
#include <cstddef>
#include <vector>

namespace ple::products_test {

using namespace testing;

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

}  // namespace ple::products_test
