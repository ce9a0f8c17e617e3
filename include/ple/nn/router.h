// SPDX-License-Identifier: Apache-2.0
// Which experts of a layer a token goes to. transformers: Gemma4TextRouter.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/nn/linear.h"
#include "ple/nn/rms_norm.h"

namespace ple::inline PLE_ABI {

/// One of a token's experts, and the weight of its result.
struct Choice {
  std::size_t expert;
  float weight;
};

/// A token that goes to an expert.
struct RoutedToken {
  std::size_t token;
  float weight;
};

/// For one chunk of T tokens: workspace, and where the tokens go.
struct RouterWorkspace {
  Rows normed;                      ///< [T, d]
  Rows scores;                      ///< [T, experts]
  std::span<Choice> choices;        ///< [T * top_k]: by token
  std::span<RoutedToken> routed;    ///< [T * top_k]: the same by expert, and by token within one
  std::span<std::size_t> begin_of;  ///< [experts + 1]: an expert's first in `routed`

  std::span<const RoutedToken> routed_to(std::size_t expert) const {
    return routed.subspan(begin_of[expert], begin_of[expert + 1] - begin_of[expert]);
  }
};

/// p = softmax(Wproj (norm(x) / sqrt(d))) over all experts; a token goes to the top_k with the largest p, of equal ones
/// the first. Their weights are p / (sum of the top_k's p) * expert_scale.
template <class T, Backend B>
struct Router {
  std::size_t top_k = 0;
  RmsNorm<B> norm;                  ///< [d]; its weight is the checkpoint's router.scale
  Linear<T, B> projection;          ///< [experts, d]
  std::vector<float> expert_scale;  ///< [experts]

  Router() = default;
  Router(std::size_t d, std::size_t experts, std::size_t k, float epsilon)
      : top_k(k), norm(d, epsilon), projection(experts, d), expert_scale(experts, 1.0f) {}

  /// x: [T, d]
  void operator()(const Context& context, const RouterWorkspace& w, Rows x) const {
    const Rows normed = w.normed.slice(0, x.rows), scores = w.scores.slice(0, x.rows);
    const float per_root_d = 1.0f / std::sqrt(static_cast<float>(x.cols));
    for_each_row(context, x.rows, x.cols, [&](std::size_t t) {
      norm.row(x.row(t), x.cols, normed.row(t));
      B::scale(per_root_d, x.cols, normed.row(t));
    });
    projection(context, normed, scores);
    for_each_row(context, x.rows, scores.cols * top_k,
                 [&](std::size_t t) { choose(scores.row(t), w.choices.subspan(t * top_k, top_k)); });
    group(w, x.rows);
  }

 private:
  /// scores: [experts], overwritten.
  void choose(float* scores, std::span<Choice> chosen) const {
    B::exp_sum(expert_scale.size(), scores);  // softmax but for the sum of all, by which weights need no division
    float sum = 0;
    for (Choice& choice : chosen) {
      std::size_t best = 0;
      for (std::size_t e = 1; e < expert_scale.size(); ++e) {
        if (scores[e] > scores[best] || scores[best] < 0) best = e;  // no expert twice, even if scores are NaN
      }
      choice = {best, scores[best]};
      sum += scores[best];
      scores[best] = -1;
    }
    for (Choice& choice : chosen) choice.weight = choice.weight / sum * expert_scale[choice.expert];
  }

  /// Counting sort of the choices by expert.
  void group(const RouterWorkspace& w, std::size_t tokens) const {
    const std::span<const Choice> choices = w.choices.first(tokens * top_k);
    std::fill(w.begin_of.begin(), w.begin_of.end(), std::size_t{0});
    for (const Choice& choice : choices) ++w.begin_of[choice.expert];
    std::size_t end = 0;
    for (std::size_t& begin : w.begin_of) begin = end += begin;  // its end, from which we count down
    for (std::size_t i = choices.size(); i-- > 0;)
      w.routed[--w.begin_of[choices[i].expert]] = {i / top_k, choices[i].weight};
  }
};

}  // namespace ple::inline PLE_ABI
