// SPDX-License-Identifier: Apache-2.0
#include "ple/core/arena.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace ple::arena_test {

TEST_CASE("what an arena gives out is aligned, apart, and outlives it") {
  std::vector<std::shared_ptr<std::byte>> pieces;
  std::vector<std::size_t> sizes;
  {
    Arena arena(10000);
    for (std::size_t i = 0; i < 60; ++i) {
      sizes.push_back(1 + i * i * 7 % 5000 + (i % 9 == 8 ? 3'000'000 : 0));  // some larger than a block
      pieces.push_back(arena.allocate(sizes.back()));
      CHECK(reinterpret_cast<std::uintptr_t>(pieces.back().get()) % alignment == 0);
      std::memset(pieces.back().get(), static_cast<int>(i), sizes.back());
    }
  }
  for (std::size_t i = 0; i < pieces.size(); i += 2) pieces[i].reset();  // a block lives while anything in it does
  std::size_t changed = 0;
  for (std::size_t i = 1; i < pieces.size(); i += 2) {
    for (std::size_t k = 0; k < sizes[i]; ++k) changed += pieces[i].get()[k] != static_cast<std::byte>(i);
  }
  CHECK(changed == 0);
}

TEST_CASE("small things lie one behind the other") {
  Arena arena(1000);
  const auto a = arena.allocate(1), b = arena.allocate(100), c = arena.allocate(64);
  CHECK(b.get() - a.get() == 64);
  CHECK(c.get() - b.get() == 128);
}

}  // namespace ple::arena_test
