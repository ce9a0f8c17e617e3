// SPDX-License-Identifier: Apache-2.0
#include "ple/core/thread_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../child.h"

namespace ple::thread_pool_test {

namespace {

/// Whether the pool runs every task of a job once. Takes no memory: a sanitizer's allocator does not survive fork() in
/// the middle of it.
bool works(ThreadPool& pool) {
  bool good = true;
  for (const std::size_t count : {2u, 7u, 100u}) {
    std::array<std::atomic<int>, 100> runs = {};
    auto task = [&](std::size_t i) { ++runs[i]; };
    pool.run(count, task);
    for (std::size_t i = 0; i < count; ++i) good &= runs[i] == 1;
  }
  return good;
}

}  // namespace

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

TEST_CASE("a pool refuses an absurd number of threads") {
  try {
    ThreadPool pool(1000000);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::argument);
    CHECK(std::string(error.what()).find("1000000") != std::string::npos);
  }
}

TEST_CASE("an exception of a task comes out of run(), whichever thread ran it, and the pool goes on") {
  ThreadPool pool(3);
  for (std::size_t thrower = 0; thrower < 40; ++thrower) {
    std::atomic<int> running{0};
    auto task = [&](std::size_t i) {
      ++running;
      std::this_thread::yield();
      --running;
      if (i == thrower) throw std::runtime_error("task " + std::to_string(thrower));
    };
    std::string message;
    try {
      pool.run(40, task);
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    CHECK(message == "task " + std::to_string(thrower));
    CHECK(running == 0);  // nobody is still in a task that is gone
    CHECK(works(pool));
  }
  auto all = [](std::size_t) { throw 7; };
  for (int round = 0; round < 100; ++round) CHECK_THROWS_AS(pool.run(50, all), int);
  CHECK(works(pool));
}

TEST_CASE("a job of several parts ends with the first exception") {
  ThreadPool pool(2);
  std::atomic<bool> later{false};
  auto task = [&](std::size_t i) {
    if (i == 70) throw std::runtime_error("task 70");
    if (i >= 0xffff) later = true;
  };
  CHECK_THROWS_WITH_AS(pool.run(200000, task), "task 70", std::runtime_error);
  CHECK_FALSE(later);
}

TEST_CASE("a task may use its own pool, on whichever thread it runs, and another one") {
  for (const std::size_t threads : {1u, 2u, 4u}) {
    ThreadPool pool(threads), other(2);
    std::atomic<int> sum{0};
    auto inner = [&](std::size_t i) { sum += static_cast<int>(i); };
    auto middle = [&](std::size_t) { pool.run(10, inner); };
    auto outer = [&](std::size_t) {
      pool.run(3, middle);
      other.run(10, inner);
    };
    pool.run(8, outer);
    CHECK(sum == 8 * (3 * 45 + 45));
    auto thrower = [&](std::size_t) { throw std::runtime_error("inner"); };
    auto nested = [&](std::size_t) { pool.run(5, thrower); };
    CHECK_THROWS_WITH_AS(pool.run(5, nested), "inner", std::runtime_error);
    CHECK(works(pool));
  }
}

TEST_CASE("a process that fork() made has a pool of its own: it works, and in parent and child it goes away" *
          doctest::skip(testing::no_threads_in_children)) {
  ThreadPool pool(3);
  CHECK(works(pool));
  for (int round = 0; round < 3; ++round) {
    const auto child = testing::in_child([&] {
      if (!works(pool)) return 1;
      // And a child of the child.
      const int grandchild = testing::in_child([&] { return works(pool) ? 0 : 2; });
      return grandchild != 0 ? grandchild : works(pool) ? 0 : 3;
    });
    CHECK(child == 0);
    CHECK(works(pool));
  }
  auto owned = std::make_unique<ThreadPool>(4);
  CHECK(works(*owned));
  CHECK(testing::in_child([&] {
          owned.reset();  // never used here
          return 0;
        }) == 0);
  CHECK(testing::in_child([&] {
          const bool good = works(*owned);
          owned.reset();
          return good ? 0 : 1;
        }) == 0);
  CHECK(works(*owned));
}

TEST_CASE("fork() while other threads use the pool, and several threads that use it in the child" *
          doctest::skip(testing::no_fork_beside_busy_threads)) {
  ThreadPool pool(3);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> users;
  for (int u = 0; u < 2; ++u) {
    users.emplace_back([&] {
      while (!stop) wrong += !works(pool);
    });
  }
  for (int round = 0; round < 20; ++round) {
    CHECK(testing::in_child([&] {
            std::atomic<int> bad{0};
            std::vector<std::thread> threads;
            for (int t = 0; t < 3; ++t) threads.emplace_back([&] { bad += !works(pool); });
            for (std::thread& thread : threads) thread.join();
            return bad.load();
          }) == 0);
  }
  stop = true;
  for (std::thread& user : users) user.join();
  CHECK(wrong == 0);
}

TEST_CASE("a task that forks: the copy gets an error instead of waiting for tasks that nobody runs there" *
          doctest::skip(testing::no_threads_in_children)) {
  ThreadPool pool(2);
  const auto caller = std::this_thread::get_id();
  std::atomic<bool> begun{false}, forked{false};
  ::pid_t child = -1;
  auto task = [&](std::size_t) {
    if (std::this_thread::get_id() != caller) {
      begun = true;
      while (!forked) std::this_thread::yield();
    } else if (!forked) {
      while (!begun) std::this_thread::yield();
      child = ::fork();
      if (child == 0) ::alarm(60);
      forked = true;
    }
  };
  std::string message;
  try {
    pool.run(2, task);
  } catch (const Error& error) {
    message = error.what();
  }
  if (child == 0) ::_exit(message.find("fork()") != std::string::npos && works(pool) ? 0 : 1);
  CHECK(message == "");
  CHECK(testing::status_of(child) == 0);
  CHECK(works(pool));
}

}  // namespace ple::thread_pool_test
