// SPDX-License-Identifier: Apache-2.0
#include "ple/run/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "../allocations.h"

namespace ple::sampler_test {

namespace {

std::vector<float> some_logits(std::size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> logits(n);
  for (float& l : logits) l = normal(generator);
  return logits;
}

/// The distribution by definition: transformers' processors in their order, each over the whole vocabulary, in f64.
std::vector<double> distribution(const std::vector<float>& logits, const SamplingOptions& o,
                                 const std::vector<Token>& history) {
  std::vector<double> scores(logits.begin(), logits.end());
  for (const Token t : std::set<Token>(history.begin(), history.end())) {
    double& s = scores[static_cast<std::size_t>(t)];
    s = s > 0 ? s / double(o.repetition_penalty) : s * double(o.repetition_penalty);
  }
  for (double& s : scores) s /= double(o.temperature);
  constexpr double out = -std::numeric_limits<double>::infinity();
  const auto probabilities = [&] {
    const double most = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    std::vector<double> p;
    for (const double s : scores) sum += p.emplace_back(std::exp(s - most));
    for (double& x : p) x /= sum;
    return p;
  };
  if (o.top_k > 0 && o.top_k < scores.size()) {
    std::vector<double> sorted = scores;
    std::sort(sorted.rbegin(), sorted.rend());
    for (double& s : scores) s = s < sorted[o.top_k - 1] ? out : s;
  }
  std::vector<std::size_t> order(scores.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return scores[a] > scores[b]; });
  std::vector<double> p = probabilities();
  double before = 0;
  for (const std::size_t i : order) {
    if (before >= double(o.top_p)) scores[i] = out;
    before += p[i];
  }
  p = probabilities();
  const double most = *std::max_element(p.begin(), p.end());
  for (std::size_t i = 0; i < p.size(); ++i) scores[i] = p[i] < double(o.min_p) * most ? out : scores[i];
  return probabilities();
}

}  // namespace

TEST_CASE("temperature 0 takes the likeliest token, the lower of equals") {
  Sampler sampler({}, 5);
  CHECK(sampler.sample(std::vector<float>{1, 3, 2, 3, 0}) == 1);
  CHECK(sampler.sample(std::vector<float>{-1e30f, -3e38f, -1e30f, -1e31f, -2e30f}) == 0);
  Sampler penalized({.repetition_penalty = 2}, 3);
  CHECK(penalized.sample(std::vector<float>{3, 2, -1}, std::vector<Token>{0, 0}) == 1);
  CHECK(penalized.sample(std::vector<float>{-3, -2, -4}, std::vector<Token>{1}) == 0);
}

TEST_CASE("tokens come as often as their probabilities say, and never when they are cut off") {
  const std::vector<float> logits = some_logits(200, 1);
  const std::vector<Token> history = {3, 7, 7, 100};
  const SamplingOptions all[] = {
      {.temperature = 1},
      {.temperature = 0.7f, .top_k = 10},
      {.temperature = 1.5f, .top_p = 0.6f},
      {.temperature = 1, .min_p = 0.2f},
      {.temperature = 1, .repetition_penalty = 1.5f},
      {.temperature = 1.2f, .top_k = 50, .top_p = 0.8f, .min_p = 0.05f, .repetition_penalty = 1.2f, .seed = 9}};
  for (const SamplingOptions& options : all) {
    const std::vector<double> p = distribution(logits, options, history);
    Sampler sampler(options, logits.size());
    constexpr int draws = 20000;
    std::vector<int> counts(logits.size());
    for (int i = 0; i < draws; ++i) ++counts[static_cast<std::size_t>(sampler.sample(logits, history))];
    // Pearson's statistic over the tokens expected at least 5 times; its mean is their number, its variance twice that.
    double statistic = 0, cells = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      if (p[i] == 0) CHECK(counts[i] == 0);
      if (p[i] * draws < 5) continue;
      statistic += std::pow(counts[i] - p[i] * draws, 2) / (p[i] * draws);
      cells += 1;
    }
    CAPTURE(statistic);
    CAPTURE(cells);
    CHECK(cells >= 3);
    CHECK(std::abs(statistic - cells) <= 5 * std::sqrt(2 * cells));
  }
}

TEST_CASE("equal seeds draw equal tokens, other seeds others") {
  const std::vector<float> logits = some_logits(1000, 2);
  const auto draw = [&](std::uint64_t seed) {
    Sampler sampler({.temperature = 1, .top_p = 0.95f, .seed = seed}, logits.size());
    std::vector<Token> tokens;
    for (int i = 0; i < 50; ++i) tokens.push_back(sampler.sample(logits));
    return tokens;
  };
  CHECK(draw(1) == draw(1));
  CHECK(draw(1) != draw(2));
}

TEST_CASE("sampling from a full vocabulary allocates nothing") {
  const std::vector<float> logits = some_logits(262144, 3);
  const std::vector<Token> history = {1, 2, 3};
  Sampler sampler({.temperature = 1, .top_k = 1000, .top_p = 0.9f, .min_p = 0.01f, .repetition_penalty = 1.1f},
                  logits.size());
  const std::size_t before = ple::testing::allocations();
  for (int i = 0; i < 5; ++i) sampler.sample(logits, history);
  CHECK(ple::testing::allocations() == before);
}

TEST_CASE("options and logits that cannot be are refused") {
  const auto message = [](auto&& f) {
    try {
      f();
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::argument);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(message([] { Sampler({.temperature = -1}, 3); }) == "SamplingOptions::temperature is -1, expected 0 or more");
  CHECK(message([] { Sampler({.temperature = NAN}, 3); }).starts_with("SamplingOptions::temperature is nan"));
  CHECK(message([] { Sampler({.top_p = 0}, 3); }) == "SamplingOptions::top_p is 0, expected more than 0, at most 1");
  CHECK(message([] { Sampler({.min_p = 2}, 3); }) == "SamplingOptions::min_p is 2, expected 0 to 1");
  CHECK(message([] { Sampler({.repetition_penalty = 0}, 3); }) ==
        "SamplingOptions::repetition_penalty is 0, expected more than 0");
  Sampler sampler({.temperature = 1, .repetition_penalty = 2}, 3);
  CHECK(message([&] { sampler.sample(std::vector<float>{1, 2}); }) == "Sampler: 2 logits, expected 3");
  CHECK(message([&] {
          sampler.sample(std::vector<float>{1, NAN, 2});
        }) == "Sampler: the logit of token 1 is not a number");
  CHECK(message([&] {
          sampler.sample(std::vector<float>{1, 2, 3}, std::vector<Token>{3});
        }).find("token 3 in the history") != std::string::npos);
}

}  // namespace ple::sampler_test
