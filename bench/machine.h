// SPDX-License-Identifier: Apache-2.0
// What the machine can do at most: how fast N threads read memory and a file's mapping, and how many products they
// compute. Include it first, as ple/dispatch.h, which it includes.
#pragma once

#include "ple/simd/targets.h"  // Highway must not choose a target that it does not compile for

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/machine-inl.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "bench/machine-inl.h"  // the compiler's own target, with -march=native the only one

#include <ple/dispatch.h>

#include <ple/core/memory.h>
#include <ple/core/system.h>

#include <unistd.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <thread>
#include <vector>

namespace bench {

/// Seconds of a clock that only goes forward.
inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// What all threads reached together. 0: not measured, for want of vectors.
struct Machine {
  double read = 0;         ///< bytes a second from memory of the process, in large pages where the system has them
  double mapped_read = 0;  ///< the same from a mapped file
  double int8 = 0;         ///< multiply-adds a second of bytes, by the instructions that the kernels use
  double f32 = 0;          ///< multiply-adds a second of floats
  double bf16 = 0;         ///< and of bf16, where kernels use the CPU's instruction for that
};

inline Machine mean_of(const Machine& a, const Machine& b) {
  return {(a.read + b.read) / 2, (a.mapped_read + b.mapped_read) / 2, (a.int8 + b.int8) / 2, (a.f32 + b.f32) / 2,
          (a.bf16 + b.bf16) / 2};
}

/// Measures right before and right after something else that is measured: what a machine can do may change from second
/// to second, on a virtual one as its cores are moved to others.
class MachineMeter {
 public:
  /// `file` is mapped for mapped_read: its first 256 MiB. Errors: those of MappedFile.
  MachineMeter(std::size_t threads, const std::filesystem::path& file)
      : threads_(threads), map_(ple::MappedFile::open(file)), memory_(buffer_bytes()), sums_(threads) {
    ple::use_huge_pages(memory_);
    std::fill(memory_.begin(), memory_.end(), std::byte{1});
    // Bytes for int8, and finite numbers for f32: 0.5 to 1.
    for (std::size_t i = 0; i < std::size(weights_); ++i) weights_[i] = 0x3f000000u + static_cast<std::uint32_t>(i);
  }

  /// What memory gives now: the best of three, since what disturbs a measurement only makes it slower.
  Machine measure_memory() {
    Machine best;
    const std::span mapped = map_->bytes().first(std::min<std::size_t>(map_->bytes().size(), std::size_t{1} << 28));
    map_->populate(0, mapped.size());
    with_loops([&]<class L>(bool) {
      for (int i = 0; i < 3; ++i) {
        keep(best.read, read<L>(memory_));
        keep(best.mapped_read, read<L>(mapped));
      }
    });
    return best;
  }

  /// How many products it computes now; the same.
  Machine measure_products() {
    Machine best;
    const auto* w = reinterpret_cast<const std::byte*>(weights_);
    with_loops([&]<class L>(bool multiplies_bf16) {
      for (int i = 0; i < 3; ++i) {
        keep(best.int8, compute(L::int8_step(), [w](std::size_t steps) { return L::int8(w, steps); }));
        keep(best.f32, compute(L::f32_step(), [w](std::size_t steps) { return L::f32(w, steps); }));
        if (multiplies_bf16)
          keep(best.bf16, compute(L::bf16_step(), [w](std::size_t steps) { return L::bf16(w, steps); }));
      }
    });
    return best;
  }

 private:
  /// Nothing where there are no vectors.
  template <class F>
  static void with_loops(F&& f) {
    ple::with_best_backend([&]<class B>() {
      if constexpr (requires { Loops<B>::weight_bytes; }) f.template operator()<Loops<B>>(B::multiplies_bf16());
    });
  }

  /// Bytes a second; each thread streams through a part of its own.
  template <class L>
  double read(std::span<const std::byte> memory) {
    const std::size_t part = memory.size() / threads_ / 4096 * 4096;
    const double seconds =
        together([&](std::size_t i) { sums_[i] += static_cast<double>(L::read(memory.data() + i * part, part) & 1); });
    return static_cast<double>(part * threads_) / seconds;
  }

  /// Multiply-adds a second of a loop that makes `step` of them in a step.
  template <class F>
  double compute(std::uint64_t step, F&& loop) {
    constexpr std::size_t steps = std::size_t{1} << 20;
    const double seconds = together([&](std::size_t i) { sums_[i] += static_cast<double>(loop(steps)); });
    return static_cast<double>(step * steps * threads_) / seconds;
  }

  /// Seconds from the moment all threads are there until the last is done with f(thread).
  template <class F>
  double together(F&& f) const {
    std::vector<double> begins(threads_), ends(threads_);
    std::barrier start(static_cast<std::ptrdiff_t>(threads_));
    const auto work = [&](std::size_t i) {
      start.arrive_and_wait();
      begins[i] = now();
      f(i);
      ends[i] = now();
    };
    {
      std::vector<std::jthread> others;
      for (std::size_t i = 1; i < threads_; ++i) others.emplace_back(work, i);
      work(0);
    }
    return *std::max_element(ends.begin(), ends.end()) - *std::min_element(begins.begin(), begins.end());
  }

  static void keep(double& best, double value) { best = std::max(best, value); }

  /// Eight times the largest cache, so that little of it is still there the next time.
  static std::size_t buffer_bytes() {
    std::size_t cache = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
    cache = static_cast<std::size_t>(std::max(0L, ::sysconf(_SC_LEVEL3_CACHE_SIZE)));
#endif
    return std::max(std::size_t{256} << 20, 8 * cache);
  }

  std::size_t threads_;
  std::shared_ptr<const ple::MappedFile> map_;
  ple::AlignedVector<std::byte> memory_;
  alignas(ple::alignment) std::uint32_t weights_[4096 / sizeof(std::uint32_t)];
  std::vector<double> sums_;  // by thread; what the loops found, so that they are not left out
};

}  // namespace bench
