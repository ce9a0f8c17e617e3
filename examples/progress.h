// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/core.h>

#include <chrono>
#include <cstdint>
#include <cstdio>

namespace examples {

/// A line on stderr that says how far the work is.
class Progress {
 public:
  ~Progress() {  // an error that ends the work begins a line of its own
    if (unfinished_) fmt::print(stderr, "\n");
  }

  bool operator()(const char* what, std::uint64_t done, std::uint64_t total) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    if (what != what_ || done == total || seconds > shown_ + 0.2) {
      fmt::print(stderr, "\r{}: {} of {} ({:.0f} %), {:.1f} s ", what, done, total,
                 total ? 100.0 * static_cast<double>(done) / static_cast<double>(total) : 100.0, seconds);
      if (done == total) fmt::print(stderr, "\n");
      unfinished_ = done != total;
      shown_ = seconds;
      what_ = what;
    }
    return true;
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double shown_ = -1;
  bool unfinished_ = false;
  const char* what_ = nullptr;
};

}  // namespace examples
