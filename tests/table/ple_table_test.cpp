// SPDX-License-Identifier: Apache-2.0
#include "ple/table/ple_table.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using namespace ple;

TEST_CASE("a gather takes the wanted layers' columns of each token's row, times sqrt(p) rounded to the table's dtype") {
  constexpr std::size_t vocabulary = 50, layers = 4, p = 12;
  PleTable<bf16> table(vocabulary, layers, p);
  bf16* values = table.rows.allocate();
  for (std::size_t i = 0; i < vocabulary * layers * p; ++i) values[i] = to_bf16(static_cast<float>(i % 251) / 7);
  const float scale = to_f32(to_bf16(std::sqrt(12.0f)));
  CHECK(scale != std::sqrt(12.0f));

  const std::vector<Token> tokens = {49, 0, 7, 7};
  InlineExecutor executor;
  Rows out;
  const RowsRequest requests[] = {{&out, tokens.size(), 2 * p}};
  const AlignedVector<float> memory = allocate_rows(requests);
  table.gather(executor, tokens, p, out);  // layers 1 and 2
  bool good = true;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    for (std::size_t i = 0; i < 2 * p; ++i) {
      good &= out.row(t)[i] == to_f32(values[static_cast<std::size_t>(tokens[t]) * layers * p + p + i]) * scale;
    }
  }
  CHECK(good);
}
