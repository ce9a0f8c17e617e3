// SPDX-License-Identifier: Apache-2.0
// From logits to a token.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/model/sampling_options.h"
#include "ple/run/sampling_rules.h"

namespace ple::inline PLE_ABI {

/// Draws tokens. Allocates only when it is made. Of equal logits the lower token comes first.
class Sampler {
 public:
  /// Errors: ErrorCode::argument for an option out of its range.
  Sampler(const SamplingOptions& options, std::size_t vocab_size) : options_(options), generator_(options.seed) {
    const auto check = [](const char* name, float value, bool good, const char* expected) {
      if (!good) fail(ErrorCode::argument, "SamplingOptions::", name, " is ", value, ", expected ", expected);
    };
    check("temperature", options.temperature, options.temperature >= 0 && std::isfinite(options.temperature),
          "0 or more");
    check("top_p", options.top_p, options.top_p >= 0 && options.top_p <= 1, "0 to 1");
    check("min_p", options.min_p, options.min_p >= 0 && options.min_p <= 1, "0 to 1");
    check("repetition_penalty", options.repetition_penalty,
          options.repetition_penalty > 0 && std::isfinite(options.repetition_penalty), "more than 0");
    scores_.resize(vocab_size);
    suppress_tokens(options_.suppress_tokens, scores_);  // checks them
    candidates_.reserve(vocab_size);
    sorted_.reserve(vocab_size);
  }

  /// logits: [vocab_size]. history: tokens for the repetition penalty and the n-grams, soft ones skipped. Errors:
  /// ErrorCode::argument for logits of another size, with a NaN (broken weights) or all -infinity (all forbidden).
  Token sample(std::span<const float> logits, std::span<const Token> history = {}) {
    if (logits.size() != scores_.size())
      fail(ErrorCode::argument, "Sampler: ", logits.size(), " logits, expected ", scores_.size());
    std::copy(logits.begin(), logits.end(), scores_.begin());
    if (options_.repetition_penalty != 1) penalize_repetition(logits, history, options_.repetition_penalty, scores_);
    forbid_repeated_ngrams(history, options_.no_repeat_ngram_size, scores_);
    suppress_tokens(options_.suppress_tokens, scores_);
    const std::size_t best = likeliest();
    if (options_.temperature == 0) return static_cast<Token>(best);
    weigh(best);
    keep_top_k();
    keep_top_p();
    std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < options_.min_p; });
    return draw();
  }

 private:
  struct Candidate {
    float weight;  // probability divided by the likeliest token's
    Token token;
  };
  static bool before(const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  }

  std::size_t likeliest() const {
    std::size_t best = 0;
    for (std::size_t i = 0; i < scores_.size(); ++i) {
      if (std::isnan(scores_[i])) fail(ErrorCode::argument, "Sampler: the logit of token ", i, " is not a number");
      if (scores_[i] > scores_[best]) best = i;
    }
    if (scores_[best] == detail::forbidden) fail(ErrorCode::argument, "Sampler: every token is forbidden");
    return best;
  }

  /// All tokens with a weight above 0, in token order.
  void weigh(std::size_t best) {
    candidates_.clear();
    for (std::size_t i = 0; i < scores_.size(); ++i) {
      const float weight = i == best ? 1.0f : std::exp((scores_[i] - scores_[best]) / options_.temperature);
      if (weight > 0) candidates_.push_back({weight, static_cast<Token>(i)});
    }
  }

  /// Tokens as likely as the k-th stay too, as in the reference.
  void keep_top_k() {
    if (options_.top_k == 0 || options_.top_k >= candidates_.size()) return;
    sorted_.assign(candidates_.begin(), candidates_.end());
    const auto kth = sorted_.begin() + static_cast<std::ptrdiff_t>(options_.top_k - 1);
    std::nth_element(sorted_.begin(), kth, sorted_.end(), before);
    std::erase_if(candidates_, [least = kth->weight](const Candidate& c) { return c.weight < least; });
  }

  /// A token stays if those before it do not reach top_p; the first always stays. Sorts no more than it must.
  void keep_top_p() {
    if (options_.top_p == 1) return;
    double total = 0, reached = 0;
    for (const Candidate& c : candidates_) total += double(c.weight);
    std::size_t kept = 0;
    for (std::size_t sorted = 0; kept == sorted && sorted < candidates_.size();) {
      const std::size_t more = (std::min)(candidates_.size(), std::max<std::size_t>(64, sorted * 8));
      const auto first = candidates_.begin() + static_cast<std::ptrdiff_t>(sorted);
      std::partial_sort(first, candidates_.begin() + static_cast<std::ptrdiff_t>(more), candidates_.end(), before);
      sorted = more;
      while (kept < sorted && reached < double(options_.top_p) * total) reached += double(candidates_[kept++].weight);
    }
    candidates_.resize(std::max<std::size_t>(kept, 1));
  }

  Token draw() {
    double total = 0;
    for (const Candidate& c : candidates_) total += double(c.weight);
    // 53 random bits, no standard distribution: these differ between libraries.
    double point = static_cast<double>(generator_() >> 11) * 0x1p-53 * total;
    for (const Candidate& c : candidates_) {
      point -= double(c.weight);
      if (point < 0) return c.token;
    }
    return candidates_.back().token;
  }

  SamplingOptions options_;
  std::mt19937_64 generator_;
  std::vector<float> scores_;
  std::vector<Candidate> candidates_, sorted_;
};

}  // namespace ple::inline PLE_ABI
