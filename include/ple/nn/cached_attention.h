// SPDX-License-Identifier: Apache-2.0
// Attention over cached keys and values, one piece of positions at a time. Only the cache is as long as the context.
// Sources: Dao et al. 2022 (prompts), Dao et al. 2023, "Flash-Decoding" (single tokens).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "ple/core/config.h"
#include "ple/core/parallel.h"
#include "ple/nn/kv_cache.h"
#include "ple/simd/backend.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// Positions of one softmax piece. Pieces begin at multiples of it and are added up in order, whichever task computes
/// them and however a text is cut into chunks. So a token's result always has the same bits.
inline constexpr std::size_t attention_piece = 128;

/// Prompt tokens that share each read of a piece, and rows of K or V read at once. They fit in a core's cache.
inline constexpr std::size_t attention_tokens = 4, attention_rows = 32;

/// For one chunk of tokens.
struct CachedAttentionWorkspace {
  Rows scores;  ///< [tasks, attention_tokens * group, attention_piece]; group: query heads for each K/V head
  Rows cached;  ///< [tasks, attention_rows, head_dim]: K or V in f32
  Rows pieces;  ///< [partial results, head_dim]: sum_i exp(score_i - largest) v_i
  Rows sums;    ///< [partial results, 2]: largest, sum_i exp(score_i - largest)

  /// Rows of partial results, totals included: one token's for all pieces, or those of all tasks for their tokens.
  static std::size_t partial_results(std::size_t heads, std::size_t group, std::size_t context, std::size_t tasks) {
    const std::size_t pieces = (context + attention_piece - 1) / attention_piece;
    return (std::max)(heads * (pieces + 1), 2 * tasks * attention_tokens * group);
  }
};

/// out[t, h] = softmax(q[t, h] K^T) V over the last `window` positions, the token's own included, and over up to
/// `ahead` of the following ones, if q has their tokens. Heads that share K and V read them once. q, out: [T, heads *
/// head_dim], tokens at positions first, first + 1, ...
template <Backend B>
struct CachedAttention {
  std::size_t heads, kv_heads, head_dim, window;
  const KvCache& cache;
  const CachedAttentionWorkspace& workspace;
  std::size_t first;
  Rows q, out;
  std::size_t ahead = 0;

