// SPDX-License-Identifier: Apache-2.0
#include "../../examples/ranks.h"

#include <doctest/doctest.h>

#include <vector>

namespace ple::ranks_test {

TEST_CASE("bytes go to the depth whose next block has the most energy for them") {
  // Depth 0 has four times the energy of depth 2; depth 1 is pruned. A step of f32 takes 4 bytes of 1000 rows and 64 of
  // a basis.
  examples::RankPlan plan{{Dtype::f32, std::nullopt, Dtype::f32}, {}, 16, 1000};
  for (const double factor : {4.0, 0.0, 1.0}) {
    plan.eigenvalues.emplace_back();
    for (int i = 0; i < 16; ++i) plan.eigenvalues.back().push_back(factor / (1 << i));
  }
  CHECK(plan.smallest() == std::vector<std::size_t>{1, 0, 1});
  CHECK(plan.bytes({1, 0, 1}) == 1000 * 64 + 2 * 64);
  CHECK(plan.for_bytes(1) == std::vector<std::size_t>{1, 0, 1});
  CHECK(plan.for_bytes(1000 * 64 + 128) == std::vector<std::size_t>{1, 0, 1});
  CHECK(plan.for_bytes(1000 * 64 + 4 * 64) == std::vector<std::size_t>{3, 0, 1});
  CHECK(plan.for_bytes(1000 * 64 + 16 * 64) == std::vector<std::size_t>{9, 0, 7});  // a row is one cache line
  CHECK(plan.for_bytes(1u << 30) == std::vector<std::size_t>{0, 0, 0});             // full needs no basis
}

TEST_CASE("ranks are whole blocks that the width has room for") {
  const examples::RankPlan plan{{Dtype::q8_0, std::nullopt, Dtype::bf16}, {{}, {}, {}}, 100, 1000};
  CHECK(plan.rounded(0, 1) == 32);
  CHECK(plan.rounded(0, 33) == 64);
  CHECK(plan.rounded(0, 97) == 0);  // four blocks do not fit
  CHECK(plan.rounded(1, 50) == 0);
  CHECK(plan.rounded(2, 0) == 1);
  CHECK(plan.rounded(2, 100) == 100);
}

TEST_CASE("a depth is stored as it is where a rank would take no fewer bytes") {
  // A row's number of a depth takes 2 bytes, a row of its basis 400: a rank R takes 2 R rows + 400 R, full 200 rows.
  examples::RankPlan plan{{Dtype::bf16}, {std::vector<double>(100, 1.0)}, 100, 1000};
  CHECK(plan.worthwhile(0, 1) == 1);
  CHECK(plan.worthwhile(0, 83) == 83);
  CHECK(plan.worthwhile(0, 84) == 0);
  CHECK(plan.for_bytes(1000 * 192 + 83 * 400) == std::vector<std::size_t>{0});
  plan.rows = 2;
  CHECK(plan.worthwhile(0, 1) == 0);
  CHECK(plan.smallest() == std::vector<std::size_t>{0});
}

}  // namespace ple::ranks_test
