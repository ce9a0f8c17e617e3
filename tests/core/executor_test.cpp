// SPDX-License-Identifier: Apache-2.0
#include "ple/core/executor.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace ple::executor_test {

TEST_CASE("a pool runs every task once, whatever the number of threads") {
  for (const std::size_t threads : {1u, 2u, 3u, 7u}) {
    ThreadPool pool(threads);
    CHECK(pool.concurrency() == threads);
    for (const std::size_t count : {0u, 1u, 2u, 5u, 1000u}) {
      std::vector<std::atomic<int>> runs(count);
      auto task = [&](std::size_t i) { ++runs[i]; };
      for (int round = 0; round < 20; ++round) pool.run(count, task);
      bool good = true;
      for (const auto& r : runs) good &= r == 20;
      CHECK(good);
    }
  }
}

TEST_CASE("jobs of different sizes follow each other closely") {
  for (const std::size_t threads : {2u, 5u}) {
    ThreadPool pool(threads);
    std::size_t wrong = 0;
    for (std::size_t job = 0; job < 20000; ++job) {
      const std::size_t count = 2 + job * 7 % 11;
      std::atomic<std::size_t> runs{0}, sum{0};
      auto task = [&](std::size_t i) {
        ++runs;
        sum += i;
      };
      pool.run(count, task);
      wrong += runs != count || sum != count * (count - 1) / 2;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("a job may have any number of tasks") {
  ThreadPool pool(2);
  std::vector<std::atomic<unsigned char>> runs(200001);
  auto task = [&](std::size_t i) { ++runs[i]; };
  pool.run(runs.size(), task);
  CHECK(std::all_of(runs.begin(), runs.end(), [](const auto& r) { return r == 1; }));
}

TEST_CASE("a pool wakes up after a rest") {
  ThreadPool pool(3);
  std::atomic<int> sum{0};
  auto task = [&](std::size_t i) { sum += static_cast<int>(i); };
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    pool.run(10, task);
  }
  CHECK(sum == 5 * 45);
}

TEST_CASE("several threads may share a pool") {
  ThreadPool pool(2);
  std::atomic<int> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      auto task = [&](std::size_t) { ++sum; };
      for (int round = 0; round < 200; ++round) pool.run(5, task);
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(sum == 4 * 200 * 5);
}

TEST_CASE("parallel_for covers a range once, in parts that begin at multiples of the grain") {
  ThreadPool pool(3);
  for (const std::size_t n : {0u, 1u, 15u, 16u, 17u, 1000u}) {
    for (const std::size_t grain : {1u, 4u, 16u}) {
      std::vector<std::atomic<int>> seen(n);
      std::atomic<bool> good{true};
      parallel_for(pool, n, grain, [&](std::size_t begin, std::size_t end, std::size_t part) {
        if (begin % grain != 0 || begin > end || part >= parts(pool)) good = false;
        for (std::size_t i = begin; i < end; ++i) ++seen[i];
      });
      for (const auto& s : seen) good = good && s == 1;
      CHECK(good);
    }
  }
}

TEST_CASE("a pool refuses an absurd number of threads") {
  try {
    ThreadPool pool(1000000);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::argument);
    CHECK(std::string(error.what()).find("1000000") != std::string::npos);
  }
}

}  // namespace ple::executor_test