  void operator()(const Context& context) const {
    const std::size_t work = q.rows * kv_heads, n = tasks(context.threads);
    if (work < n) {
      for (std::size_t t = 0; t < q.rows; ++t) one_token(context, t);
      return;
    }
    const std::size_t tokens = (std::min)(work / n, attention_tokens), blocks = (q.rows + tokens - 1) / tokens;
    parallel_for(context, blocks * kv_heads, 1, [&](std::size_t begin, std::size_t end, std::size_t task) {
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t t = i / kv_heads * tokens;
        some_tokens(task, i % kv_heads, t, (std::min)(t + tokens, q.rows));
      }
    });
  }

  /// Computes one K/V head of the first token, on the calling thread.
  void first_token(std::size_t task, std::size_t kv) const { some_tokens(task, kv, 0, 1); }

 private:
  struct Range {
    std::size_t begin, end;  ///< positions [begin, end)
    bool empty() const { return begin >= end; }
  };

  std::size_t group() const { return heads / kv_heads; }

  /// The part of a range that token t sees.
  Range seen(std::size_t t, Range range) const {
    const std::size_t own_end = first + t + 1, end = (std::min)(own_end + ahead, first + q.rows);
    return {(std::max)(range.begin, own_end - (std::min)(own_end, window)), (std::min)(range.end, end)};
  }
  Range all_seen(std::size_t t) const { return seen(t, {0, first + q.rows}); }

  static Range piece(std::size_t k) { return {k * attention_piece, (k + 1) * attention_piece}; }

  /// One K/V head of tokens [begin, end), by one thread, piece by piece.
  void some_tokens(std::size_t task, std::size_t kv, std::size_t begin, std::size_t end) const {
    const std::size_t row = task * 2 * attention_tokens * group(), total = row + attention_tokens * group();
    for (std::size_t i = 0; i < (end - begin) * group(); ++i) clear(total + i);
    for (std::size_t k = all_seen(begin).begin / attention_piece; k * attention_piece < all_seen(end - 1).end; ++k) {
      attend(task, kv, k, begin, end, row);
      for (std::size_t t = begin; t < end; ++t) {
        if (seen(t, piece(k)).empty()) continue;
        for (std::size_t i = (t - begin) * group(); i < (t - begin + 1) * group(); ++i) add(row + i, total + i);
      }
    }
    for (std::size_t i = 0; i < (end - begin) * group(); ++i) {
      finish(total + i, out.row(begin + i / group()) + (kv * group() + i % group()) * head_dim);
    }
  }

  /// One token by all threads: each takes some pieces, then the results are added up.
  void one_token(const Context& context, std::size_t t) const {
    const Range all = all_seen(t);
    const std::size_t k = all.begin / attention_piece, pieces = (all.end - 1) / attention_piece + 1 - k;
    const auto some = [&](std::size_t begin, std::size_t end, std::size_t task) {
      for (std::size_t i = begin; i < end; ++i) attend(task, i / pieces, k + i % pieces, t, t + 1, heads + i * group());
    };
    if (heads * (all.end - all.begin) * head_dim < parallel_threshold) {
      some(0, kv_heads * pieces, 0);
    } else {
      parallel_for(context, kv_heads * pieces, 1, some);
    }
    for_each_row(context, heads, pieces * head_dim, [&](std::size_t h) {
      clear(h);
      for (std::size_t i = 0; i < pieces; ++i) add(heads + (h / group() * pieces + i) * group() + h % group(), h);
      finish(h, out.row(t) + h * head_dim);
    });
  }

  /// Writes the partial results of piece k, for tokens [begin, end) and K/V head kv, to the rows from `row` on.
  void attend(std::size_t task, std::size_t kv, std::size_t k, std::size_t begin, std::size_t end,
              std::size_t row) const {
    const Rows scores = workspace.scores.slice(task * attention_tokens * group(), attention_tokens * group());
    float* const cached = workspace.cached.row(task * attention_rows);
    const std::size_t from = seen(begin, piece(k)).begin, to = seen(end - 1, piece(k)).end;
    // Calls f(t, n, scores, rows) for each token t that sees n positions of the run, which begin at `rows`.
    const auto for_each_seen = [&](const CacheRun& run, const auto* rows, auto&& f) {
      for (std::size_t t = begin; t < end; ++t) {
        const Range range = seen(t, {run.first, run.first + run.count});
        if (range.empty()) continue;
        f(t, range.end - range.begin, scores.row((t - begin) * group()) + range.begin % attention_piece,
          rows + (range.begin - run.first) * head_dim);
      }
    };
    cache.for_each_run(from, to, attention_rows, [&](const CacheRun& run) {
      cache.template with_keys<B>(kv, run, cached, [&](const auto* rows) {
        for_each_seen(run, rows, [&](std::size_t t, std::size_t n, float* p, const auto* keys) {
          B::matmul(keys, head_dim, n, head_dim, q.row(t) + kv * group() * head_dim, head_dim, group(), p,
                    scores.stride);
        });
      });
    });
    for (std::size_t t = begin; t < end; ++t) {
      const Range range = seen(t, piece(k));
      if (range.empty()) continue;
      for (std::size_t i = (t - begin) * group(); i < (t - begin + 1) * group(); ++i) {
        const ExpSum sum = B::exp_sum(range.end - range.begin, scores.row(i) + range.begin % attention_piece);
        workspace.sums.row(row + i)[0] = sum.largest;
        workspace.sums.row(row + i)[1] = sum.sum;
        std::fill_n(workspace.pieces.row(row + i), head_dim, 0.0f);
      }
    }
    cache.for_each_run(from, to, attention_rows, [&](const CacheRun& run) {
      cache.template with_values<B>(kv, run, cached, [&](const auto* rows) {
        for_each_seen(run, rows, [&](std::size_t t, std::size_t n, const float* p, const auto* values) {
          B::weighted_sum(values, head_dim, n, head_dim, p, scores.stride, group(),
                          workspace.pieces.row(row + (t - begin) * group()), workspace.pieces.stride);
        });
      });
    });
  }

  void clear(std::size_t row) const {
    workspace.sums.row(row)[0] = -std::numeric_limits<float>::infinity();
    workspace.sums.row(row)[1] = 0;
    std::fill_n(workspace.pieces.row(row), head_dim, 0.0f);
  }

  /// total = total + piece, both scaled to the larger of their largest scores
  void add(std::size_t piece, std::size_t total) const {
    const float *a = workspace.sums.row(piece), largest = (std::max)(a[0], workspace.sums.row(total)[0]);
    float* b = workspace.sums.row(total);
    const float scale_a = std::exp(a[0] - largest), scale_b = std::exp(b[0] - largest);
    b[0] = largest;
    b[1] = std::fma(b[1], scale_b, a[1] * scale_a);
    B::scale(scale_b, head_dim, workspace.pieces.row(total));
    B::weighted_sum(workspace.pieces.row(piece), head_dim, 1, head_dim, &scale_a, 1, 1, workspace.pieces.row(total),
                    head_dim);
  }

  void finish(std::size_t total, float* y) const {
    std::copy_n(workspace.pieces.row(total), head_dim, y);
    B::scale(1 / workspace.sums.row(total)[1], head_dim, y);
  }
};

}  // namespace ple::inline PLE_ABI
