// SPDX-License-Identifier: Apache-2.0
#include "ple/table/spectrum.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "../temporary.h"
#include "ple/core/thread_pool.h"
#include "ple/simd/backend.h"
#include "ple/table/encode_row.h"

namespace ple::spectrum_test {

namespace {

constexpr std::size_t layers = 3, p = 96, cols = layers * p;  // p: a whole strip of 64 and a part

/// A table in a file, as f32.
TableSource source_of(const testing::TemporaryFolder& folder, const std::vector<float>& values) {
  const auto map = MappedFile::open(folder.write("table.bin", std::as_bytes(std::span(values))));
  TableSource source;
  source.tensor.file = "table.bin";
  source.tensor.name = "ple_table";
  source.tensor.data = map->bytes().data();
  source.tensor.bytes = values.size() * sizeof(float);
  source.tensor.owner = map;
  source.tensor.map = map;
  source.layout = RowLayout(layers, p, Dtype::f32);
  source.rows = values.size() / cols;
  return source;
}

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.1f, 1);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

SecondMoments scanned(const TableSource& source, Executor& executor) {
  return scan_second_moments<Simd>(source, executor, [](std::uint64_t, std::uint64_t) {});
}

bool same(const SecondMoments& a, const SecondMoments& b) {
  bool equal = a.rows() == b.rows();
  for (std::size_t l = 0; l < layers; ++l) {
    for (std::size_t i = 0; i < p * p; ++i) equal &= a.at(l, i / p, i % p) == b.at(l, i / p, i % p);
  }
  return equal;
}

}  // namespace

TEST_CASE("second moments are those of a direct computation in double, with the same bits on any number of threads") {
  const testing::TemporaryFolder folder;
  constexpr std::size_t rows = 700;
  const std::vector<float> values = random_values(rows * cols, 1);
  const TableSource source = source_of(folder, values);
  InlineExecutor executor;
  const SecondMoments moments = scanned(source, executor);
  CHECK(moments.rows() == rows);
  double farthest = 0;
  for (std::size_t l = 0; l < layers; ++l) {
    for (std::size_t i = 0; i < p; ++i) {
      for (std::size_t j = 0; j < p; ++j) {
        double sum = 0;
        for (std::size_t r = 0; r < rows; ++r) {
          const float* row = values.data() + r * cols + l * p;
          sum += static_cast<double>(row[i]) * static_cast<double>(row[j]);
        }
        farthest = (std::max)(farthest, std::fabs(moments.at(l, i, j) - sum / static_cast<double>(rows)));
      }
    }
  }
  CHECK(farthest < 1e-6);
  for (const std::size_t threads : {2u, 3u, 5u}) {
    ThreadPool pool(threads);
    CHECK(same(scanned(source, pool), moments));
  }
}

TEST_CASE("a sample of all rows is a scan, up to rounding; a smaller one takes rows that are evenly spread") {
  const testing::TemporaryFolder folder;
  std::vector<float> values(1000 * cols, 0.0f);
  for (std::size_t r = 0; r < 1000; ++r) values[r * cols] = static_cast<float>(r);
  const TableSource source = source_of(folder, values);
  InlineExecutor executor;
  const auto sampled = [&](std::uint64_t count) {
    return sample_second_moments<Simd>(source, count, executor, [](std::uint64_t, std::uint64_t) {});
  };
  CHECK(sampled(1000).at(0, 0, 0) == doctest::Approx(scanned(source, executor).at(0, 0, 0)).epsilon(1e-6));
  CHECK(sampled(1).at(0, 0, 0) == 0);
  CHECK(sampled(4).at(0, 0, 0) == (250.0 * 250 + 500.0 * 500 + 750.0 * 750) / 4);
  CHECK(sampled(300).rows() == 300);
  CHECK_THROWS_WITH(sampled(0), "a sample of 0 rows, expected 1 to 1000");
  CHECK_THROWS_WITH(sampled(1001), "a sample of 1001 rows, expected 1 to 1000");
}

