// SPDX-License-Identifier: Apache-2.0
// The product that a model spends its time in, on one thread: every backend of this CPU and every stored type, beside
// how fast the machine reads memory. One token is what decoding does (limit: memory), 96 tokens a prompt (limit:
// arithmetic).
#include <ple/dispatch.h>
#include <ple/ple.h>

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace {

constexpr std::size_t rows = 12288, cols = 1536, tokens = 96;  // a wide feed-forward of Gemma 4 E2B

/// The median time of a few calls, in seconds.
template <class F>
double seconds(F&& f) {
  std::vector<double> times(7);
  for (double& time : times) {
    const auto start = std::chrono::steady_clock::now();
    f();
    time = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

template <class T, ple::Backend B>
void measure() {
  ple::AlignedVector<T> w(rows * cols);
  ple::AlignedVector<float> x(tokens * cols, 0.5f), y(tokens * rows);
  for (std::size_t i = 0; i < w.size(); ++i) {
    const float value = static_cast<float>(i % 13) - 6;
    ple::DtypeTraits<T>::encode(&value, w[i]);
  }
  const auto product = [&](std::size_t n) { B::matmul(w.data(), cols, rows, cols, x.data(), cols, n, y.data(), rows); };
  const double one = seconds([&] { product(1); }), many = seconds([&] { product(tokens); });
  fmt::print("{:8} {:5} {:8.1f} GB/s {:10.1f} GFLOP/s\n", B::name(), ple::DtypeTraits<T>::name,
             static_cast<double>(rows * cols * sizeof(T)) / one * 1e-9,
             2.0 * static_cast<double>(rows * cols * tokens) / many * 1e-9);
}

}  // namespace

int main() {
  std::vector<std::uint64_t> memory(std::size_t{32} << 20, 1);
  std::uint64_t sum = 0;
  const double read = seconds([&] {
    std::uint64_t parts[8] = {};
    for (std::size_t i = 0; i < memory.size(); i += 8) {
      for (std::size_t k = 0; k < 8; ++k) parts[k] += memory[i + k];
    }
    for (const std::uint64_t part : parts) sum += part;
  });
  fmt::print("reading memory: {:.1f} GB/s (sum {})\n\n", static_cast<double>(memory.size() * 8) / read * 1e-9, sum);
  fmt::print("[{}, {}] weights     1 token        {} tokens\n", rows, cols, tokens);
  ple::for_each_backend([]<ple::Backend B>() {
    measure<ple::f32, B>();
    measure<ple::bf16, B>();
    measure<ple::f16, B>();
  });
}
