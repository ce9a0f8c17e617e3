// SPDX-License-Identifier: Apache-2.0
#include "ple/nn/linear.h"

#include <doctest/doctest.h>

#include <random>

#include "ple/core/thread_pool.h"
#include "ple/tensor/eigen.h"

namespace ple::linear_test {

namespace {

void fill(float* values, std::size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 1);
  for (std::size_t i = 0; i < n; ++i) values[i] = normal(generator);
}

}  // namespace

TEST_CASE("a linear layer is Eigen's product, on any number of threads, and any outputs can be had alone") {
  for (const std::size_t threads : {1u, 2u}) {
    ThreadPool pool(threads);
    for (const std::size_t tokens : {1u, 5u, 40u}) {
      Linear<f32, Simd> linear(300, 130);
      fill(linear.weight.allocate(), 300 * 130, 1);
      Rows x, y, some;
      const RowsRequest requests[] = {{&x, tokens, 130}, {&y, tokens, 300}, {&some, tokens, 77}};
      const AlignedVector<float> memory = allocate_rows(requests);
      fill(x.data, tokens * x.stride, 2);
      linear(pool, x, y);
      const EigenMatrix expected = as_eigen(x) * as_eigen(linear.weight).transpose();
      // a sum of 130 products of about 1: each side is off by at most 130 u times their absolute sum
      const EigenMatrix bound =
          2 * 130 * 0x1p-24f * as_eigen(x).cwiseAbs() * as_eigen(linear.weight).cwiseAbs().transpose();
      CHECK(((as_eigen(y) - expected).array().abs() <= bound.array()).all());
      const Product<f32, Simd> product{linear, some, 45};
      multiply<Simd, f32>(pool, x, std::span(&product, 1));
      CHECK(as_eigen(some) == as_eigen(y).middleCols(45, 77));
    }
  }
}

}  // namespace ple::linear_test
