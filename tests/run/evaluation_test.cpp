// SPDX-License-Identifier: Apache-2.0
#include "ple/run/evaluation.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "../model/random_model.h"
#include "../temporary.h"
#include "ple/convert/pack_table.h"
#include "ple/ple.h"
#include "ple/table/row_sample.h"

namespace ple::evaluation_test {

namespace {

using Model = Gemma4<Any, Simd>;
using Types = std::vector<std::optional<Dtype>>;

const std::filesystem::path folder = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";
constexpr std::size_t layers = 8;

/// 150 predictions: three chunks, the last of them short.
std::vector<Token> text() {
  std::vector<Token> tokens = {2};
  while (tokens.size() < 151) tokens.push_back(static_cast<Token>((tokens.back() * 37 + 11) % 1000));
  return tokens;
}

bool equal(const Evaluation& a, const Evaluation& b) { return a.loss == b.loss && a.kl == b.kl; }

/// Logits that were given, whatever is read: [positions, vocabulary].
class Given final : public LanguageModel {
 public:
  explicit Given(std::vector<std::vector<float>> logits) : logits_(std::move(logits)) {}
  std::size_t vocab_size() const override { return logits_[0].size(); }
  std::size_t max_position_embeddings() const override { return logits_.size(); }
  std::size_t hidden_size() const override { return 1; }
  std::unique_ptr<ModelState> make_state(const StateOptions& options) const override {
    struct State final : ModelState {
      using ModelState::ModelState;
      std::size_t kv_cache_bytes() const override { return 0; }
    };
    return std::make_unique<State>(options);
  }
  void forward(ModelState& state, Executor&, std::span<const Token> tokens, Rows logits, Rows) const override {
    for (std::size_t t = 0; t < tokens.size(); ++t, ++state.position) {
      std::copy(logits_[state.position].begin(), logits_[state.position].end(), logits.row(t));
    }
  }

 private:
  std::vector<std::vector<float>> logits_;
};

}  // namespace

TEST_CASE("loss and KL of distributions that can be told by hand") {
  InlineExecutor executor;
  const float ln2 = std::log(2.0f), ln3 = std::log(3.0f), minus_infinity = -std::numeric_limits<float>::infinity();
  // P = (1/4, 1/4, 1/2), then (1/2, 1/2, 0); logits are those up to a constant.
  const Given p({{5, 5, 5 + ln2}, {1, 1, minus_infinity}});
  const std::vector<Token> tokens = {0, 2, 1};
  const ReferencePredictions reference(p, tokens, executor);
  CHECK(reference.loss() == doctest::Approx(std::log(2.0)).epsilon(1e-7));  // ln2 is rounded to f32

  // Q = (1/2, 1/4, 1/4), then (1/5, 3/5, 1/5)
  const Evaluation q = reference.evaluate(Given({{ln2, 0, 0}, {0, ln3, 0}}), executor);
  const double first = 0.25 * std::log(0.5) + 0.5 * std::log(2), second = 0.5 * std::log(2.5) + 0.5 * std::log(5.0 / 6);
  CHECK(q.kl == doctest::Approx((first + second) / 2).epsilon(1e-6));
  CHECK(q.loss == doctest::Approx((std::log(4.0) + std::log(5.0 / 3)) / 2).epsilon(1e-6));

  // What the model rules out and the reference does not is infinitely far.
  CHECK(std::isinf(reference.evaluate(Given({{0, minus_infinity, 0}, {0, 0, 0}}), executor).kl));
}

TEST_CASE("a text's loss and KL are those of the session's logits, on any number of threads") {
  const Model model = Model::load(Checkpoint::open(folder)), pruned = Model::load(Checkpoint::open(folder), {Pruned{}});
  const std::vector<Token> tokens = text();
  const auto logits_of = [&](const Model& m) {
    Session session(m, {.context = 256, .chunk = 31, .threads = 1});
    std::vector<std::vector<float>> all;
    session.evaluate(
        tokens, [&](std::size_t, std::span<const float> logits) { all.emplace_back(logits.begin(), logits.end()); });
    return all;
  };
  // By another formula: probabilities first, logarithms of them afterwards.
  const auto probabilities_of = [&](const std::vector<float>& logits) {
    std::vector<long double> p;
    long double sum = 0;
    for (const float logit : logits) sum += p.emplace_back(std::exp(static_cast<long double>(logit)));
    for (long double& value : p) value /= sum;
    return p;
  };
  const auto p_logits = logits_of(model), q_logits = logits_of(pruned);
  long double loss = 0, other_loss = 0, kl = 0;
  for (std::size_t t = 0; t + 1 < tokens.size(); ++t) {
    const auto p = probabilities_of(p_logits[t]), q = probabilities_of(q_logits[t]);
    const auto target = static_cast<std::size_t>(tokens[t + 1]);
    loss -= std::log(p[target]) / 150;
    other_loss -= std::log(q[target]) / 150;
    for (std::size_t i = 0; i < p.size(); ++i) kl += p[i] * std::log(p[i] / q[i]) / 150;
  }
  REQUIRE(kl > 0.1L);
  std::vector<Evaluation> results;
  for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
    ThreadPool pool(threads);
    const ReferencePredictions reference(model, tokens, pool);
    results.push_back(reference.evaluate(pruned, pool));
    // Sums of 1024 f64 terms, the largest below 60: 1024 * 60 * 2^-53 = 7e-12.
    CHECK(std::fabs(reference.loss() - static_cast<double>(loss)) < 7e-12);
    CHECK(std::fabs(results.back().loss - static_cast<double>(other_loss)) < 7e-12);
    CHECK(std::fabs(results.back().kl - static_cast<double>(kl)) < 7e-12);
    CHECK(equal(reference.evaluate(model, pool), {reference.loss(), 0}));
  }
  CHECK(equal(results[0], results[1]));
}

