// SPDX-License-Identifier: Apache-2.0
// Attention over cached keys and values against its formula in f64, for every backend and type of cache.
#include "ple/nn/cached_attention.h"
#include "ple/core/thread_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace ple::cached_attention_test {

namespace {

constexpr Dtype cache_dtypes[] = {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::q8_0};
constexpr std::size_t heads = 6, kv_heads = 2, head_dim = 32, group = heads / kv_heads, positions = 300;

/// Queries, keys and values of all positions: [positions, heads or kv_heads, head_dim].
struct Text {
  std::vector<float> q, k, v;
};

Text random_text() {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 1);
  Text text{std::vector<float>(positions * heads * head_dim), std::vector<float>(positions * kv_heads * head_dim), {}};
  text.v = text.k;
  for (auto* values : {&text.q, &text.k, &text.v}) {
    for (float& value : *values) value = normal(generator);
  }
  return text;
}

/// What attention gives at every position, read in chunks with a ring as long as these and the window need.
template <Backend B>
std::vector<float> attended(const Text& text, Dtype dtype, std::size_t window, std::size_t chunk, std::size_t threads,
                            std::size_t ahead = 0, std::size_t length = positions) {
  ThreadPool pool(threads);
  Arena arena(0);
  KvCache cache(kv_heads, head_dim, std::min(length, window + chunk - 1), dtype, arena);
  CachedAttentionWorkspace room;
  Rows q, out;
  const std::size_t n = tasks(pool), results = room.partial_results(heads, group, length, n);
  const RowsRequest requests[] = {{&room.scores, n * attention_tokens * group, attention_piece},
                                  {&room.cached, n * attention_rows, head_dim},
                                  {&room.pieces, results, head_dim},
                                  {&room.sums, results, 2},
                                  {&q, chunk, heads * head_dim + 1},  // rows are further apart than they are long
                                  {&out, chunk, heads * head_dim}};
  const auto memory = allocate_rows(requests);
  std::vector<float> all;
  for (std::size_t first = 0; first < length; first += chunk) {
    const std::size_t count = std::min(chunk, length - first);
    for (std::size_t t = 0; t < count; ++t) {
      std::copy_n(&text.q[(first + t) * heads * head_dim], heads * head_dim, q.row(t));
      for (std::size_t kv = 0; kv < kv_heads; ++kv) {
        const std::size_t at = ((first + t) * kv_heads + kv) * head_dim;
        cache.write(kv, first + t, &text.k[at], &text.v[at]);
      }
    }
    const CachedAttention<B> attention{heads, kv_heads, head_dim,          window, cache,
                                       room,  first,    q.slice(0, count), out,    ahead};
    attention(pool);
    for (std::size_t t = 0; t < count; ++t) all.insert(all.end(), out.row(t), out.row(t) + heads * head_dim);
  }
  return all;
}

/// How far a value may be from what was written, relative to the largest magnitude of its block.
double rounding(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32: return 0;
    case Dtype::bf16: return 0x1p-8;
    case Dtype::f16: return 0x1p-11;
    default: return 0.5 / 127 + 0x1p-11;  // half a step, and the scale's own rounding
  }
}

/// The text with keys and values as such a cache has them.
Text rounded(Text text, Dtype dtype) {
  for (auto* values : {&text.k, &text.v}) {
    with_dtype(dtype, [&]<class T>() {
      if constexpr (EncodableType<T>) {
        constexpr std::size_t n = DtypeTraits<T>::values_per_block;
        T block;
        for (std::size_t i = 0; i < values->size(); i += n) {
          DtypeTraits<T>::encode(&(*values)[i], block);
          DtypeTraits<T>::decode(block, &(*values)[i]);
        }
      }
    });
  }
  return text;
}

double largest(const float* values) {
  double most = 0;
  for (std::size_t i = 0; i < head_dim; ++i) most = std::max(most, std::abs(double(values[i])));
  return most;
}

}  // namespace

