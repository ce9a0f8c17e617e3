// SPDX-License-Identifier: Apache-2.0
#include "ple/run/perplexity.h"

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "../chosen_backend.h"
#include "../temporary.h"
#include "ple/ple.h"
#include "ple/run/evaluation.h"
#include "ple/run/kept_predictions.h"

namespace ple::perplexity_test {

namespace {

using Model = Gemma4<Any, Simd>;

const Model& model() {
  static const Model model = Model::load(Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller"));
  return model;
}

std::vector<Token> text(std::size_t count) {
  std::vector<Token> tokens = {2};
  while (tokens.size() < count) tokens.push_back(static_cast<Token>((tokens.back() * 37 + 11) % 1000));
  return tokens;
}

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const std::filesystem::path& path, std::string bytes) {  // with the checksum that belongs to the bytes
  Checksum sum;
  sum.add(std::as_bytes(std::span(bytes)));
  const std::uint64_t value = sum.value();
  std::ofstream(path, std::ios::binary) << bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

TEST_CASE("windows of a text are those of llama.cpp's perplexity") {
  const auto windows = scored_windows(1100, {});
  REQUIRE(windows.size() == 2);  // 76 tokens are left
  CHECK(windows[1].begin == 512);
  CHECK(windows[1].first == 512 + 257);
  CHECK(windows[1].end == 1024);
  CHECK(scored_windows(1024, {}).size() == 2);
  CHECK(scored_windows(1023, {}).size() == 1);
  CHECK(scored_windows(9, {.context = 9})[0].first == 5);

  // With a stride every token from the first window's on is scored once.
  for (const std::size_t tokens : {std::size_t{64}, std::size_t{65}, std::size_t{200}}) {
    for (const std::size_t stride : {std::size_t{1}, std::size_t{7}, std::size_t{63}}) {
      const auto all = scored_windows(tokens, {.context = 64, .stride = stride});
      std::size_t next = 64 - stride;
      for (const ScoredWindow& window : all) {
        CHECK(window.end - window.begin == 64);
        CHECK(window.first == next);
        next = window.end;
      }
      CHECK(next <= tokens);
      CHECK(tokens - next < stride);
    }
  }
  CHECK_THROWS_WITH(scored_windows(100, {.context = 3}), "perplexity: a context of 3 tokens, expected 4 or more");
  CHECK_THROWS_WITH(scored_windows(100, {.context = 64, .stride = 64}),
                    "perplexity: a stride of 64, expected less than the context of 64");
  CHECK_THROWS_WITH(scored_windows(63, {.context = 64}),
                    "perplexity: the text has 63 tokens, fewer than the context of 64");
}

TEST_CASE("a window is read from an empty cache, with bos in place of its first token") {
  const std::vector<Token> tokens = text(300);
  for (const std::size_t threads : {std::size_t{1}, std::size_t{3}}) {
    for (const std::size_t stride : {std::size_t{0}, std::size_t{40}}) {
      const PerplexityOptions options{.context = 150, .stride = stride, .bos = 2};
      const auto windows = scored_windows(tokens.size(), options);
      REQUIRE(windows.size() >= 2);
      std::vector<std::vector<float>> found(tokens.size());
      std::size_t done = 0;
      ThreadPool pool(threads);
      const auto window_done = [&](std::size_t w) {
        CHECK(w == done++);
        Session session(model(), {.context = 150, .chunk = 13, .threads = 1});
        std::vector<Token> window(tokens.begin() + static_cast<std::ptrdiff_t>(windows[w].begin),
                                  tokens.begin() + static_cast<std::ptrdiff_t>(windows[w].end));
        window[0] = 2;
        session.evaluate(window, [&](std::size_t t, std::span<const float> logits) {
          const std::size_t i = windows[w].begin + t + 1;
          if (i < windows[w].first || i >= windows[w].end) return;
          CHECK(std::equal(logits.begin(), logits.end(), found[i].begin(), found[i].end()));
        });
        for (std::size_t i = 0; i < tokens.size(); ++i) {  // and only these
          CHECK(found[i].empty() == (i < windows[w].first || i >= windows[w].end));
          found[i].clear();
        }
        return true;
      };
      predict_windows(
          model(), tokens, windows, {}, options.bos, pool,
          [&](std::size_t i, std::span<const float> logits) { found[i].assign(logits.begin(), logits.end()); },
          window_done);
      CHECK(done == windows.size());
    }
  }
}

TEST_CASE("a reader of windows may cancel") {
  const std::vector<Token> tokens = text(300);
  const auto windows = scored_windows(tokens.size(), {.context = 60});
  InlineExecutor executor;
  CHECK_THROWS_WITH(predict_windows(
                        model(), tokens, windows, {}, {}, executor, [](std::size_t, std::span<const float>) {},
                        [](std::size_t w) { return w < 1; }),
                    "perplexity: cancelled after 2 windows");
}

TEST_CASE("a token's loss is that of exact arithmetic") {
  const std::vector<float> logits = {-3, 12.5f, 11, 0, -80, 12.25f};
  long double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<long double>(logit));
  for (std::size_t i = 0; i < logits.size(); ++i) {
    double log_sum = 0;
    const double exact = static_cast<double>(std::log(sum) - static_cast<long double>(logits[i]));
    // A sum of 6 f64 terms, its logarithm, and a difference of at most 93: 93 * 2^-53 = 1e-14, a few times.
    CHECK(std::fabs(token_loss(logits, static_cast<Token>(i), &log_sum) - exact) < 1e-13);
    CHECK(std::fabs(log_sum - static_cast<double>(std::log(sum))) < 1e-13);
  }
}

TEST_CASE("kept predictions: the likeliest tokens, and a KL that is never too much") {
  const std::vector<Token> tokens = text(151);
  std::vector<std::vector<float>> logits, changed;
  Session session(model(), {.context = 256, .threads = 1});
  session.evaluate(tokens, [&](std::size_t t, std::span<const float> l) {
    logits.emplace_back(l.begin(), l.end());
    std::vector<float> other(l.begin(), l.end());
    for (std::size_t i = 0; i < other.size(); ++i) other[i] += 0.4f * std::sin(static_cast<float>(7 * i + t));
    changed.push_back(other);
  });
  double most_short = 0, largest_difference = 0;
  for (std::size_t t = 0; t + 1 < tokens.size(); ++t) {
    const KeptPrediction kept = keep_prediction(logits[t], tokens[t + 1]);
    double log_sum = 0, kept_sum = 0, exact = 0, q_log_sum = 0;
    CHECK(kept.loss == static_cast<float>(token_loss(logits[t], tokens[t + 1], &log_sum)));
    token_loss(changed[t], 0, &q_log_sum);
    float least = 0;
    for (const float log_p : kept.log_p) {
      kept_sum += std::exp(double(log_p));
      least = std::min(least, log_p);
    }
    CHECK(kept_sum >= 1 - 1.01e-3);
    for (std::size_t i = 0, k = 0; i < logits[t].size(); ++i) {
      const double log_p = double(logits[t][i]) - log_sum;
      exact += std::exp(log_p) * (log_p - (double(changed[t][i]) - q_log_sum));
      const bool is_kept = k < kept.tokens.size() && kept.tokens[k] == static_cast<Token>(i);
      if (is_kept) CHECK(std::fabs(double(kept.log_p[k++]) - log_p) < 1e-5);
      if (!is_kept) CHECK(log_p <= double(least));  // whatever is left out is less likely
    }
    const KeptDivergence same = divergence(kept.tokens, kept.log_p, logits[t], log_sum);
    CHECK(same.same_top);
    CHECK(std::fabs(same.kl) < 1e-6);  // log P are rounded to f32
    CHECK(same.difference < 1e-6);
    const KeptDivergence other = divergence(kept.tokens, kept.log_p, changed[t], q_log_sum);
    CHECK(other.kl < exact + 1e-6);
    most_short = std::max(most_short, exact - other.kl);
    CHECK(other.difference < 0.8);
    largest_difference = std::max(largest_difference, other.difference);
    CHECK(other.kept == doctest::Approx(kept_sum).epsilon(1e-9));
  }
  CHECK(largest_difference > 0.1);
  CHECK(most_short < 1e-3);  // what is left out has 1e-3 at most, and moves by less than a factor of e

  const std::vector<float> flat(100000, 1.5f), certain = {0, 50, 0};
  CHECK(keep_prediction(flat, 7).tokens.size() == flat.size());  // equal ones are kept or left out together
  CHECK(keep_prediction(certain, 0).tokens == std::vector<Token>{1});
  const std::vector<float> nan(3, std::numeric_limits<float>::quiet_NaN());
  CHECK_THROWS_AS(keep_prediction(nan, 0), Error);
}

TEST_CASE("kept predictions come back from their file; another file is refused with what is wrong") {
  testing::TemporaryFolder folder;
  const auto path = folder / "kept";
  const std::vector<Token> tokens = {2, 5, 6, 7, 1};
  const std::vector<std::vector<float>> logits = {{0, 1, 2, 3, 4, 5, 6, 30}, {5, 5, 5, 5, 5, 5, 5, 5}};
  KeptPredictionsWriter writer(path, {}, {.vocab_size = 8, .tokens = 5, .context = 4, .stride = 2, .scored = 2},
                               tokens);
  for (const auto& l : logits) writer.write(keep_prediction(l, 7));
  writer.finish();
  CHECK(writer.size() == std::filesystem::file_size(path));
  const KeptPredictions kept(path);
  CHECK(kept.header().stride == 2);
  CHECK(std::equal(tokens.begin(), tokens.end(), kept.tokens().begin(), kept.tokens().end()));
  REQUIRE(kept.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    const KeptPrediction expected = keep_prediction(logits[i], 7);
    double log_sum = 0;
    token_loss(logits[1], 0, &log_sum);
    const KeptDivergence a = kept.compare(i, logits[1], log_sum),
                         b = divergence(expected.tokens, expected.log_p, logits[1], log_sum);
    CHECK(kept.loss(i) == expected.loss);
    CHECK(a.kl == b.kl);
    CHECK(a.same_top == b.same_top);
  }

  const std::string name = path.string() + ": ";
  std::string good = read(path);
  std::string damaged = good;
  damaged[70] = static_cast<char>(damaged[70] ^ 1);
  std::ofstream(path, std::ios::binary) << damaged;
  CHECK_THROWS_AS(KeptPredictions{path}, Error);
  std::ofstream(path, std::ios::binary) << "short";
  CHECK_THROWS_WITH(KeptPredictions{path}, (name + "has 5 bytes: it holds no predictions").c_str());
  good.resize(good.size() - 8);
  // header 48, tokens 20, then loss 4, count 4, one token and its log P; then loss, count 8, tokens, log P
  const auto with = [&](std::size_t at, auto number) {
    std::string changed = good;
    std::memcpy(changed.data() + at, &number, sizeof number);
    write(path, changed);
  };
  with(0, 'x');
  CHECK_THROWS_WITH(KeptPredictions{path}, (name + "holds no predictions, or of another version").c_str());
  with(16, std::uint64_t{1} << 62);
  CHECK_THROWS_WITH(KeptPredictions{path},
                    (name + "has 4611686018427387904 tokens, more than its 164 bytes hold").c_str());
  with(40, ~std::uint64_t{0});
  CHECK_THROWS_WITH(KeptPredictions{path},
                    (name + "has 18446744073709551615 predictions, more than its 164 bytes hold").c_str());
  with(40, std::uint64_t{1});
  CHECK_THROWS_WITH(KeptPredictions{path}, (name + "has 72 bytes after its last prediction").c_str());
  with(72, std::uint32_t{9});
  CHECK_THROWS_WITH(KeptPredictions{path}, (name + "prediction 0 keeps 9 tokens, expected 1 to 8").c_str());
  with(72, std::uint32_t{0});
  CHECK_THROWS_WITH(KeptPredictions{path}, (name + "prediction 0 keeps 0 tokens, expected 1 to 8").c_str());
  with(76, Token{8});
  CHECK_THROWS_WITH(KeptPredictions{path}, (name + "prediction 0: token 8, expected 0 to 7").c_str());
  with(96, Token{0});
  CHECK_THROWS_WITH(KeptPredictions{path}, (name + "prediction 1: token 0, expected 1 to 7").c_str());
  with(80, std::numeric_limits<float>::quiet_NaN());
  CHECK_THROWS_AS(KeptPredictions{path}, Error);
}

}  // namespace ple::perplexity_test
