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
  CHECK_FALSE(plan.for_bytes(1000 * 64 + 127));
  CHECK(*plan.for_bytes(1000 * 64 + 128) == std::vector<std::size_t>{1, 0, 1});
  CHECK(*plan.for_bytes(1000 * 64 + 4 * 64) == std::vector<std::size_t>{3, 0, 1});
  CHECK(*plan.for_bytes(1000 * 64 + 16 * 64) == std::vector<std::size_t>{9, 0, 7});  // a row is one cache line
  CHECK(*plan.for_bytes(1u << 30) == std::vector<std::size_t>{16, 0, 16});
}

TEST_CASE("ranks are whole blocks that the width has room for") {
  const examples::RankPlan plan{{Dtype::q8_0, std::nullopt, Dtype::bf16}, {{}, {}, {}}, 100, 10};
  CHECK(plan.rounded(0, 1) == 32);
  CHECK(plan.rounded(0, 33) == 64);
  CHECK(plan.rounded(0, 100) == 96);
  CHECK(plan.rounded(1, 50) == 0);
  CHECK(plan.rounded(2, 0) == 1);
  CHECK(plan.rounded(2, 100) == 100);
}

}  // namespace ple::ranks_test
