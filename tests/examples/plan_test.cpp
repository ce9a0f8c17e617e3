// SPDX-License-Identifier: Apache-2.0
#include "../../examples/plan.h"

#include <doctest/doctest.h>

#include <random>
#include <vector>

namespace ple::plan_test {

using examples::DepthChoice;

namespace {

using Choices = std::vector<std::vector<DepthChoice>>;

std::vector<std::optional<Dtype>> types_of(const Choices& choices, const std::vector<std::size_t>& plan) {
  std::vector<std::optional<Dtype>> types;
  for (std::size_t l = 0; l < plan.size(); ++l) types.push_back(choices[l][plan[l]].dtype);
  return types;
}

// Slices of 64 values: bf16 128 bytes, q8_0 68, none 0.
Choices two_choices(const std::vector<double>& eight, const std::vector<double>& none) {
  Choices choices;
  for (std::size_t l = 0; l < eight.size(); ++l) {
    choices.push_back({{Dtype::bf16, 0}, {Dtype::q8_0, eight[l]}, {std::nullopt, none[l]}});
  }
  return choices;
}

}  // namespace

TEST_CASE("a plan gives up what costs the least per byte") {
  const Choices choices = two_choices({0.1, 0.2, 0.3}, {10, 10, 0.31});
  const auto plan = [&](std::size_t bytes) {
    return RowLayout(types_of(choices, examples::plan_depths(choices, 64, bytes)), 64).text();
  };
  CHECK(plan(384) == "bf16,bf16,bf16");  // nothing to do
  // 0.1 / 60 is the least, but 324 bytes are a row of 384. 0.31 / 128 is next: 196 bytes, a row of 256, so that the
  // first layer is given back.
  CHECK(plan(383) == "bf16,bf16,none");
  CHECK(plan(256) == "bf16,bf16,none");
  CHECK(plan(255) == "q8_0,q8_0,none");  // 136 bytes, a row of 192
  CHECK(plan(191) == "bf16,none,none");
  CHECK(plan(127) == "none,none,none");  // even q8_0 is a row of 128
  CHECK(plan(0) == "none,none,none");
}

TEST_CASE("a plan is within its budget, and no step back fits") {
  std::mt19937 generator(3);
  std::uniform_real_distribution<double> cost(0, 1);
  for (int round = 0; round < 200; ++round) {
    Choices choices;
    for (int l = 0; l < 6; ++l) {
      const double eight = cost(generator), four = eight + cost(generator);
      choices.push_back({{Dtype::bf16, 0}, {Dtype::q8_0, eight}, {Dtype::q4_0, four}, {{}, four + cost(generator)}});
    }
    const std::size_t budget = generator() % 800;
    std::vector<std::size_t> plan = examples::plan_depths(choices, 64, budget);
    const auto bytes = [&] { return packed_layout(types_of(choices, plan), 64).row_bytes(); };
    REQUIRE(bytes() <= budget);
    for (std::size_t l = 0; l < plan.size(); ++l) {
      for (std::size_t better = 0; better < 3; ++better) {
        if (better >= plan[l]) continue;
        const std::size_t before = plan[l];
        plan[l] = better;
        CHECK(bytes() > budget);
        plan[l] = before;
      }
    }
  }
}

}  // namespace ple::plan_test
