// SPDX-License-Identifier: Apache-2.0
#include "ple/core/checked_product.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

namespace ple::checked_product_test {

TEST_CASE("a product of sizes is right or nothing") {
  constexpr std::uint64_t most = ~std::uint64_t{0}, half = std::uint64_t{1} << 32;
  CHECK(checked_product({}) == 1);
  CHECK(checked_product({7}) == 7);
  CHECK(checked_product({most, 1}) == most);
  CHECK(checked_product({half, half - 1}) == half * (half - 1));
  CHECK_FALSE(checked_product({half, half}));
  CHECK_FALSE(checked_product({std::uint64_t{1} << 59, 32}));  // 2^64: wrapped, it would be 0
  CHECK_FALSE(checked_product({3, most / 2, 2}));
  // A 0 hides nothing, wherever it stands.
  CHECK(checked_product({0, most}) == 0);
  CHECK_FALSE(checked_product({0, most, 2}));
  CHECK_FALSE(checked_product({most, 2, 0}));
  CHECK(checked_product(std::vector<std::uint64_t>{2, 3, 4}) == 24);
  static_assert(checked_product({2, 3}) == 6);
}

}  // namespace ple::checked_product_test
