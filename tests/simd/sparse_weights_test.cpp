// SPDX-License-Identifier: Apache-2.0
// Integer weights by rows and by columns: the same bits as from tiles, on every backend, for every type.
#include "ple/dispatch.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "../chosen_backend.h"
#include "ple/nn/sparse_weights.h"
#include "random_blocks.h"

namespace ple::sparse_weights_test {

namespace {

using B = testing::ChosenBackend;
using testing::for_each_choice, testing::for_each_integer_type;

template <class T>
Matrix<Any> random_matrix(std::size_t rows, std::size_t cols, unsigned seed) {
  const auto blocks = std::make_shared<std::vector<T>>(testing::random_blocks<T>(rows, cols, seed));
  const auto bytes = std::as_bytes(std::span(*blocks));
  Matrix<Any> matrix(rows, cols);
  matrix.load(Tensor{"memory", "random", DtypeTraits<T>::id, {rows, cols}, bytes.data(), bytes.size(), blocks});
  return matrix;
}

/// Tokens of which each has another share of values that are not 0: none, few, all.
std::vector<float> sparse_values(std::size_t tokens, std::size_t cols) {
  std::mt19937 generator(4);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values(tokens * cols);
  for (std::size_t t = 0; t < tokens; ++t) {
    for (std::size_t i = 0; i < cols; ++i) {
      const float value = normal(generator);
      values[t * cols + i] = generator() % 100 < std::min<std::size_t>(100, t * t * 5) ? value : 0.0f;
    }
  }
  return values;
}

constexpr std::size_t shapes[][2] = {{1, 256}, {31, 512}, {32, 768}, {77, 256}, {160, 1536}};

/// All rows in columns, in two parts, and whether they have the bits that tiles give.
void check_columns(const Matrix<Any>& matrix, const std::vector<float>& x, std::size_t tokens) {
  const std::size_t rows = matrix.rows(), cols = matrix.cols();
  InlineExecutor executor;
  Arena arena(1 << 16);
  ColumnPackedWeight columns;
  REQUIRE(columns.load(matrix, executor, arena));
  Matrix<Any> tiles = matrix;
  tiles.repack(executor, arena);
  AlignedVector<std::byte> memory(QuantizedRows::bytes(tokens, cols)), scratch(B::tile_bytes(cols));
  const QuantizedRows values(tokens, cols, integer_format(matrix.dtype()).sub_block, memory);
  for (std::size_t t = 0; t < tokens; ++t) B::quantize(x.data() + t * cols, matrix.dtype(), t, values);
  for (std::size_t t = tokens; t < values.padded_tokens(); ++t) values.clear(t);
  std::vector<float> expected(tokens * rows), y(tokens * rows + 1, -1.0f);
  const TileLayout layout(matrix.dtype(), cols);
  B::matmul(PackedTiles{matrix.dtype(), layout, tiles.data(), rows}, values, expected.data(), rows, scratch.data());
  const std::size_t half = rows / 2 / PackedColumnLayout::group * PackedColumnLayout::group;
  for (std::size_t t = 0; t < tokens; ++t) {
    float* row = y.data() + t * rows;
    B::multiply_columns(columns.columns(), 0, half, values, t, row);
    B::multiply_columns(columns.columns(), half, rows - half, values, t, row + half);
  }
  CHECK(std::memcmp(y.data(), expected.data(), expected.size() * sizeof(float)) == 0);
  CHECK(y.back() == -1);
}

}  // namespace

TEST_CASE("columns give the bits that tiles give") {
  for_each_integer_type([]<class T>() {
    CAPTURE(DtypeTraits<T>::name);
    for (const auto& shape : shapes) {
      const std::size_t rows = shape[0], cols = shape[1];
      CAPTURE(rows);
      CAPTURE(cols);
      const auto matrix = random_matrix<T>(rows, cols, 1);
      for_each_choice([&] {
        check_columns(matrix, sparse_values(1, cols), 1);  // nothing but 0
        check_columns(matrix, sparse_values(5, cols), 5);
      });
    }
  });
}

TEST_CASE("the largest sums of a column are exact") {
  // Quants and activations as large as they get: what is summed up in f32 must not be rounded.
  for_each_integer_type([]<class T>() {
    CAPTURE(DtypeTraits<T>::name);
    auto matrix = random_matrix<T>(33, 256, 2);
    std::vector<T> blocks(33 * 256 / DtypeTraits<T>::values_per_block);
    std::mt19937 generator(2);
    for (T& block : blocks) {
      std::fill_n(reinterpret_cast<std::uint8_t*>(&block), sizeof block, std::same_as<T, q8_0> ? 0x80 : 0xff);
      testing::set_scales(block, generator);
    }
    matrix.load(Tensor{"memory",
                       "full",
                       DtypeTraits<T>::id,
                       {33, 256},
                       reinterpret_cast<const std::byte*>(blocks.data()),
                       blocks.size() * sizeof(T),
                       nullptr});
    for_each_choice([&] {
      check_columns(matrix, std::vector<float>(256, 1.0f), 1);
      check_columns(matrix, std::vector<float>(256, -1.0f), 1);
    });
  });
}

TEST_CASE("what is no scale spreads from a column to all rows") {
  std::vector<float> x(512, 0.0f);
  x[300] = std::numeric_limits<float>::quiet_NaN();
  const auto matrix = random_matrix<q4_0>(40, 512, 3);
  InlineExecutor executor;
  Arena arena(1 << 16);
  ColumnPackedWeight columns;
  columns.load(matrix, executor, arena);
  for_each_choice([&] {
    AlignedVector<std::byte> memory(QuantizedRows::bytes(1, 512));
    const QuantizedRows values(1, 512, 32, memory);
    B::quantize(x.data(), Dtype::q4_0, 0, values);
    std::vector<float> y(40);
    B::multiply_columns(columns.columns(), 0, 40, values, 0, y.data());
    CHECK(std::all_of(y.begin(), y.end(), [](float v) { return v != v; }));
  });
}

TEST_CASE("packed rows say what decoding says") {
  for_each_integer_type([]<class T>() {
    CAPTURE(DtypeTraits<T>::name);
    constexpr std::size_t n = DtypeTraits<T>::values_per_block, sub = IntegerTraits<T>::sub_block;
    for (const auto& shape : shapes) {
      const std::size_t rows = shape[0], cols = shape[1];
      const auto matrix = random_matrix<T>(rows, cols, 5);
      const auto* w = reinterpret_cast<const T*>(matrix.data());
      InlineExecutor executor;
      Arena arena(1 << 16);
      RowPackedWeight packed;
      REQUIRE(packed.load(matrix, executor, arena));
      bool good = true;
      std::vector<float> decoded(cols);
      for (std::size_t r = 0; r < rows; ++r) {
        for (std::size_t b = 0; b < cols / n; ++b) {
          DtypeTraits<T>::decode(w[r * cols / n + b], decoded.data() + b * n);
        }
        for (std::size_t i = 0; i < cols; ++i) {
          const SubBlock block = sub_block_of(packed.rows().layout, packed.rows().row(r), i / sub);
          const float product = IntegerTraits<T>::factor * block.scale *
                                static_cast<float>(block.integers[i % sub] - IntegerTraits<T>::zero_point);
          good &= (IntegerTraits<T>::has_minimum ? product - block.minimum : product) == decoded[i];
        }
      }
      CHECK(good);
    }
  });
}

TEST_CASE("products with packed rows are those with tiles, up to the order of a sum") {
  for_each_integer_type([]<class T>() {
    CAPTURE(DtypeTraits<T>::name);
    constexpr Dtype dtype = DtypeTraits<T>::id;
    constexpr std::size_t sub = IntegerTraits<T>::sub_block;
    for (const auto& shape : shapes) {
      const std::size_t rows = shape[0], cols = shape[1];
      CAPTURE(rows);
      CAPTURE(cols);
      const auto matrix = random_matrix<T>(rows, cols, 6);
      std::vector<float> x(cols);
      std::mt19937 generator(7);
      for (float& value : x) value = std::normal_distribution<float>(0, 1)(generator);
      InlineExecutor executor;
      Arena arena(1 << 16);
      RowPackedWeight packed;
      packed.load(matrix, executor, arena);
      Matrix<Any> tiles = matrix;
      tiles.repack(executor, arena);
      std::vector<std::size_t> chosen;  // each of them once, the last first, and some twice
      for (std::size_t r = rows; r-- > 0;) chosen.push_back(r);
      for (std::size_t r = 0; r < rows; r += 3) chosen.push_back(r);
      for_each_choice([&] {
        AlignedVector<std::byte> memory(QuantizedRows::bytes(1, cols)), scratch(B::tile_bytes(cols)),
            row_memory(RowActivations::bytes(cols), std::byte{0x55});
        const QuantizedRows values(1, cols, sub, memory);
        B::quantize(x.data(), dtype, 0, values);
        const RowActivations activations(cols, sub, row_memory);
        activations.take(values, 0);
        std::vector<float> expected(rows), y(chosen.size() + 1, -1.0f);
        const TileLayout layout(dtype, cols);
        B::matmul(PackedTiles{dtype, layout, tiles.data(), rows}, values, expected.data(), rows, scratch.data());
        B::multiply_rows(packed.rows(), chosen.data(), chosen.size(), activations, y.data());
        bool good = true;
        for (std::size_t i = 0; i < chosen.size(); ++i) {
          // Both sum the same terms, one or two of each sub-block, up: off by at most n u times their absolute sum.
          double size = 0;
          for (std::size_t s = 0; s < cols / sub; ++s) {
            const SubBlock block = sub_block_of(packed.rows().layout, packed.rows().row(chosen[i]), s);
            double dot = 0;
            for (std::size_t k = 0; k < sub; ++k) {
              dot += (block.integers[k] - IntegerTraits<T>::zero_point) * double(values.values(0, s)[k]);
            }
            size += std::abs(dot * double(values.scale(0, s)) * double(block.scale));
            size += std::abs(double(values.sum(0, s)) * double(block.minimum));
          }
          const double n = 2 * static_cast<double>(cols / sub) + 2;  // and the roundings of the terms themselves
          good &= std::abs(double(y[i]) - double(expected[chosen[i]])) <= 2 * n * 0x1p-24 * size;
        }
        CHECK(good);
        CHECK(y.back() == -1);
        const std::vector<float> again(y.begin(), y.begin() + static_cast<std::ptrdiff_t>(rows));
        B::multiply_rows(packed.rows(), chosen.data() + rows, chosen.size() - rows, activations, y.data());
        for (std::size_t i = rows; i < chosen.size(); ++i) good &= y[i - rows] == again[rows - 1 - chosen[i]];
        CHECK(good);
      });
    }
  });
}

}  // namespace ple::sparse_weights_test
