// SPDX-License-Identifier: Apache-2.0
// Integer weights times 8-bit activations: every backend, every type.
#include "kernel_cases.h"

#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "../chosen_backend.h"
#include "random_blocks.h"

namespace ple::integers_test {

namespace {

using testing::for_each_choice, testing::for_each_integer_type, testing::random_values;

template <class T>
std::vector<std::byte> random_weights(std::size_t rows, std::size_t cols, unsigned seed) {
  const auto blocks = testing::random_blocks<T>(rows, cols, seed);
  const auto bytes = std::as_bytes(std::span(blocks));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> packed(Dtype dtype, const std::vector<std::byte>& w, std::size_t rows, std::size_t cols) {
  const TileLayout layout(dtype, cols);
  std::vector<std::byte> tiles(layout.bytes(rows), std::byte{0x55});
  for (std::size_t r = 0; r < rows; r += rows_per_tile) {
    pack_tile(layout, w.data() + r * bytes_of(dtype, cols), bytes_of(dtype, cols), std::min(rows_per_tile, rows - r),
              bytes_of(dtype, values_per_chunk), tiles.data() + r / rows_per_tile * layout.tile_bytes);
  }
  return tiles;
}

struct Product {
  std::vector<float> y;
  AlignedVector<std::byte> memory;
  QuantizedRows x;
};

template <Backend B = testing::ChosenBackend>
Product product(Dtype dtype, const std::vector<std::byte>& w, std::size_t rows, std::size_t cols,
                const std::vector<float>& x, std::size_t tokens) {
  Product p;
  p.memory.assign(QuantizedRows::bytes(tokens, cols), std::byte{0x55});
  p.x = QuantizedRows(tokens, cols, integer_format(dtype).sub_block, p.memory);
  for (std::size_t t = 0; t < tokens; ++t) B::quantize(x.data() + t * cols, dtype, t, p.x);
  for (std::size_t t = tokens; t < p.x.padded_tokens(); ++t) p.x.clear(t);
  const auto tiles = packed(dtype, w, rows, cols);
  AlignedVector<std::byte> tile(B::tile_bytes(cols));
  p.y.assign(tokens * (rows + 3), -1.0f);
  B::matmul(PackedTiles{dtype, TileLayout(dtype, cols), tiles.data(), rows}, p.x, p.y.data(), rows + 3, tile.data());
  return p;
}

constexpr std::size_t shapes[][2] = {{1, 256}, {5, 512}, {16, 768}, {33, 256}, {50, 1536}};

}  // namespace

TEST_CASE("packed rows say what decoding says") {
  for_each_integer_type([]<class T>() {
    CAPTURE(DtypeTraits<T>::name);
    constexpr std::size_t n = DtypeTraits<T>::values_per_block, sub = IntegerTraits<T>::sub_block;
    for (const auto& shape : shapes) {
      const std::size_t rows = shape[0], cols = shape[1];
      const auto bytes = random_weights<T>(rows, cols, 3);
      const T* w = reinterpret_cast<const T*>(bytes.data());
      const auto tiles = packed(DtypeTraits<T>::id, bytes, rows, cols);
      const TileLayout layout(DtypeTraits<T>::id, cols);
      // Not more bytes than the blocks have, but for whole tiles and lines, and numbers of 4 or 6 bits in 8. Types of
      // codes take as many bits a code as the layout says, and their scales.
      const std::size_t narrow = layout.format->has_super_scale ? rows_per_tile * layout.sub_blocks : 0;
      std::size_t most = rows_per_tile * bytes_of(DtypeTraits<T>::id, cols) + narrow;
      if constexpr (CodedType<T>) {
        most = rows_per_tile * cols * DtypeTraits<T>::code_bits / 8;
        most += n == 256 ? narrow + rows_per_tile * layout.chunks * sizeof(f16) : rows_per_tile * (cols / sub) * 2;
      }
      CHECK(layout.tile_bytes <= most + 2 * alignment);
      bool good = true;
      for (std::size_t r = 0; r < rows; ++r) {
        std::vector<float> decoded(cols);
        for (std::size_t b = 0; b < cols / n; ++b) {
          DtypeTraits<T>::decode(w[r * cols / n + b], decoded.data() + b * n);
        }
        std::vector<float> row(cols);
        decode_row(layout, tiles.data() + r / 16 * layout.tile_bytes, r % 16, row.data());
        good &= row == decoded;
        for (std::size_t s = 0; s < layout.sub_blocks; ++s) {
          const SubBlock block = sub_block_of(layout, tiles.data() + r / 16 * layout.tile_bytes, r % 16, s);
          for (std::size_t i = 0; i < sub; ++i) {
            const float scale = IntegerTraits<T>::factor * block.scale;
            const float product = scale * static_cast<float>(block.integers[i] - IntegerTraits<T>::zero_point);
            good &= (IntegerTraits<T>::has_minimum ? product - block.minimum : product) == decoded[s * sub + i];
            good &= IntegerTraits<T>::zero_point == 128 || block.integers[i] < 64;
          }
        }
      }
      CHECK(good);
    }
  });
}

TEST_CASE("a product is off by what rounding the activations explains") {
  for_each_integer_type([]<class T>() {
    CAPTURE(DtypeTraits<T>::name);
    for (const auto& shape : shapes) {
      const std::size_t rows = shape[0], cols = shape[1];
      for (const std::size_t tokens : {1u, 3u, 4u, 13u}) {
        CAPTURE(rows);
        CAPTURE(cols);
        CAPTURE(tokens);
        const auto w = random_weights<T>(rows, cols, 1);
        const auto x = random_values(tokens * cols, 2);
        std::vector<float> weights(rows * cols);
        Scalar::decode(reinterpret_cast<const T*>(w.data()), rows * cols, weights.data());
        for_each_choice([&] {
          const auto y = product(DtypeTraits<T>::id, w, rows, cols, x, tokens).y;
          bool good = true;
          for (std::size_t t = 0; t < tokens; ++t) {
            for (std::size_t r = 0; r < rows; ++r) {
              // A value is rounded by at most half a step, 1/254 of its block's largest; sums of f32 add the rest:
              // at most 2 roundings of each of the (weight * value) terms' sums, of which there are cols / 16 + 5.
              double exact = 0, bound = 0, size = 0;
              for (std::size_t b = 0; b < cols; b += 32) {
                float largest = 0;
                double magnitude = 0;
                for (std::size_t i = b; i < b + 32; ++i) {
                  const double weight = weights[r * cols + i], value = x[t * cols + i];
                  largest = std::max(largest, std::abs(x[t * cols + i]));
                  exact += weight * value;
                  magnitude += std::abs(weight);
                  size += std::abs(weight) * (std::abs(value) + 0.5 * largest / 127);
                }
                // 0x1p-20: the scale itself and its inverse are rounded, too
                bound += magnitude * largest / 127 * (0.5 + 127 * 0x1p-20);
              }
              // A type with minimums subtracts two sums, each of which may be larger than what is left.
              const double spread = IntegerTraits<T>::has_minimum ? 16 : 2;
              bound += spread * size * (static_cast<double>(cols) / 16 + 5) * 0x1p-24;
              good &= std::abs(double(y[t * (rows + 3) + r]) - exact) <= bound;
            }
            for (std::size_t r = rows; r < rows + 3; ++r) good &= y[t * (rows + 3) + r] == -1;
          }
          CHECK(good);
        });
      }
    }
  });
}

TEST_CASE("a token gives the same bits alone and among others, on every target with fused multiplications") {
  for_each_integer_type([]<class T>() {
    CAPTURE(DtypeTraits<T>::name);
    for (const auto& shape : shapes) {
      const std::size_t rows = shape[0], cols = shape[1];
      const std::size_t tokens = 21;
      const auto w = random_weights<T>(rows, cols, 5);
      const auto x = random_values(tokens * cols, 6);
      const auto expected = product<Scalar>(DtypeTraits<T>::id, w, rows, cols, x, tokens).y;
      for_each_choice([&] {
        const auto together = product(DtypeTraits<T>::id, w, rows, cols, x, tokens).y;
        for (std::size_t t = 0; t < tokens; ++t) {
          const std::vector<float> one(x.begin() + static_cast<std::ptrdiff_t>(t * cols),
                                       x.begin() + static_cast<std::ptrdiff_t>((t + 1) * cols));
          const auto alone = product(DtypeTraits<T>::id, w, rows, cols, one, 1).y;
          CHECK(std::memcmp(alone.data(), together.data() + t * (rows + 3), rows * sizeof(float)) == 0);
        }
        const std::string name = testing::ChosenBackend::name();
        if (name == "AVX2" || name.starts_with("AVX3")) CHECK(together == expected);
      });
    }
  });
}

TEST_CASE("activations that are no scales give no scales; zeros and tiny values give zeros") {
  for_each_integer_type([]<class T>() {
    const auto w = random_weights<T>(4, 256, 7);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      std::vector<float> x(256, 1.0f);
      x[77] = bad;
      for_each_choice([&] { CHECK(std::isnan(product(DtypeTraits<T>::id, w, 4, 256, x, 1).y[0])); });
    }
    for (const float tiny : {0.0f, 1e-38f, -1e-42f}) {
      const std::vector<float> x(256, tiny);
      for_each_choice([&] { CHECK(product(DtypeTraits<T>::id, w, 4, 256, x, 1).y[1] == 0); });
    }
  });
}

TEST_CASE("rows that are no whole scale of chunks are filled up") {
  const std::size_t rows = 7, tokens = 6;
  for_each_integer_type([&]<class T>() {
    if constexpr (DtypeTraits<T>::values_per_block < 256) {
      CAPTURE(DtypeTraits<T>::name);
      for (const std::size_t cols : {32u, 64u, 96u, 288u, 320u, 480u}) {
        if (cols % DtypeTraits<T>::values_per_block != 0) continue;
        const auto w = random_weights<T>(rows, cols, 8);
        const auto x = random_values(tokens * cols, 9);
        const auto expected = product<Scalar>(DtypeTraits<T>::id, w, rows, cols, x, tokens).y;
        std::vector<float> weights(rows * cols);
        Scalar::decode(reinterpret_cast<const T*>(w.data()), rows * cols, weights.data());
        double exact = 0, size = 0;
        for (std::size_t i = 0; i < cols; ++i) {
          exact += double(weights[2 * cols + i]) * double(x[i]);
          size += std::abs(double(weights[2 * cols + i]));
        }
        CHECK(std::abs(double(expected[2]) - exact) <= size * 4 / 127 * 0.51);  // no value is above 4
        for_each_choice([&] {
          const auto y = product(DtypeTraits<T>::id, w, rows, cols, x, tokens).y;
          float most = 0;
          for (std::size_t i = 0; i < y.size(); ++i) most = std::max(most, std::abs(y[i] - expected[i]));
          CHECK(most <= 1e-4f);
        });
      }
    }
  });
}

}  // namespace ple::integers_test
