// SPDX-License-Identifier: Apache-2.0
#include "ple/run/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
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
  constexpr double out = -std::numeric_limits<double>::infinity();
  std::map<std::vector<Token>, std::set<Token>> next;  // by what stands in front
  const std::size_t n = o.no_repeat_ngram_size;
  for (std::size_t i = 0; n > 0 && i + n <= history.size(); ++i) {
    const auto begin = history.begin() + static_cast<std::ptrdiff_t>(i);
    next[std::vector<Token>(begin, begin + static_cast<std::ptrdiff_t>(n - 1))].insert(history[i + n - 1]);
  }
  if (n > 0 && history.size() >= n) {
    for (const Token t : next[std::vector<Token>(history.end() - static_cast<std::ptrdiff_t>(n - 1), history.end())])
      scores[static_cast<std::size_t>(t)] = out;
  }
  for (const Token t : o.suppress_tokens) scores[static_cast<std::size_t>(t)] = out;
  for (double& s : scores) s /= double(o.temperature);
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
    if (before >= double(o.top_p) && i != order[0]) scores[i] = out;
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
      {.temperature = 1, .no_repeat_ngram_size = 1, .suppress_tokens = {0, 5, 150}},
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

TEST_CASE("the rules give the bits of the reference's logits processors, and leave the tokens that it leaves") {
  std::ifstream file(PLE_TEST_DATA "/sampling/cases.jsonl");
  std::size_t cases = 0, forbidden = 0;
  for (std::string line; std::getline(file, line); ++cases) {
    const auto c = nlohmann::json::parse(line);
    CAPTURE(line);
    std::vector<float> logits;
    for (const std::int32_t bits : c["logits"]) logits.push_back(std::bit_cast<float>(bits));
    const std::vector<Token> history = c["history"];
    const auto& o = c["options"];
    SamplingOptions options{.top_k = o.value("top_k", std::size_t{0}),
                            .top_p = o.value("top_p", 1.0f),
                            .min_p = o.value("min_p", 0.0f),
                            .repetition_penalty = o.value("repetition_penalty", 1.0f),
                            .no_repeat_ngram_size = o.value("no_repeat_ngram_size", std::size_t{0}),
                            .suppress_tokens = o.value("suppress_tokens", std::vector<Token>{})};
    CHECK(Sampler(options, logits.size()).sample(logits, history) == c["greedy"].get<Token>());

    std::vector<float> scores = logits;
    penalize_repetition(logits, history, options.repetition_penalty, scores);
    forbid_repeated_ngrams(history, options.no_repeat_ngram_size, scores);
    suppress_tokens(options.suppress_tokens, scores);
    std::vector<std::int32_t> bits;
    for (const float score : scores) bits.push_back(std::bit_cast<std::int32_t>(score));
    CHECK(bits == c["scores"].get<std::vector<std::int32_t>>());
    forbidden += static_cast<std::size_t>(std::count(scores.begin(), scores.end(), -INFINITY));

    // What is drawn is kept; what is kept and not too unlikely is drawn.
    options.temperature = o.value("temperature", 1.0f);
    Sampler sampler(options, logits.size());
    std::set<Token> drawn;
    for (int i = 0; i < 3000; ++i) drawn.insert(sampler.sample(logits, history));
    const std::vector<Token> kept = c["kept"];
    CHECK(std::includes(kept.begin(), kept.end(), drawn.begin(), drawn.end()));
    const std::vector<double> p = distribution(logits, options, history);
    for (const Token token : kept) {
      if (p[static_cast<std::size_t>(token)] > 0.01) CHECK(drawn.count(token) == 1);
    }
  }
  CHECK(cases == 50);
  CHECK(forbidden > 50);
}

TEST_CASE("soft tokens in the history are no tokens") {
  const std::vector<float> logits = {1, 3, 2};
  const std::vector<Token> history = {1, -1, -1, 2, -1, -1};
  CHECK(Sampler({.repetition_penalty = 9}, 3).sample(logits, history) == 0);
  CHECK(Sampler({.no_repeat_ngram_size = 3}, 3).sample(logits, history) == 1);  // -1, -1, 2 was there
  CHECK(Sampler({.no_repeat_ngram_size = 3}, 3).sample({{1, 2, 3}}, history) == 1);
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
  Sampler sampler({.temperature = 1,
                   .top_k = 1000,
                   .top_p = 0.9f,
                   .min_p = 0.01f,
                   .repetition_penalty = 1.1f,
                   .no_repeat_ngram_size = 2,
                   .suppress_tokens = {4, 5}},
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
  CHECK(message([] { Sampler({.top_p = -1}, 3); }) == "SamplingOptions::top_p is -1, expected 0 to 1");
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
        }) == "Sampler: token 3 in the history, expected 0 to 2");
  CHECK(message([] {
          Sampler({.suppress_tokens = {1, -1}}, 3);
        }) == "Sampler: token -1 in SamplingOptions::suppress_tokens, expected 0 to 2");
  Sampler nothing({.suppress_tokens = {0, 1, 2}}, 3);
  CHECK(message([&] { nothing.sample(std::vector<float>{1, 2, 3}); }) == "Sampler: every token is forbidden");
}

}  // namespace ple::sampler_test