TEST_CASE("eigenvectors are orthonormal and diagonalise the second moments; energies add up") {
  const testing::TemporaryFolder folder;
  InlineExecutor executor;
  const SecondMoments moments = scanned(source_of(folder, random_values(500 * cols, 2)), executor);
  const Spectrum found = spectrum(moments, 1);
  double trace = 0, wrong = 0;
  for (std::size_t i = 0; i < p; ++i) trace += moments.at(1, i, i);
  for (std::size_t a = 0; a < p; ++a) {
    for (std::size_t b = 0; b < p; ++b) {
      double dot = 0, product = 0;
      for (std::size_t i = 0; i < p; ++i) {
        dot += found.vectors[a * p + i] * found.vectors[b * p + i];
        for (std::size_t j = 0; j < p; ++j)
          product += found.vectors[a * p + i] * moments.at(1, i, j) * found.vectors[b * p + j];
      }
      wrong = (std::max)({wrong, std::fabs(dot - (a == b)), std::fabs(product - (a == b ? found.values[a] : 0))});
    }
  }
  CHECK(wrong < 1e-10);
  CHECK(std::is_sorted(found.values.rbegin(), found.values.rend()));
  CHECK(found.energy() == doctest::Approx(trace));
  CHECK(found.rms() == doctest::Approx(std::sqrt(trace / p)));
  CHECK(found.share(0) == 0);
  CHECK(found.share(p) == 1);
  CHECK(found.error(p) == 0);
  CHECK(found.rank_for(0) == p);
  CHECK(found.rank_for(1) == 0);
  CHECK(found.error(found.rank_for(0.3)) <= 0.3);
  CHECK(found.error(found.rank_for(0.3) - 1) > 0.3);
  CHECK(found.participation_ratio() < p);
  CHECK(found.participation_ratio() > p / 2.0);
}

TEST_CASE("a table of rank 3 is found to be of rank 3, and its basis gives its rows") {
  const testing::TemporaryFolder folder;
  constexpr std::size_t rows = 1000, rank = 3;
  const std::vector<float> factors = random_values(rows * layers * rank, 3), bases = random_values(rank * cols, 4);
  std::vector<float> values(rows * cols);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      for (std::size_t k = 0; k < rank; ++k)
        values[r * cols + c] += factors[(r * layers + c / p) * rank + k] * bases[k * cols + c];
    }
  }
  InlineExecutor executor;
  const SecondMoments moments = scanned(source_of(folder, values), executor);
  for (std::size_t l = 0; l < layers; ++l) {
    const Spectrum found = spectrum(moments, l);
    CHECK(found.rank_for(0.002) == rank);  // what f32 sums leave is far below
    CHECK(found.values[rank] < 1e-6 * found.values[0]);
    const AlignedVector<float> basis = found.basis(rank);
    double squares = 0, errors = 0;
    for (std::size_t r = 0; r < rows; ++r) {
      const float* row = values.data() + r * cols + l * p;
      std::vector<double> again(p, 0.0);
      for (std::size_t k = 0; k < rank; ++k) {
        double coefficient = 0;
        for (std::size_t i = 0; i < p; ++i)
          coefficient += static_cast<double>(basis[k * p + i]) * static_cast<double>(row[i]);
        for (std::size_t i = 0; i < p; ++i) again[i] += coefficient * static_cast<double>(basis[k * p + i]);
      }
      for (std::size_t i = 0; i < p; ++i) {
        squares += std::pow(static_cast<double>(row[i]), 2);
        errors += std::pow(again[i] - static_cast<double>(row[i]), 2);
      }
    }
    CHECK(std::sqrt(errors / squares) < 1e-6);
  }
}

TEST_CASE("a depth of zeros has no energy; values that are not finite have no spectrum") {
  const testing::TemporaryFolder folder;
  std::vector<float> values(10 * cols, 0.0f);
  values[p + 5] = std::numeric_limits<float>::infinity();
  values[2 * p] = 1e30f;
  InlineExecutor executor;
  const SecondMoments moments = scanned(source_of(folder, values), executor);
  const Spectrum none = spectrum(moments, 0);
  CHECK(none.rms() == 0);
  CHECK(none.share(0) == 1);
  CHECK(none.rank_for(0) == 0);
  CHECK(none.participation_ratio() == 0);
  for (const std::size_t depth : {1u, 2u}) {
    const std::string text =
        "the PLE table has values in depth " + std::to_string(depth) + " that are not finite, or too large to square";
    CHECK_THROWS_WITH(spectrum(moments, depth), text.c_str());
  }
  SecondMoments other(2, p);
  std::vector<float> row(cols);
  CHECK_THROWS_WITH(other.add<Simd>(executor, Rows{row.data(), 1, cols, cols}),
                    "SecondMoments: rows of 288 values, expected 192");
}

}  // namespace ple::spectrum_test
