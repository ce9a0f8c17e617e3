// SPDX-License-Identifier: Apache-2.0
// How well a model predicts a text, and how far its predictions are from another model's.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/memory.h"
#include "ple/core/token.h"
#include "ple/model/language_model.h"
#include "ple/run/session.h"

namespace ple::inline PLE_ABI {

/// Means over every token of a text but the first, in nats.
struct Evaluation {
  double loss = 0;  ///< -log P(token | tokens before it)
  double kl = 0;    ///< KL(reference || model) = sum over the vocabulary of P_ref (log P_ref - log P_model)
};

/// log(sum_i exp(x[i])), in f64.
inline double log_sum_exp(std::span<const float> x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float value : x) sum += std::exp(static_cast<double>(value) - largest);
  return largest + std::log(sum);
}

/// A model's predictions along a text, kept to compare other models with: (tokens - 1) * vocab_size floats.
class ReferencePredictions {
 public:
  /// Errors: ErrorCode::argument for fewer than two tokens, more than the model has positions, or a token outside the
  /// vocabulary; what computing throws.
  ReferencePredictions(const LanguageModel& model, std::span<const Token> tokens, Executor& executor)
      : tokens_(tokens.begin(), tokens.end()), vocab_size_(model.vocab_size()) {
    if (tokens.size() < 2) {
      fail(ErrorCode::argument, "ReferencePredictions: ", tokens.size(), " tokens, expected 2 or more");
    }
    for (const Token token : tokens) model.check_token(token, "ReferencePredictions");
    const RowsRequest requests[] = {{&logits_, tokens.size() - 1, vocab_size_}};
    memory_ = allocate_rows(requests);
    log_sums_.resize(logits_.rows);
    std::vector<double> losses(logits_.rows);
    for_each_prediction(model, executor, [&](std::size_t t, std::span<const float> logits) {
      std::copy(logits.begin(), logits.end(), logits_.row(t));
      log_sums_[t] = log_sum_exp(logits);
      losses[t] = log_sums_[t] - target(logits, t);
    });
    loss_ = mean(losses);
  }

  std::span<const Token> tokens() const { return tokens_; }
  double loss() const { return loss_; }  ///< the reference's own

  /// Another model on the same text. Errors: ErrorCode::argument for another vocabulary; what computing throws.
  Evaluation evaluate(const LanguageModel& model, Executor& executor) const {
    if (model.vocab_size() != vocab_size_) {
      fail(ErrorCode::argument, "ReferencePredictions: a model with a vocabulary of ", model.vocab_size(),
           ", expected ", vocab_size_);
    }
    std::vector<double> losses(logits_.rows), divergences(logits_.rows);
    for_each_prediction(model, executor, [&](std::size_t t, std::span<const float> logits) {
      const double log_sum = log_sum_exp(logits);
      losses[t] = log_sum - target(logits, t);
      for (std::size_t i = 0; i < vocab_size_; ++i) {
        const double log_p = logits_.row(t)[i] - log_sums_[t], log_q = logits[i] - log_sum;
        if (const double p = std::exp(log_p); p > 0) divergences[t] += p * (log_p - log_q);
      }
    });
    return {mean(losses), mean(divergences)};
  }

 private:
  static constexpr std::size_t chunk = 64;  ///< positions computed at once: 64 MiB of logits for a vocabulary of 262144

  double target(std::span<const float> logits, std::size_t t) const {
    return logits[static_cast<std::size_t>(tokens_[t + 1])];
  }

  static double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  }

  /// Calls each(t, logits) with the logits that follow tokens_[t], in any order and several at a time.
  template <class F>
  void for_each_prediction(const LanguageModel& model, Executor& executor, F&& each) const {
    const std::size_t count = tokens_.size() - 1;
    Session session(model, {.context = count, .chunk = chunk, .executor = &executor});
    for (std::size_t done = 0; done < count; done += chunk) {
      const std::size_t n = (std::min)(chunk, count - done);
      const Rows logits = session.read_logits(std::span(tokens_).subspan(done, n));
      auto task = [&](std::size_t t) { each(done + t, std::span<const float>(logits.row(t), vocab_size_)); };
      executor.run(n, task);
    }
  }

  std::vector<Token> tokens_;
  std::size_t vocab_size_;
  Rows logits_;  // [tokens - 1, vocab_size]
  AlignedVector<float> memory_;
  std::vector<double> log_sums_;
  double loss_ = 0;
};

}  // namespace ple::inline PLE_ABI
