// SPDX-License-Identifier: Apache-2.0
#include "ple/dispatch.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "../allocations.h"
#include "../model/random_model.h"
#include "../model/requantized.h"
#include "../table/failing_storage.h"
#include "ple/ple.h"

namespace ple::batch_test {

static_assert(!std::is_constructible_v<Batch, Gemma4<f32, Simd>> &&
              !std::is_constructible_v<Batch, const Gemma3n<Any>>);
static_assert(std::is_constructible_v<Batch, Gemma4<f32, Simd>&> && std::is_nothrow_move_constructible_v<Batch>);

namespace {

constexpr std::size_t count = 9;  // one more than a tile of tokens

bool same(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

std::vector<Token> text_of(std::size_t i, std::size_t vocab_size) {
  std::vector<Token> tokens;
  for (std::size_t k = 0; k < 1 + 3 * i; ++k)
    tokens.push_back(static_cast<Token>((7 * i + 5 * k * k + 3) % vocab_size));
  return tokens;
}

/// Sessions at positions 1, 4, 7, ... read the same tokens together and each alone.
void check_equal(const LanguageModel& model, Dtype kv_cache_dtype = Dtype::f32) {
  for (const std::size_t threads : {1u, 2u}) {
    CAPTURE(threads);
    ThreadPool pool(threads);
    const SessionOptions options{.context = 160, .chunk = 16, .kv_cache_dtype = kv_cache_dtype, .executor = &pool};
    std::vector<std::unique_ptr<Session>> together, alone;
    std::vector<Session*> sessions;
    for (std::size_t i = 0; i < count; ++i) {
      for (auto* list : {&together, &alone}) {
        list->push_back(std::make_unique<Session>(model, options));
        list->back()->read(text_of(i, model.vocab_size()));
      }
      sessions.push_back(together.back().get());
    }
    Batch batch(model, {.sessions = count, .executor = &pool});
    std::size_t before = 0;
    bool equal = true;
    for (std::size_t step = 0; step < 130; ++step) {  // past a ring and a piece of attention
      std::vector<Token> tokens;
      for (std::size_t i = 0; i < count; ++i)
        tokens.push_back(static_cast<Token>((11 * i + step) % model.vocab_size()));
      // fewer sessions take part now and then: one alone, two, all
      const std::size_t some = step % 7 == 3 ? 1 : step % 7 == 5 ? 2 : count;
      for (std::size_t i = 0; i < some; ++i) alone[i]->read(tokens[i]);
      before = testing::allocations();
      batch.read(std::span(sessions).first(some), std::span(tokens).first(some));
      const bool allocates = testing::allocations() != before;
      CHECK(!allocates);
      for (std::size_t i = 0; i < some; ++i) equal &= same(together[i]->logits(), alone[i]->logits());
    }
    CHECK(equal);
    CHECK(together[0]->position() == 131);
    CHECK(std::ranges::equal(together[2]->tokens(), alone[2]->tokens()));
    together[1]->read(text_of(3, model.vocab_size()));  // and go on by themselves
    alone[1]->read(text_of(3, model.vocab_size()));
    CHECK(same(together[1]->logits(), alone[1]->logits()));
  }
}

}  // namespace

TEST_CASE("sessions advanced together have the logits they have alone, bit for bit") {
  const auto model = testing::random_model<Gemma4<f32, BestSimd>>(testing::small_config());
  check_equal(model);
  check_equal(model, Dtype::bf16);
  const auto checkpoint = Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller");
  check_equal(Gemma4<Any, BestSimd>::load(checkpoint, {.table = Streamed{.budget = 4000}}));
}

TEST_CASE("sessions advanced together: quantised weights; Gemma 3n's sparse feed-forward") {
  const auto storyteller = Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller");
  const testing::Requantized checkpoint{storyteller, Dtype::q4_0, false};
  check_equal(Gemma4<Any, BestSimd>::load(checkpoint));
  check_equal(Gemma4<Any, BestSimd>::load(checkpoint, {.weights = WeightStorage::mapped}));
  const auto folder = std::filesystem::path(PLE_TEST_DATA) / "golden_gemma3n" / "e2b_like";
  check_equal(Gemma3n<Any, BestSimd>::load(Checkpoint::open(folder)));
}

TEST_CASE("a batch refuses what cannot be, and changes nothing") {
  const auto model = testing::random_model<Gemma4<f32, Simd>>(testing::small_config());
  const auto other = testing::random_model<Gemma4<f32, Simd>>(testing::small_config());
  const auto other_type = testing::random_model<Gemma4<f32, Scalar>>(testing::small_config());
  Session a(model, {.context = 8, .threads = 1}), b(model, {.context = 3, .threads = 1}), c(other, {.threads = 1});
  Session d(other_type, {.threads = 1});
  Batch batch(model, {.sessions = 2, .threads = 1});
  const auto refused = [&](std::vector<Session*> sessions, std::vector<Token> tokens) -> std::string {
    try {
      batch.read(sessions, tokens);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::argument);
      return error.what();
    }
    return "no error";
  };
  b.read(std::vector<Token>{1, 2, 3});
  const std::vector<float> logits(b.logits().begin(), b.logits().end());
  CHECK(refused({&a, &b, &c}, {1, 2, 3}) == "Batch: 3 sessions at once, at most 2");
  CHECK(refused({&a}, {1, 2}) == "Batch: 1 sessions, but 2 tokens");
  CHECK(refused({&a, &b}, {1, 2}) ==
        "Batch: session 1 is at the end of its context of 3; SessionOptions::context makes it longer");
  CHECK(refused({&a, &c}, {1, 2}) == "Batch: session 1 is of another model");
  CHECK(refused({&a, &d}, {1, 2}) == "Batch: session 1 is of another model");
  CHECK(refused({&c, &a, &a}, {1, 2, 3}) == "Batch: 3 sessions at once, at most 2");
  CHECK(refused({&a, &a}, {1, 2}) == "Batch: session 1 is session 0 again");
  CHECK(refused({&a, nullptr}, {1, 2}) == "Batch: session 1 is null");
  CHECK(refused({&a}, {101}) == "Batch: session 0: token 101, expected 0 to 100");
  CHECK(refused({&a}, {soft_token}) == "Batch: session 0: token -1, expected 0 to 100");
  CHECK(a.position() == 0);
  CHECK(b.position() == 3);
  CHECK(same(b.logits(), logits));
  CHECK(refused({&a}, {5}) == "no error");
  CHECK(a.position() == 1);
  CHECK(refused({}, {}) == "no error");
  CHECK_THROWS_WITH(Batch(model, {.sessions = 0}), "Batch: 0 sessions, expected 1 to 65536");
  CHECK_THROWS_WITH(Batch(model, {.sessions = std::size_t{1} << 40}),
                    "Batch: 1099511627776 sessions, expected 1 to 65536");
  CHECK_THROWS_WITH(model.make_state({.context = 1, .chunk = std::size_t{1} << 40}),
                    "a state for 1099511627776 tokens at once, expected 1 to 65536");
}

TEST_CASE("a batch whose read fails has changed no session, and its next try reads what was to be read") {
  const auto fault = std::make_shared<testing::ReadFault>();
  const auto storyteller = Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller");
  const auto model = Gemma4<Any, Simd>::load(storyteller, {.table = testing::FailingStorage{fault}});
  InlineExecutor executor;
  const SessionOptions options{.context = 64, .executor = &executor};
  Session a(model, options), b(model, options), alone(model, options);
  Batch made(model, {.sessions = 2, .executor = &executor});
  Batch batch = std::move(made);  // a batch can be moved
  Session* const sessions[] = {&a, &b};
  a.read(text_of(2, 1000));
  b.read(text_of(3, 1000));
  alone.read(text_of(3, 1000));
  const std::vector<float> logits(b.logits().begin(), b.logits().end());
  const Token tokens[] = {7, 8};
  fault->fail_at(1);
  CHECK_THROWS_AS(batch.read(sessions, tokens), Error);
  CHECK(fault->count == 1);
  CHECK(a.position() == 7);
  CHECK(a.tokens().size() == 7);
  CHECK(b.position() == 10);
  CHECK(same(b.logits(), logits));
  batch.read(sessions, tokens);
  alone.read(8);
  CHECK(same(b.logits(), alone.logits()));
}

TEST_CASE("a model without a forward_each of its own: after an error every session has the tokens it has read") {
  /// Logits are the position; token 3 cannot be read.
  struct Counter final : LanguageModel {
    struct State final : ModelState {
      using ModelState::ModelState;
      std::size_t kv_cache_bytes() const override { return 0; }
    };
    std::size_t vocab_size() const override { return 4; }
    std::size_t max_position_embeddings() const override { return 64; }
    std::size_t hidden_size() const override { return 1; }
    std::unique_ptr<ModelState> make_state(const StateOptions& options) const override {
      return std::make_unique<State>(options);
    }
    void forward(ModelState& state, Executor&, std::span<const Token> tokens, Rows logits, Rows) const override {
      if (std::ranges::count(tokens, 3) > 0) fail(ErrorCode::file, "row 3 cannot be read");
      state.position += tokens.size();
      for (std::size_t r = 0; r < logits.rows; ++r)
        std::fill_n(logits.row(r), logits.cols, static_cast<float>(state.position));
    }
  };
  const Counter model;
  InlineExecutor executor;
  Session a(model, {.context = 8, .executor = &executor}), b(model, {.context = 8, .executor = &executor});
  Batch batch(model, {.sessions = 2, .executor = &executor});
  Session* const sessions[] = {&a, &b};
  const Token tokens[] = {1, 3}, good[] = {1, 2};
  a.read(0);
  CHECK_THROWS_WITH(batch.read(sessions, tokens), "row 3 cannot be read");
  CHECK(a.position() == 2);
  CHECK(a.tokens().size() == 2);
  CHECK(a.logits()[0] == 2);
  CHECK(b.position() == 0);
  CHECK(b.tokens().empty());
  CHECK_THROWS_WITH(a.rewind(1), "Session: cannot go to position 1 from 2, expected 0 or 2 to 2");
  batch.read(sessions, good);
  CHECK(a.logits()[0] == 3);
  CHECK(b.logits()[0] == 1);
}

}  // namespace ple::batch_test
