// SPDX-License-Identifier: Apache-2.0
#include "ple/run/generation.h"

#include <doctest/doctest.h>

#include <limits>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "../allocations.h"
#include "../model/random_model.h"
#include "../table/failing_storage.h"
#include "ple/checkpoint/hf_folder.h"

namespace ple::generation_test {

namespace {

using Model = Gemma4<bf16, Simd>;

const std::vector<Token> prompt{2, 5, 9, 14};

Model storyteller(const TableStorage& storage = Mapped{}) {
  return Model::load(HfFolder(std::filesystem::path(PLE_MODEL_DIR) / "storyteller"), {.table = storage});
}

std::vector<Token> all_of(Generation& generation) {
  std::vector<Token> tokens;
  while (const auto token = generation.next()) tokens.push_back(*token);
  return tokens;
}

}  // namespace

static_assert(!std::is_constructible_v<Generation, Session, GenerationOptions>);

TEST_CASE("whichever read fails, a generation goes on with the token that was to be read") {
  const auto fault = std::make_shared<testing::ReadFault>();
  const Model model = storyteller(testing::FailingStorage{fault});
  InlineExecutor executor;
  const GenerationOptions options{.sampling = {.temperature = 1, .seed = 3}, .max_tokens = 8};
  std::vector<Token> expected;
  for (std::size_t k = 0; k <= 8; ++k) {  // 0: none fails; the last of 8 tokens is read by flush()
    CAPTURE(k);
    Session session(model, {.context = 64, .executor = &executor});
    session.read(prompt);
    fault->fail_at(k);
    Generation generation(session, options);
    std::vector<Token> shown;
    std::size_t errors = 0;
    const auto retried = [&](auto&& f) {
      try {
        f();
        return true;
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::file);
        ++errors;
        return false;
      }
    };
    for (bool going = true; going;) {
      retried([&] {
        const auto token = generation.next();
        if (token) shown.push_back(*token);
        going = token.has_value();
      });
    }
    while (!retried([&] { generation.flush(); })) continue;
    CHECK(errors == (k > 0 ? 1 : 0));
    CHECK(shown.size() == 8);
    if (k == 0) expected = shown;
    CHECK(shown == expected);
    std::vector<Token> read = prompt;
    read.insert(read.end(), shown.begin(), shown.end());
    CHECK(std::vector<Token>(session.tokens().begin(), session.tokens().end()) == read);
  }
}

TEST_CASE("a repetition penalty passes over soft tokens") {
  const Model model = storyteller();
  InlineExecutor executor;
  std::vector<float> row(model.hidden_size(), 0.1f);
  const std::vector<Token> tokens{2, soft_token, 5};
  Session session(model, {.context = 64, .executor = &executor});
  session.read(tokens, Rows{row.data(), 1, row.size(), row.size()});
  const std::vector<float> logits(session.logits().begin(), session.logits().end());
  const SamplingOptions sampling{
      .temperature = 1, .top_k = 5, .top_p = 0.9f, .min_p = 0.01f, .repetition_penalty = 1.5f};
  Sampler sampler(sampling, logits.size());
  const Token history[] = {2, 5};
  Generation generation(session, {.sampling = sampling});
  CHECK(generation.next() == sampler.sample(logits, history));
}

TEST_CASE("a logits processor comes before the sampling rules, and changes a copy") {
  const Model model = storyteller();
  InlineExecutor executor;
  Session session(model, {.context = 64, .executor = &executor});
  session.read(prompt);
  const std::vector<float> logits(session.logits().begin(), session.logits().end());
  std::vector<std::vector<Token>> seen;
  std::size_t allocations = 0;
  Generation other(session,
                   {.max_tokens = 3, .logits_processor = [&](std::span<const Token> tokens, std::span<float> l) {
                      const std::size_t before = testing::allocations();
                      seen.emplace_back(tokens.begin(), tokens.end());
                      allocations += testing::allocations() - before;
                      if (seen.size() == 2) throw std::runtime_error("of the processor");
                      for (float& logit : l) logit = -std::numeric_limits<float>::infinity();
                      l[7] = 1;
                    }});
  const std::size_t before = testing::allocations();
  CHECK(other.next() == 7);
  CHECK(testing::allocations() - before == allocations);
  CHECK(std::equal(logits.begin(), logits.end(), session.logits().begin()));
  CHECK_THROWS_AS(other.next(), std::runtime_error);
  CHECK(other.next() == 7);  // nothing is lost
  CHECK(session.tokens().back() == 7);
  CHECK(seen == std::vector<std::vector<Token>>{{2, 5, 9, 14}, {2, 5, 9, 14, 7}, {2, 5, 9, 14, 7}});
}

TEST_CASE("a generation ends when it is cancelled or stopped, and says so") {
  const Model model = storyteller();
  InlineExecutor executor;
  Session session(model, {.context = 64, .executor = &executor});
  session.read(prompt);
  std::size_t asked = 0;
  Generation cancelled(session, {.cancelled = [&] { return ++asked == 4; }});
  CHECK(all_of(cancelled).size() == 3);
  CHECK(cancelled.reason() == StopReason::cancelled);
  CHECK(session.position() == 6);  // nothing was computed for the token that did not come
  CHECK(asked == 4);
  cancelled.flush();
  Generation stopped(session, {});
  CHECK(stopped.next().has_value());
  stopped.stop();
  CHECK(!stopped.next());
  CHECK(stopped.reason() == StopReason::cancelled);
  stopped.stop(StopReason::stop_string);
  CHECK(stopped.reason() == StopReason::cancelled);  // it had ended already
}

TEST_CASE("a token drawn from another place of the session is not read out of order") {
  const Model model = storyteller();
  InlineExecutor executor;
  Session session(model, {.context = 64, .executor = &executor});
  session.read(prompt);
  Generation generation(session, {});
  CHECK(generation.next().has_value());
  session.read(3);
  CHECK_THROWS_WITH_AS(
      generation.next(),
      "Generation: the session is at position 5, expected 4, after which the last token was drawn: call "
      "flush() before the session reads on",
      Error);
  session.reset();
  CHECK_THROWS_AS(generation.next(), Error);
  CHECK(session.position() == 0);
}

}  // namespace ple::generation_test
