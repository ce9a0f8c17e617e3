// SPDX-License-Identifier: Apache-2.0
#include "ple/nn/linear.h"

#include <doctest/doctest.h>

#include <algorithm>
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

TEST_CASE("a product takes no more workspace than product_workspace says, and is refused with less before it writes") {
  Linear<q8_0, Simd> linear(40, 64);
  float values[32];
  q8_0* blocks = linear.weight.allocate();
  for (unsigned i = 0; i < 40 * 2; ++i) {
    fill(values, 32, i);
    DtypeTraits<q8_0>::encode(values, blocks[i]);
  }
  for (const std::size_t tokens : {1u, 9u}) {
    ThreadPool pool(2);
    Rows x, y;
    const RowsRequest requests[] = {{&x, tokens, 64}, {&y, tokens, 40}};
    const AlignedVector<float> memory = allocate_rows(requests);
    fill(x.data, tokens * x.stride, 3);
    std::fill_n(y.data, tokens * y.stride, 7.0f);
    AlignedVector<std::byte> workspace(product_workspace<q8_0, Simd>(tokens, tasks(pool), 64, 0));
    CHECK_THROWS_WITH_AS(linear({pool, std::span(workspace).first(workspace.size() - 1)}, x, y),
                         doctest::Contains("Context: the workspace has "), Error);
    CHECK(y.row(tokens - 1)[39] == 7.0f);
    linear({pool, workspace}, x, y);
    CHECK(y.row(tokens - 1)[39] != 7.0f);
  }
}

}  // namespace ple::linear_test