TEST_CASE("attention equals the formula in f64, but for what rounding keys and values explains") {
  const Text text_in_f32 = random_text();
  // r: how far the keys and values of `text` may be from those of the cache
  const auto check_against = [&](const Text& text, double r, std::span<const float> y, std::size_t window,
                                 std::size_t ahead) {
    constexpr double u = 0x1p-24;
    double worst = 0;  // error / bound
    for (std::size_t t = 0; t < positions; ++t) {
      const std::size_t begin = t + 1 - std::min(t + 1, window), end = std::min(t + 1 + ahead, positions);
      for (std::size_t h = 0; h < heads; ++h) {
        const float* q = &text.q[(t * heads + h) * head_dim];
        const auto row = [&](const std::vector<float>& rows, std::size_t i) {
          return &rows[(i * kv_heads + h / group) * head_dim];
        };
        std::vector<double> p(end);
        double most = -1e30, sum = 0, score_error = 0;
        for (std::size_t i = begin; i < end; ++i) {
          double absolute = 0, length = 0;
          for (std::size_t c = 0; c < head_dim; ++c) {
            p[i] += double(q[c]) * double(row(text.k, i)[c]);
            absolute += std::abs(double(q[c]) * double(row(text.k, i)[c]));
            length += std::abs(double(q[c]));
          }
          most = std::max(most, p[i]);
          // Every key may be off by r of the largest of its block; the sum of products by head_dim u (1 + r) of theirs.
          score_error = std::max(score_error, r * length * largest(row(text.k, i)) + 2 * head_dim * u * absolute);
        }
        for (std::size_t i = begin; i < end; ++i) sum += p[i] = std::exp(p[i] - most);
        // Scores off by e change a weight by a factor of at most exp(2 e): its own exp, and the sum it is divided by.
        // Beside that each weight has the errors of two exp (see kernels_test: 100 u each, one more for the piece's
        // scale), of sums of at most `positions` weights and of products, and of a few single operations.
        const double weights = std::exp(2 * score_error) * (1 + (300 + 2 * double(positions)) * u) - 1;
        for (std::size_t c = 0; c < head_dim; ++c) {
          double expected = 0, absolute = 0, values_error = 0;
          for (std::size_t i = begin; i < end; ++i) {
            expected += p[i] / sum * double(row(text.v, i)[c]);
            absolute += p[i] / sum * std::abs(double(row(text.v, i)[c]));
            values_error += p[i] / sum * r * largest(row(text.v, i));
          }
          const double bound = weights * absolute + (1 + weights) * values_error;
          worst = std::max(worst, std::abs(double(y[(t * heads + h) * head_dim + c]) - expected) / bound);
        }
      }
    }
    CHECK(worst <= 1);
    CHECK(worst > 0);
  };
  const auto check = [&]<Backend B>(Dtype dtype, std::size_t window, std::size_t chunk, std::size_t ahead = 0) {
    const auto y = attended<B>(text_in_f32, dtype, window, chunk, 2, ahead);
    check_against(rounded(text_in_f32, dtype), 0, y, window, ahead);
    check_against(text_in_f32, rounding(dtype), y, window, ahead);
  };
  for (const Dtype dtype : cache_dtypes) {
    CAPTURE(std::string(name_of(dtype)));
    check.operator()<Simd>(dtype, positions, 1);  // every position on its own, over up to three pieces
    check.operator()<Simd>(dtype, 70, 50);        // the ring wraps within a piece, and within a window
    check.operator()<Scalar>(dtype, positions, positions);
    // An encoder's, which sees what follows, too: a radius within a piece, one of more than a piece, everything.
    check.operator()<Scalar>(dtype, 8, positions, 7);
    check.operator()<Simd>(dtype, 151, positions, 150);
    check.operator()<Simd>(dtype, positions, positions, positions);
  }
}

TEST_CASE("attention that sees what follows has the same bits on any number of threads, also of a few tokens") {
  const Text text = random_text();
  for (const std::size_t length : {std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{130}, positions}) {
    const auto alone = attended<Simd>(text, Dtype::f32, 151, length, 1, 150, length);
    for (const std::size_t threads : {2u, 3u, 8u}) {
      CAPTURE(length);
      CAPTURE(threads);
      const auto y = attended<Simd>(text, Dtype::f32, 151, length, threads, 150, length);
      CHECK(std::memcmp(y.data(), alone.data(), alone.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("attention has the same bits however a text is cut and on however many threads, for every type of cache") {
  const Text text = random_text();
  for (const Dtype dtype : cache_dtypes) {
    CAPTURE(std::string(name_of(dtype)));
    for (const std::size_t window : {std::size_t{1}, std::size_t{130}, positions}) {
      const auto whole = attended<Simd>(text, dtype, window, positions, 1);
      for (const std::size_t chunk : {1u, 2u, 7u, 128u}) {
        for (const std::size_t threads : {1u, 2u, 3u}) {
          CAPTURE(window);
          CAPTURE(chunk);
          CAPTURE(threads);
          const auto y = attended<Simd>(text, dtype, window, chunk, threads);
          CHECK(std::memcmp(y.data(), whole.data(), whole.size() * sizeof(float)) == 0);
        }
      }
    }
  }
}

}  // namespace ple::cached_attention_test
