// SPDX-License-Identifier: Apache-2.0
#include "ple/nn/sparse_mlp.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ple/core/thread_pool.h"
#include "ple/simd/decode.h"

namespace ple::sparse_mlp_test {

namespace {

constexpr std::size_t d = 256, intermediate = 512;
constexpr float share = 0.9f;

/// Random weights of any type that can be written.
Tensor random_tensor(Dtype dtype, std::size_t rows, std::size_t cols, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(cols)));
  auto blocks = std::make_shared<AlignedVector<std::byte>>(bytes_of(dtype, rows * cols));
  with_dtype(dtype, [&]<class T>() {
    if constexpr (EncodableType<T>) {
      float values[DtypeTraits<T>::values_per_block];
      for (std::size_t b = 0; b < blocks->size() / sizeof(T); ++b) {
        for (float& value : values) value = normal(generator);
        DtypeTraits<T>::encode(values, reinterpret_cast<T*>(blocks->data())[b]);
      }
    }
  });
  const std::byte* data = blocks->data();
  return {"memory", "random", dtype, {rows, cols}, data, blocks->size(), std::move(blocks)};
}

template <Backend B>
SparseMlp<Any, B> random_mlp(Dtype dtype) {
  SparseMlp<Any, B> mlp(d, intermediate, share);
  mlp.gate.weight.load(random_tensor(Dtype::f32, intermediate, d, 1));
  mlp.up.weight.load(random_tensor(dtype, intermediate, d, 2));
  mlp.down.weight.load(random_tensor(dtype, d, intermediate, 3));
  return mlp;
}

/// The same, with weights where a loaded model has them.
template <Backend B>
SparseMlp<Any, B> laid_out_mlp(Dtype dtype) {
  auto mlp = random_mlp<B>(dtype);
  InlineExecutor executor;
  Arena arena(1 << 16);
  const bool integers = is_integer_type(dtype);
  CHECK(mlp.repack_up(executor, arena) == integers);
  CHECK(mlp.repack_down(executor, arena) == integers);
  mlp.finalize();
  CHECK(mlp.up_by_rows());
  CHECK(mlp.down_by_columns());
  return mlp;
}

/// x and y of a call, and room for it.
struct Call {
  Rows x, y;
  MlpWorkspace room;
  AlignedVector<float> memory;
  AlignedVector<std::byte> workspace{std::size_t{1} << 22};

  explicit Call(std::size_t tokens) {
    const RowsRequest all[] = {
        {&x, tokens, d}, {&y, tokens, d}, {&room.gate, tokens, intermediate}, {&room.up, tokens, intermediate}};
    memory = allocate_rows(all);
    std::mt19937 generator(4);
    std::normal_distribution<float> normal(0, 1);
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t i = 0; i < d; ++i) x.row(t)[i] = normal(generator);
    }
  }
};

template <class Mlp>
Call run(const Mlp& mlp, std::size_t tokens, std::size_t threads) {
  Call call(tokens);
  ThreadPool pool(threads);
  mlp({pool, call.workspace}, call.room, call.x, call.y);
  return call;
}

template <Backend B>
float gaussian_z(const SparseMlp<Any, B>& mlp) {
  return static_cast<float>(normal_quantile(double{mlp.sparsity}));
}

std::vector<float> row(Rows rows, std::size_t t) { return {rows.row(t), rows.row(t) + rows.cols}; }

template <class F>
void for_scalar_and_native(F&& f) {
  f.template operator()<Scalar>();
  f.template operator()<Simd>();
}

}  // namespace

TEST_CASE("the normal quantile undoes the distribution, and is the reference's for the shares that models have") {
  CHECK(normal_quantile(0.5) == doctest::Approx(0).epsilon(1e-12));
  CHECK(normal_quantile(0.95) == doctest::Approx(1.6448536269514722).epsilon(1e-12));  // tables of the distribution
  CHECK(normal_quantile(0.975) == doctest::Approx(1.959963984540054).epsilon(1e-12));
  for (const double z : {-5.0, -1.0, -0.1, 0.3, 2.0, 5.0}) {
    CHECK(normal_quantile(std::erfc(-z / std::sqrt(2.0)) / 2) == doctest::Approx(z).epsilon(1e-8));
  }
}

