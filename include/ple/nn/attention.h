// SPDX-License-Identifier: Apache-2.0
// Grouped-query attention with normalised queries and keys.
#pragma once

#include <algorithm>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/nn/cached_attention.h"
#include "ple/nn/kv_cache.h"
#include "ple/nn/linear.h"
#include "ple/nn/positions.h"
#include "ple/nn/rms_norm.h"
#include "ple/nn/rope.h"

namespace ple::inline PLE_ABI {

/// For one chunk of T tokens.
struct AttentionWorkspace {
  Rows queries;   ///< [T, heads * head_dim]
  Rows keys;      ///< [T, kv_heads * head_dim]
  Rows values;    ///< [T, kv_heads * head_dim]
  Rows attended;  ///< [T, heads * head_dim]
  CachedAttentionWorkspace cached;
};

/// y = Wo softmax(s q K^T) V with q = rope(query_norm(Wq x)), k = rope(key_norm(Wk x)), v = norm(Wv x). Norms are per
/// head. Without a key projection, K and V are another layer's. Without a value projection, v = norm(Wk x).
template <class T, Backend B>
struct Attention {
  std::size_t head_dim = 0, heads = 0, kv_heads = 0;
  std::size_t window = 0;  ///< positions a token sees, itself included
  std::size_t ahead = 0;   ///< and positions after it: an encoder's, whose passes hold whole texts
  bool owns_kv = true;     ///< false: K and V come from the cache of an earlier layer
  bool value_is_key = false;
  bool has_value_norm = true;  ///< false: v = Wv x
  float score_scale = 1;       ///< s
  Linear<T, B> query, key, value, output;
  RmsNorm<B> query_norm, key_norm;

  /// x, y: [T, d]. positions and angles are those of x's rows.
  void operator()(const Context& context, const Positions& positions, const Angles& angles,
                  const AttentionWorkspace& workspace, Rows x, Rows y) const {
    const Rows q = workspace.queries.slice(0, x.rows).columns(0, heads * head_dim);
    const Rows attended = workspace.attended.slice(0, x.rows).columns(0, heads * head_dim);
    const Rows k = workspace.keys.slice(0, x.rows).columns(0, kv_heads * head_dim);
    const Rows v = workspace.values.slice(0, x.rows).columns(0, kv_heads * head_dim);
    const Product<T, B> projections[] = {{query, q}, {key, k}, {value, v}};
    multiply<B, T>(context, x, std::span(projections, !owns_kv ? 1 : value_is_key ? 2 : 3));
    for_each_row(context, x.rows, q.cols, [&](std::size_t t) {
      query_norm.row(q.row(t), q.cols, q.row(t));
      rope<B>(angles, t, head_dim, q.row(t), q.cols);
      if (score_scale != 1) B::scale(score_scale, q.cols, q.row(t));
    });
    if (owns_kv) append(context, positions, angles, k, v);
    const auto attention_of = [&](std::size_t t, std::size_t count) {
      return CachedAttention<B>{heads,
                                kv_heads,
                                head_dim,
                                window,
                                positions.cache(t),
                                workspace.cached,
                                positions.position(t),
                                q.slice(t, count),
                                attended.slice(t, count),
                                ahead};
    };
    if (positions.batched() && ahead > 0) {
      for (std::size_t t = 0, end = 0; t < x.rows; t = end) {  // text by text: each has a cache
        while (end < x.rows && &positions.cache(end) == &positions.cache(t)) ++end;
        attention_of(t, end - t)(context);
      }
    } else if (positions.batched()) {
      parallel_for(context, x.rows * kv_heads, 1, [&](std::size_t begin, std::size_t end, std::size_t task) {
        for (std::size_t i = begin; i < end; ++i) attention_of(i / kv_heads, 1).first_token(task, i % kv_heads);
      });
    } else {
      attention_of(0, x.rows)(context);
    }
    output(context, attended, y);
  }

 private:
  /// Makes K and V of the products k and v, and writes them to the caches.
  void append(const Context& context, const Positions& positions, const Angles& angles, Rows k, Rows v) const {
    for_each_row(context, k.rows, k.cols, [&](std::size_t t) {
      if (value_is_key) std::copy_n(k.row(t), k.cols, v.row(t));
      key_norm.row(k.row(t), k.cols, k.row(t));
      rope<B>(angles, t, head_dim, k.row(t), k.cols);
      for (std::size_t h = 0; h < kv_heads; ++h) {
        float* values = v.row(t) + h * head_dim;
        if (has_value_norm) B::rms_norm(values, nullptr, head_dim, key_norm.epsilon, values);
        positions.cache(t).write(h, positions.position(t), k.row(t) + h * head_dim, values);
      }
    });
  }
};

}  // namespace ple::inline PLE_ABI
