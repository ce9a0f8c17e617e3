// SPDX-License-Identifier: Apache-2.0
// The product that a model spends its time in, on one thread: every backend of this CPU and every stored type, beside
// how fast the machine reads memory. One token is what decoding does (limit: memory), 128 tokens a prompt (limit:
// arithmetic).
#include <ple/dispatch.h>
#include <ple/ple.h>

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace {

constexpr std::size_t rows = 12288, cols = 1536, tokens = 128;  // a wide feed-forward of Gemma 4 E2B

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

/// As above, with activations as integers; includes what quantising them takes.
template <class T, ple::Backend B>
void measure_integers() {
  constexpr std::size_t blocks = rows * cols / ple::DtypeTraits<T>::values_per_block;
  ple::AlignedVector<T> w(blocks);
  std::uint64_t seed = 1;
  for (T& block : w) {
    auto* bytes = reinterpret_cast<std::uint8_t*>(&block);
    for (std::size_t i = 0; i < sizeof block; ++i) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      bytes[i] = static_cast<std::uint8_t>(seed >> 56);
    }
    // Those without this field take what the random bytes mean: speed does not depend on it.
    if constexpr (requires { block.scale; }) block.scale = ple::to_f16(0.01f);
    if constexpr (requires { block.min_scale; }) block.min_scale = ple::to_f16(0.01f);
  }
  ple::AlignedVector<float> x(tokens * cols, 0.5f), y(tokens * rows);
  ple::AlignedVector<std::byte> memory(ple::QuantizedRows::bytes(tokens, cols)), tile(B::tile_bytes(cols));
  constexpr ple::Dtype dtype = ple::DtypeTraits<T>::id;
  const ple::TileLayout layout(dtype, cols);
  ple::AlignedVector<std::byte> tiles(layout.bytes(rows));
  const double laying_out = seconds([&] {
    for (std::size_t r = 0; r < rows; r += 16) {
      ple::pack_tile(layout, reinterpret_cast<const std::byte*>(w.data() + r * blocks / rows),
                     blocks / rows * sizeof(T), 16, ple::bytes_of(dtype, 256),
                     tiles.data() + r / 16 * layout.tile_bytes);
    }
  });
  const ple::PackedTiles weights{dtype, layout, tiles.data(), rows};
  const auto product = [&](std::size_t n) {
    const ple::QuantizedRows quantized(n, cols, ple::IntegerTraits<T>::sub_block, memory);
    for (std::size_t t = 0; t < n; ++t) B::quantize(x.data() + t * cols, dtype, t, quantized);
    B::matmul(weights, quantized, y.data(), rows, tile.data());
  };
  const double one = seconds([&] { product(1); }), many = seconds([&] { product(tokens); });
  const double bytes = static_cast<double>(blocks * sizeof(T));
  fmt::print("{:8} {:6} {:8.1f} GB/s {:10.1f} GOP/s {:10.1f} GB/s\n", B::name(), ple::DtypeTraits<T>::name,
             bytes / one * 1e-9, 2.0 * static_cast<double>(rows * cols * tokens) / many * 1e-9,
             bytes / laying_out * 1e-9);
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
    for (const ple::Dtype dtype : ple::all_dtypes) {
      ple::with_dtype(dtype, []<class T>() {
        if constexpr (ple::IntegerType<T>) measure_integers<T, B>();
      });
    }
  });
}