TEST_CASE("a sparse feed-forward is the dense one with the same gate, up to the order of a sum") {
  for_scalar_and_native([]<Backend B>() {
    for (const Dtype dtype :
         {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::q8_0, Dtype::q4_0, Dtype::q4_k, Dtype::q6_k}) {
      const std::string backend = B::name(), name(name_of(dtype));
      CAPTURE(backend);
      CAPTURE(name);
      const auto mlp = laid_out_mlp<B>(dtype);
      // Whole products of bf16 round activations to it where the CPU multiplies it, those of single rows and columns
      // do not: plain C++ never does.
      const auto exact = random_mlp<Scalar>(dtype);
      for (const std::size_t tokens : {1u, 3u, 20u}) {
        CAPTURE(tokens);
        const Call sparse = run(mlp, tokens, 2);
        // The formula with whole products.
        Call dense(tokens);
        InlineExecutor threads;
        const Context context(threads, dense.workspace);
        const Rows a = dense.room.gate, u = dense.room.up;
        mlp.gate(context, dense.x, a);
        if (dtype == Dtype::bf16) {
          exact.up(context, dense.x, u);
        } else {
          mlp.up(context, dense.x, u);
        }
        std::size_t active = 0;
        for (std::size_t t = 0; t < tokens; ++t) {
          B::gaussian_topk(gaussian_z(mlp), intermediate, a.row(t));
          B::gelu(intermediate, a.row(t));
          B::multiply(u.row(t), intermediate, a.row(t));
          for (std::size_t i = 0; i < intermediate; ++i) active += a.row(t)[i] != 0;
        }
        CHECK(active > 0);
        CHECK(active < tokens * intermediate / 5);
        // A sum of n products is off by at most n u times their absolute sum, on each side.
        bool good = true;
        if (is_integer_type(dtype)) {
          // Rounding to integers makes steps of small differences: down gets what it got before.
          const bool has_minimum =
              integer_format(dtype).has_minimum;  // two sums, each perhaps larger than what is left
          std::vector<float> up(intermediate * d);
          decode<Scalar>(dtype, mlp.up.weight.data(), up.size(), up.data());
          for (std::size_t t = 0; t < tokens; ++t) {
            float largest = 0;
            for (std::size_t k = 0; k < d; ++k) largest = std::max(largest, std::abs(dense.x.row(t)[k]));
            for (std::size_t i = 0; i < intermediate; ++i) {
              double size = 0;
              for (std::size_t k = 0; k < d; ++k) {
                size += std::abs(double(up[i * d + k])) * (std::abs(double(dense.x.row(t)[k])) + largest / 254);
              }
              const double gate = u.row(t)[i] == 0 ? 0 : std::abs(double(a.row(t)[i]) / double(u.row(t)[i]));
              const double n = d / 16 * 2 + 4, bound = 2 * n * 0x1p-24 * size * gate * (has_minimum ? 16 : 1);
              good &= std::abs(double(sparse.room.gate.row(t)[i]) - double(a.row(t)[i])) <= bound;
            }
          }
          mlp.down(context, sparse.room.gate, dense.y);
          for (std::size_t t = 0; t < tokens; ++t) CHECK(row(sparse.y, t) == row(dense.y, t));
        } else {
          exact.down(context, a, dense.y);
          std::vector<float> down(d * intermediate);
          decode<Scalar>(dtype, mlp.down.weight.data(), down.size(), down.data());
          for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t o = 0; o < d; ++o) {
              double size = 0, n = 0;  // n: of products that are not 0
              for (std::size_t i = 0; i < intermediate; ++i) {
                size += std::abs(double(a.row(t)[i]) * double(down[o * intermediate + i]));
                n += a.row(t)[i] != 0;
              }
              const double bound = 2 * n * 0x1p-24 * size;
              good &= std::abs(double(sparse.y.row(t)[o]) - double(dense.y.row(t)[o])) <= bound;
            }
          }
        }
        CHECK(good);
      }
    }
  });
}

TEST_CASE("what the gate switched off is not read") {
  // Weights that would spoil everything they touch: 0 times NaN is NaN.
  for_scalar_and_native([]<Backend B>() {
    const std::string backend = B::name();
    CAPTURE(backend);
    auto mlp = random_mlp<B>(Dtype::f32);
    mlp.finalize();
    constexpr std::size_t tokens = 3;
    const Call expected = run(mlp, tokens, 1);
    Rows gate = expected.room.gate;
    std::vector<float> up(intermediate * d), down(d * intermediate);
    decode<Scalar>(Dtype::f32, mlp.up.weight.data(), up.size(), up.data());
    decode<Scalar>(Dtype::f32, mlp.down.weight.data(), down.size(), down.data());
    std::size_t off = 0;
    for (std::size_t i = 0; i < intermediate; ++i) {
      if (gate.row(0)[i] != 0 || gate.row(1)[i] != 0 || gate.row(2)[i] != 0) continue;
      ++off;
      for (std::size_t k = 0; k < d; ++k) {
        up[i * d + k] = down[k * intermediate + i] = std::numeric_limits<float>::quiet_NaN();
      }
    }
    CHECK(off > intermediate / 2);
    const auto tensor = [](const std::vector<float>& values, std::size_t rows, std::size_t cols) {
      return Tensor{"memory",
                    "spoilt",
                    Dtype::f32,
                    {rows, cols},
                    reinterpret_cast<const std::byte*>(values.data()),
                    values.size() * sizeof(float),
                    nullptr};
    };
    mlp.up.weight.load(tensor(up, intermediate, d));
    mlp.down.weight.load(tensor(down, d, intermediate));
    const Call untouched = run(mlp, tokens, 2);  // still with the copy of the old Wdown
    mlp.finalize();
    const Call spoilt = run(mlp, tokens, 2);
    for (std::size_t t = 0; t < tokens; ++t) {
      CHECK(row(untouched.y, t) == row(expected.y, t));
      CHECK(row(spoilt.y, t) == row(expected.y, t));
    }
  });
}

TEST_CASE("a sparse feed-forward gives a token the same bits alone and among others, on any number of threads") {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::q8_0, Dtype::q4_0}) {
    const std::string name(name_of(dtype));
    CAPTURE(name);
    const auto mlp = laid_out_mlp<Simd>(dtype);
    const Call together = run(mlp, 9, 1), threaded = run(mlp, 9, 2);
    for (std::size_t t = 0; t < 9; ++t) {
      CHECK(row(threaded.y, t) == row(together.y, t));
      Call alone(9);
      ThreadPool pool(2);
      mlp({pool, alone.workspace}, alone.room, alone.x.slice(t, 1), alone.y.slice(t, 1));
      CHECK(row(alone.y, t) == row(together.y, t));
    }
  }
}

}  // namespace ple::sparse_mlp_test
