// SPDX-License-Identifier: Apache-2.0
#include "ple/core/parallel.h"

#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

#include "ple/core/thread_pool.h"

namespace ple::executor_test {

TEST_CASE("parallel_for covers a range once, in parts that begin at multiples of the grain") {
  ThreadPool pool(3);
  for (const std::size_t n : {0u, 1u, 15u, 16u, 17u, 1000u}) {
    for (const std::size_t grain : {1u, 4u, 16u}) {
      std::vector<std::atomic<int>> seen(n);
      std::atomic<bool> good{true};
      parallel_for(pool, n, grain, [&](std::size_t begin, std::size_t end, std::size_t part) {
        if (begin % grain != 0 || begin > end || part >= tasks(pool)) good = false;
        for (std::size_t i = begin; i < end; ++i) ++seen[i];
      });
      for (const auto& s : seen) good = good && s == 1;
      CHECK(good);
    }
  }
}

TEST_CASE("an exception of a task comes out of run(), and no task begins after it") {
  InlineExecutor executor;
  int ran = 0;
  auto task = [&](std::size_t i) {
    if (i == 3) throw std::runtime_error("task 3");
    ++ran;
  };
  CHECK_THROWS_WITH_AS(executor.run(10, task), "task 3", std::runtime_error);
  CHECK(ran == 3);
}

}  // namespace ple::executor_test
