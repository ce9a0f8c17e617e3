// SPDX-License-Identifier: Apache-2.0
#include "ple/dispatch.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../allocations.h"
#include "../model/random_model.h"
#include "../model/requantized.h"
#include "ple/ple.h"

namespace ple::batch_test {

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
  CHECK(refused({&a, &b}, {1, 2}) == "forward: 1 tokens at position 3 go past the context of 3");
  CHECK(refused({&a, &c}, {1, 2}) == "forward: the state was made by another model");
  CHECK(refused({&a, &d}, {1, 2}) == "forward: the state was made by another model");
  CHECK(refused({&a, &a}, {1, 2}) == "forward_each: text 1 is there twice");
  CHECK(refused({&a}, {101}) == "forward: token 101, expected 0 to 100");
  CHECK(a.position() == 0);
  CHECK(b.position() == 3);
  CHECK(same(b.logits(), logits));
  CHECK(refused({&a}, {5}) == "no error");
  CHECK(a.position() == 1);
  CHECK(refused({}, {}) == "no error");
  CHECK_THROWS_WITH(Batch(model, {.sessions = 0}), "Batch: 0 sessions, expected at least 1");
}

}  // namespace ple::batch_test