TEST_CASE("a sample of rows has the effect of the whole table packed the same way, depth by depth") {
  testing::TemporaryFolder temporary;
  InlineExecutor executor;
  const Model model = Model::load(Checkpoint::open(folder));
  const std::vector<Token> tokens = text();
  const ReferencePredictions reference(model, tokens, executor);
  const RowSample<Simd> sample(model.table, tokens, executor);
  Model changed = model;
  const Types original(layers, Dtype::bf16);
  changed.table = sample.table(original);
  CHECK(equal(reference.evaluate(changed, executor), {reference.loss(), 0}));

  std::vector<Types> experiments = {Types(layers)};
  for (const std::size_t l : {std::size_t{0}, std::size_t{3}, layers - 1}) {
    for (const auto& type : {std::optional<Dtype>(), std::optional(Dtype::q8_0), std::optional(Dtype::q4_0)}) {
      experiments.push_back(original);
      experiments.back()[l] = type;
    }
  }
  experiments.push_back({Dtype::q4_0, {}, Dtype::f32, Dtype::f16, {}, Dtype::q8_0, Dtype::bf16, Dtype::q4_0});
  for (const Types& types : experiments) {
    CAPTURE(RowLayout(types, 32).text());
    pack_table(model, {.dtypes = types}, temporary / "packed", executor);
    const Model packed = Model::load(Checkpoint::open(folder, {.table = temporary / "packed"}));
    changed.table = sample.table(types);
    const Evaluation effect = reference.evaluate(changed, executor);
    CHECK(equal(effect, reference.evaluate(packed, executor)));
    CHECK(effect.kl > 0);
  }
}

TEST_CASE("texts and models that cannot be compared are refused") {
  InlineExecutor executor;
  const auto tiny = testing::random_model<Gemma4<f32, Simd>>(testing::small_config());
  const std::vector<Token> tokens = {1, 2, 3}, one = {1}, outside = {1, 2, 101}, negative = {1, -1};
  using Reference = ReferencePredictions;
  CHECK_THROWS_WITH(Reference(tiny, one, executor), "ReferencePredictions: 1 tokens, expected 2 or more");
  CHECK_THROWS_WITH(Reference(tiny, outside, executor), "ReferencePredictions: token 101, expected 0 to 100");
  CHECK_THROWS_WITH(Reference(tiny, negative, executor), "ReferencePredictions: token -1, expected 0 to 100");
  const Reference reference(tiny, tokens, executor);
  CHECK_THROWS_WITH(reference.evaluate(Model::load(Checkpoint::open(folder)), executor),
                    "ReferencePredictions: a model with a vocabulary of 1024, expected 101");
}

}  // namespace ple::evaluation_test
