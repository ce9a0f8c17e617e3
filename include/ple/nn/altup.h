// SPDX-License-Identifier: Apache-2.0
// Alternating updates (AltUp, Baykal et al. 2023): of n streams a layer predicts all, computes one, corrects all.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "ple/core/config.h"
#include "ple/nn/linear.h"
#include "ple/nn/rms_norm.h"

namespace ple::inline PLE_ABI {

/// For one chunk of T tokens.
struct AltUpWorkspace {
  Rows normed;        ///< [T, d]
  Rows modalities;    ///< [T, n]
  Rows coefficients;  ///< [T, n * n]
};

/// h: [T, n * d]. Stream j of a token, H[j], is columns [j * d, (j + 1) * d).
template <class T, Backend B>
struct AltUp {
  std::size_t streams = 0, active = 0;
  RmsNorm<B> router_norm;   ///< [d]
  Linear<T, B> router;      ///< [n, d]
  Linear<T, B> prediction;  ///< [n * n, n]
  Linear<T, B> correction;  ///< [n, n]

  AltUp() = default;
  AltUp(std::size_t d, std::size_t n, std::size_t a, float epsilon)
      : streams(n), active(a), router_norm(d, epsilon), router(n, d), prediction(n * n, n), correction(n, n) {}

  Rows stream(Rows h, std::size_t j) const { return h.columns(j * (h.cols / streams), h.cols / streams); }

  /// P[j] = H[j] + sum_i C[j, i] H[i] with C = Wprediction modalities(H[active])
  void predict(const Context& context, const AltUpWorkspace& all, Rows h, Rows p) const {
    const std::size_t d = h.cols / streams;
    const Rows c = all.coefficients.slice(0, h.rows).columns(0, streams * streams);
    prediction(context, modalities(context, all, stream(h, active)), c);
    for_each_row(context, h.rows, h.cols * streams, [&](std::size_t t) {
      std::copy_n(h.row(t), h.cols, p.row(t));
      for (std::size_t j = 0; j < streams; ++j)
        B::weighted_sum(h.row(t), d, streams, d, c.row(t) + j * streams, streams, 1, p.row(t) + j * d, d);
    });
  }

  /// H[j] = P[j] + c[j] (y - P[active]) with c = Wcorrection modalities(y) + 1. y becomes y - P[active].
  void correct(const Context& context, const AltUpWorkspace& all, Rows p, Rows y, Rows h) const {
    const Rows c = all.coefficients.slice(0, h.rows).columns(0, streams);
    correction(context, modalities(context, all, y), c);
    for_each_row(context, h.rows, h.cols * 2, [&](std::size_t t) {
      const float minus_1 = -1;
      B::weighted_sum(stream(p, active).row(t), y.cols, 1, y.cols, &minus_1, 1, 1, y.row(t), y.cols);
      std::copy_n(p.row(t), h.cols, h.row(t));
      for (std::size_t j = 0; j < streams; ++j) {
        const float factor = c.row(t)[j] + 1;
        B::weighted_sum(y.row(t), y.cols, 1, y.cols, &factor, 1, 1, h.row(t) + j * y.cols, y.cols);
      }
    });
  }

 private:
  /// tanh(Wrouter (router_norm(x) / d)), [T, n]
  Rows modalities(const Context& context, const AltUpWorkspace& all, Rows x) const {
    const Rows normed = all.normed.slice(0, x.rows), m = all.modalities.slice(0, x.rows);
    for_each_row(context, x.rows, x.cols, [&](std::size_t t) {
      router_norm.row(x.row(t), x.cols, normed.row(t));
      B::scale(1.0f / static_cast<float>(x.cols), x.cols, normed.row(t));
    });
    router(context, normed, m);
    for (std::size_t t = 0; t < x.rows; ++t) B::softcap(1.0f, m.cols, m.row(t));
    return m;
  }
};

/// Makes n streams of a token's embedding before the first layer, and one vector of the streams after the last.
template <class T, Backend B>
struct AltUpProjections {
  std::vector<Linear<T, B>> expansion;  ///< [d, d] each, for streams 1, 2, ...
  std::vector<Linear<T, B>> collapse;   ///< the same

  AltUpProjections() = default;
  AltUpProjections(std::size_t d, std::size_t streams)
      : expansion(streams - 1, Linear<T, B>(d, d)), collapse(streams - 1, Linear<T, B>(d, d)) {}

  std::size_t streams() const { return expansion.size() + 1; }

  /// H[j] = Wexpansion H[0], scaled to the RMS of H[0], the embedding. h: [T, n * d]
  void expand(const Context& context, Rows h) const {
    const std::size_t d = h.cols / streams();
    for (std::size_t j = 1; j < streams(); ++j) expansion[j - 1](context, h.columns(0, d), h.columns(j * d, d));
    for_each_row(context, h.rows, h.cols, [&](std::size_t t) {
      for (std::size_t j = 1; j < streams(); ++j) make_as_long(h.row(t), d, h.row(t) + j * d);
    });
  }

  /// H[0] = the mean of H[0] and all Wcollapse H[j], each scaled to the RMS of H[0]. h, workspace: [T, n * d]
  void unembed(const Context& context, Rows h, Rows workspace) const {
    const std::size_t d = h.cols / streams();
    for (std::size_t j = 1; j < streams(); ++j)
      collapse[j - 1](context, h.columns(j * d, d), workspace.columns(j * d, d));
    for_each_row(context, h.rows, h.cols, [&](std::size_t t) {
      for (std::size_t j = 1; j < streams(); ++j) make_as_long(h.row(t), d, workspace.row(t) + j * d);
      for (std::size_t j = 1; j < streams(); ++j) B::add(workspace.row(t) + j * d, d, h.row(t));
      B::scale(1.0f / static_cast<float>(streams()), d, h.row(t));
    });
  }

 private:
  /// y *= rms(x) / rms(y). The lower bound of mean(y^2) is the reference's.
  static void make_as_long(const float* x, std::size_t d, float* y) {
    B::scale(std::sqrt(mean_square(x, d)) / std::sqrt((std::max)(mean_square(y, d), 1e-5f)), d, y);
  }
  static float mean_square(const float* x, std::size_t d) {
    float sum = 0;
    B::matmul(x, d, 1, d, x, d, 1, &sum, 1);
    return sum / static_cast<float>(d);
  }
};

}  // namespace ple::inline PLE_ABI
