// SPDX-License-Identifier: Apache-2.0
// tests/run/evaluation_test.cpp compares samples with packed tables.
#include "ple/table/row_sample.h"

#include <doctest/doctest.h>

#include <vector>

namespace ple::row_sample_test {

namespace {

/// Rows of 3 layers of 32 values, in f32: value i of token t is t + i / 1000.
PleTable<Any, Simd> counting_table(std::size_t rows, std::shared_ptr<const VocabularyMap> vocabulary = nullptr) {
  auto values = std::make_shared<std::vector<float>>();
  for (std::size_t t = 0; t < rows; ++t) {
    for (std::size_t i = 0; i < 96; ++i) values->push_back(static_cast<float>(t) + static_cast<float>(i) / 1000);
  }
  TableSource source;
  source.tensor.data = reinterpret_cast<const std::byte*>(values->data());
  source.tensor.owner = values;
  source.layout = RowLayout(3, 32, Dtype::f32);
  source.rows = rows;
  source.scale = 2;
  source.vocabulary = std::move(vocabulary);
  PleTable<Any, Simd> table(rows, 3, 32);
  table.load(source, Resident{});
  return table;
}

}  // namespace

TEST_CASE("a sample finds each token's row, stored as asked and scaled as the table was") {
  InlineExecutor executor;
  const std::vector<Token> tokens = {40, 7, 40, 0, 49, 7};
  const RowSample<Simd> sample(counting_table(50), tokens, executor);
  CHECK(std::vector<Token>(sample.tokens().begin(), sample.tokens().end()) == std::vector<Token>{0, 7, 40, 49});
  const auto table = sample.table({Dtype::bf16, std::nullopt, Dtype::f32});
  CHECK(table.rows() == 4);
  CHECK((table.has(0) && !table.has(1) && table.has(2)));

  RowSelection selection = table.make_selection(tokens.size());
  table.select(tokens, tokens.size(), 0, selection);
  std::vector<float> out(tokens.size() * 96);
  table.gather(executor, selection, 0, 0, 3, {out.data(), tokens.size(), 96, 96});
  bool good = true;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    for (std::size_t i = 0; i < 96; ++i) {
      const float stored = static_cast<float>(tokens[t]) + static_cast<float>(i) / 1000;
      good &= out[t * 96 + i] == (i < 32 ? 2 * to_f32(to_bf16(stored)) : i < 64 ? 0 : 2 * stored);
    }
  }
  CHECK(good);
}

TEST_CASE("a sample is taken from an original table, of tokens it has") {
  InlineExecutor executor;
  const std::vector<Token> outside = {3, 50}, negative = {-1}, good = {3};
  using Sample = RowSample<Simd>;
  CHECK_THROWS_WITH(Sample(counting_table(50), outside, executor), "RowSample: token 50, expected 0 to 49");
  CHECK_THROWS_WITH(Sample(counting_table(50), negative, executor), "RowSample: token -1, expected 0 to 49");
  const auto vocabulary = std::make_shared<VocabularyMap>(std::vector<Token>{3, 4}, 2 + 48, std::nullopt);
  CHECK_THROWS_WITH(Sample(counting_table(50, vocabulary), good, executor),
                    "RowSample: the table is already packed: use the original");
  CHECK_THROWS_WITH(
      Sample(counting_table(50), good, executor).table({Dtype::f32}),
      "memory: rows of a sample: rows of 1 layers of 32 values, expected 3 of 32: was it made for another "
      "model?");
}

}  // namespace ple::row_sample_test
