// SPDX-License-Identifier: Apache-2.0
// Attention over whole texts, and its gradient. Scores are computed again on the way back, head by head.
// Source of the backward pass without stored scores: Dao et al. 2022.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/core/parallel.h"
#include "ple/tensor/rows.h"
#include "ple/train/linear.h"

namespace ple::inline PLE_ABI {

/// For sequences of up to T tokens.
struct AttentionGradientWorkspace {
  Rows scores;            ///< [tasks * attention_tile, T]
  Rows weights, dscores;  ///< [T, T]: one head's softmax and the scores' gradient
};

/// Query tokens, or keys, of a task.
inline constexpr std::size_t attention_tile = 32;

/// out[t, h] = sum_j p[t, j] v[j], p = softmax(q[t, h] K^T) over the last `window` positions of t's text. q, out: [T,
/// heads * head_dim], k, v: [T, kv_heads * head_dim]. q has the score's scale in it.
template <GradientBackend B>
struct TextAttention {
  std::size_t heads, kv_heads, head_dim, window;
  std::span<const std::size_t> text_begins;  ///< of each token: where its text begins. Ascending
  const AttentionGradientWorkspace& workspace;
  Rows q, k, v, out;

  void forward(const Context& context) const {
    parallel_for(context, heads * tiles(), 1, [&](std::size_t begin, std::size_t end, std::size_t task) {
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t h = i / tiles(), first = i % tiles() * attention_tile, count = tile_size(first);
        const Rows p = workspace.scores.slice(task * attention_tile, count);
        softmax_tile(h, first, p);
        const Rows o = head(out, h).slice(first, count);
        clear(o);
        const std::size_t from = first_seen(first);
        B::gemm(Strided{p.data + from, p.stride, 1}, Strided{kv_head(v, h).row(from), v.stride, 1}, count, head_dim,
                first + count - from, o.data, o.stride);
      }
    });
  }

  /// dq becomes q's gradient; dk and dv get k's and v's added. All of their shapes.
  void backward(const Context& context, Rows dout, Rows dq, Rows dk, Rows dv) const {
    for (std::size_t h = 0; h < heads; ++h) {
      const Rows p = workspace.weights.slice(0, q.rows).columns(0, q.rows),
                 ds = workspace.dscores.slice(0, q.rows).columns(0, q.rows);
      const Rows d = head(dout, h), o = head(out, h);
      parallel_for(context, tiles(), 1, [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t i = begin; i < end; ++i) backward_tile(h, i * attention_tile, d, o, p, ds, dq);
      });
      parallel_for(context, tiles(), 1, [&](std::size_t begin, std::size_t end, std::size_t) {
        for (std::size_t i = begin; i < end; ++i) {
          const std::size_t first = i * attention_tile, count = tile_size(first);
          const std::size_t queries = last_seeing(first + count - 1) + 1 - first;  // those that see any of these keys
          const Rows dk_tile = kv_head(dk, h).slice(first, count), dv_tile = kv_head(dv, h).slice(first, count);
          B::gemm({ds.row(first) + first, 1, ds.stride}, Strided{head(q, h).row(first), q.stride, 1}, count, head_dim,
                  queries, dk_tile.data, dk_tile.stride);
          B::gemm({p.row(first) + first, 1, p.stride}, Strided{d.row(first), d.stride, 1}, count, head_dim, queries,
                  dv_tile.data, dv_tile.stride);
        }
      });
    }
  }

 private:
  std::size_t tiles() const { return (q.rows + attention_tile - 1) / attention_tile; }
  std::size_t tile_size(std::size_t first) const { return (std::min)(attention_tile, q.rows - first); }
  Rows head(Rows all, std::size_t h) const { return all.columns(h * head_dim, head_dim); }
  Rows kv_head(Rows all, std::size_t h) const { return head(all, h / (heads / kv_heads)); }

  /// Neither goes back as t grows.
  std::size_t first_seen(std::size_t t) const { return (std::max)(text_begins[t], t + 1 - (std::min)(t + 1, window)); }
  std::size_t last_seeing(std::size_t key) const {
    std::size_t low = key, high = q.rows;  // low sees the key, high does not
    while (high - low > 1) {
      const std::size_t middle = low + (high - low) / 2;
      (first_seen(middle) <= key ? low : high) = middle;
    }
    return low;
  }

  static void clear(Rows rows) {
    for (std::size_t t = 0; t < rows.rows; ++t) std::fill_n(rows.row(t), rows.cols, 0.0f);
  }

  /// p[i, j] for tokens first + i and the positions j from first_seen(first) on; 0 where a token does not see one.
  void softmax_tile(std::size_t h, std::size_t first, Rows p) const {
    const std::size_t from = first_seen(first), to = first + p.rows;
    clear(p.columns(from, to - from));
    B::gemm(Strided{head(q, h).row(first), q.stride, 1}, Strided{kv_head(k, h).row(from), 1, k.stride}, p.rows,
            to - from, head_dim, p.data + from, p.stride);
    for (std::size_t i = 0; i < p.rows; ++i) {
      const std::size_t begin = first_seen(first + i), end = first + i + 1;
      const ExpSum sum = B::exp_sum(end - begin, p.row(i) + begin);
      B::scale(1 / sum.sum, end - begin, p.row(i) + begin);
      std::fill(p.row(i) + from, p.row(i) + begin, 0.0f);
      std::fill(p.row(i) + end, p.row(i) + to, 0.0f);
    }
  }

  /// The rows of p and ds, [T, T], for a tile of queries, and their dq.
  void backward_tile(std::size_t h, std::size_t first, Rows d, Rows o, Rows p, Rows ds, Rows dq) const {
    const std::size_t count = tile_size(first), from = first_seen(first), to = first + count;
    const Rows p_tile = p.slice(first, count), ds_tile = ds.slice(first, count);
    clear(p_tile);
    clear(ds_tile);
    softmax_tile(h, first, p_tile);
    B::gemm(Strided{d.row(first), d.stride, 1}, Strided{kv_head(v, h).row(from), 1, v.stride}, count, to - from,
            head_dim, ds_tile.data + from, ds_tile.stride);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t t = first + i;
      float delta = 0;
      B::matmul(const_cast<const float*>(d.row(t)), d.stride, 1, head_dim, const_cast<const float*>(o.row(t)), o.stride,
                1, &delta, 1);
      // Where p is 0 the gradient is, too.
      B::softmax_backward(to - from, const_cast<const float*>(p_tile.row(i)) + from, delta, ds_tile.row(i) + from);
    }
    const Rows dq_tile = head(dq, h).slice(first, count);
    clear(dq_tile);
    B::gemm({ds_tile.data + from, ds_tile.stride, 1}, Strided{kv_head(k, h).row(from), k.stride, 1}, count, head_dim,
            to - from, dq_tile.data, dq_tile.stride);
  }
};

}  // namespace ple::inline PLE_ABI
