// SPDX-License-Identifier: Apache-2.0
#include "ple/run/session.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

#include "../allocations.h"
#include "../model/random_model.h"
#include "../table/failing_storage.h"
#include "ple/checkpoint/hf_folder.h"
#include "ple/run/batch.h"

namespace ple::session_test {

using ple::testing::random_model;
using ple::testing::small_config;

namespace {

using Model = Gemma4<f32, Simd>;

std::vector<Token> some_tokens(std::size_t n) {
  std::vector<Token> tokens(n);
  for (std::size_t i = 0; i < n; ++i) tokens[i] = static_cast<Token>((i * 37 + 11) % 101);
  return tokens;
}

std::vector<float> all_logits(const Model& model, std::span<const Token> tokens, const SessionOptions& options) {
  Session session(model, options);
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
         });
}

template <class F>
std::string error_of(ErrorCode code, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("logits have the same bits however a text is cut and on however many threads") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = some_tokens(150);  // attention works on pieces of 128
  std::vector<float> in_f32;
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    const auto whole = all_logits(model, tokens, {.chunk = 150, .threads = 1, .kv_cache_dtype = dtype});
    if (dtype == Dtype::f32) in_f32 = whole;
    CHECK(same_bits(whole, in_f32) == (dtype == Dtype::f32));
    for (const std::size_t threads : {1u, 2u, 3u}) {
      for (const std::size_t chunk : {1u, 3u, 7u, 16u, 64u}) {
        CAPTURE(threads);
        CAPTURE(chunk);
        CHECK(
            same_bits(whole, all_logits(model, tokens, {.chunk = chunk, .threads = threads, .kv_cache_dtype = dtype})));
      }
    }
  }
}

TEST_CASE("reading a prompt gives the logits of its last token, though shared layers skip the others") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = some_tokens(41);
  const auto whole = all_logits(model, tokens, {});
  for (const std::size_t chunk : {1u, 4u, 20u, 64u}) {
    Session session(model, {.chunk = chunk});
    for (const std::size_t cut : {std::size_t{1}, std::size_t{13}, std::size_t{40}, tokens.size()}) {
      session.reset();
      session.read(std::span(tokens).first(cut));
      if (cut < tokens.size()) session.read(std::span(tokens).subspan(cut));
      CHECK(session.position() == tokens.size());
      CHECK(same_bits(session.logits(), std::span(whole).last(101)));
    }
  }
}

TEST_CASE("sessions of one model do not disturb each other") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = some_tokens(60);
  const auto expected = all_logits(model, tokens, {.threads = 1});
  ThreadPool shared(2);
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (std::size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      SessionOptions options{.chunk = 5 + i, .threads = 2};
      if (i % 2) options.executor = &shared;
      for (int round = 0; round < 5; ++round) wrong += !same_bits(all_logits(model, tokens, options), expected);
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("a cancelled prompt leaves a session that goes on from there") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = some_tokens(40);
  const auto whole = all_logits(model, tokens, {});
  Session session(model, {.chunk = 8});
  std::vector<std::size_t> seen;
  const auto message = error_of(ErrorCode::cancelled, [&] {
    session.read(tokens, [&](std::size_t done, std::size_t total) {
      CHECK(total == 40);
      seen.push_back(done);
      return done < 16;
    });
  });
  CHECK(message == "cancelled after 16 of 40 tokens of the prompt");
  CHECK(seen == std::vector<std::size_t>{8, 16});
  CHECK(session.position() == 16);
  error_of(ErrorCode::argument, [&] { session.logits(); });
  session.read(std::span(tokens).subspan(16));
  CHECK(same_bits(session.logits(), std::span(whole).last(101)));
}

TEST_CASE("what cannot be is refused before anything changes") {
  const Model model = random_model<Model>(small_config());
  const auto message = [&](auto&& f) { return error_of(ErrorCode::argument, f); };
  CHECK(message([&] { Session(model, {.context = 257}); }) ==
        "context is 257, expected 1 to 256, the model's max_position_embeddings");
  CHECK(message([&] { Session(model, {.kv_cache_dtype = Dtype::q4_0}); }) ==
        "kv_cache_dtype is q4_0, expected f32, bf16, f16 or q8_0");
  CHECK(message([&] { Session(model, {.kv_cache_dtype = Dtype::q8_0}); }) ==
        "kv_cache_dtype is q8_0, in blocks of 32 values, but head_dim is 8");
  Session session(model, {.context = 20, .chunk = 4});
  CHECK(message([&] { session.logits(); }).find("no logits") != std::string::npos);
  const auto tokens = some_tokens(21);
  CHECK(message([&] { session.read(tokens); }).find("21 tokens at position 0 go past the context of 20") !=
        std::string::npos);
  CHECK(message([&] { session.read(tokens); }).find("SessionOptions::context makes it longer") != std::string::npos);
  Session longest(model, {.context = 256});
  CHECK(message([&] { longest.read(some_tokens(257)); }) ==
        "Session: 257 tokens at position 0 go past the context of 256, which is as long as this model's can be");
  const Token outside[] = {1, 2, 3, 4, 5, 101}, negative[] = {-2}, soft[] = {soft_token};
  CHECK(message([&] { session.read(outside); }) == "Session: token 101, expected 0 to 100");
  CHECK(message([&] { session.read(negative); }) == "Session: token -2, expected 0 to 100");
  CHECK(message([&] { session.read(soft); }) == "Session: 1 soft tokens (token -1), but 0 embeddings for them");
  CHECK(session.position() == 0);
  session.read(std::span(tokens).first(20));
  CHECK(session.position() == 20);
  CHECK(message([&] { session.read(1); }).find("go past the context") != std::string::npos);

  const Model other = random_model<Model>(small_config());
  InlineExecutor executor;
  const auto state = model.make_state({.context = 8, .chunk = 8, .threads = 1});
  CHECK(message([&] { other.forward(*state, executor, some_tokens(1), {}); }).find("another model") !=
        std::string::npos);
  const auto other_type = random_model<Gemma4<f32, Scalar>>(small_config());
  CHECK(message([&] { other_type.forward(*state, executor, some_tokens(1), {}); }).find("another model") !=
        std::string::npos);
  CHECK(message([&] { model.forward(*state, executor, some_tokens(9), {}); }).find("9 tokens at once, at most 8") !=
        std::string::npos);
  ThreadPool pool(2);
  CHECK(message([&] { model.forward(*state, pool, some_tokens(1), {}); }).find("room for 1") != std::string::npos);
}

// A model that is gone when the session computes does not compile.
static_assert(!std::is_constructible_v<Session, Model> && !std::is_constructible_v<Session, const Model>);
static_assert(!std::is_constructible_v<Session, Model, SessionOptions>);
static_assert(std::is_constructible_v<Session, Model&> && std::is_constructible_v<Session, const Model&>);
static_assert(std::is_nothrow_move_constructible_v<Session> && std::is_nothrow_move_assignable_v<Session>);

TEST_CASE("whichever read of a prompt fails, the session goes on from the last chunk") {
  const auto fault = std::make_shared<testing::ReadFault>();
  const auto model = Gemma4<bf16, Simd>::load(HfFolder(std::filesystem::path(PLE_MODEL_DIR) / "storyteller"),
                                              {.table = testing::FailingStorage{fault}});
  const auto tokens = some_tokens(30);
  InlineExecutor executor;
  const SessionOptions options{.context = 64, .chunk = 8, .executor = &executor};
  Session whole(model, options);
  fault->fail_at(0);
  whole.read(tokens);
  const std::size_t reads = fault->count;
  REQUIRE(reads == 4);  // a chunk each
  for (std::size_t k = 1; k <= reads; ++k) {
    Session session(model, options);
    fault->fail_at(k);
    error_of(ErrorCode::file, [&] { session.read(tokens); });
    CHECK(session.position() == std::min<std::size_t>(k - 1, 3) * 8);
    CHECK(session.tokens().size() == session.position());
    session.read(std::span(tokens).subspan(session.position()));
    CHECK(same_bits(session.logits(), whole.logits()));
    const std::vector<float> logits(session.logits().begin(), session.logits().end());
    fault->fail_at(1);
    error_of(ErrorCode::file, [&] { session.read(tokens[0]); });
    CHECK(same_bits(session.logits(), logits));  // a first chunk that fails changes nothing
  }
}

TEST_CASE("what evaluate calls may throw: the session has the logits of where it is") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = some_tokens(30);
  const auto whole = all_logits(model, tokens, {});
  Session session(model, {.chunk = 8});
  session.read(std::span(tokens).first(2));
  CHECK_THROWS_WITH(session.evaluate(std::span(tokens).subspan(2),
                                     [](std::size_t i, std::span<const float>) {
                                       if (i == 11) throw std::runtime_error("of the caller");
                                     }),
                    "of the caller");
  CHECK(session.position() == 18);  // the end of the chunk of 8 that tokens[2 + 11] is in
  CHECK(same_bits(session.logits(), std::span(whole).subspan(17 * 101, 101)));
  session.read(std::span(tokens).subspan(18));
  CHECK(same_bits(session.logits(), std::span(whole).last(101)));
}

TEST_CASE("a session goes back to every position whose K and V it still has, and reads on with the same bits") {
  const Model model = random_model<Model>(small_config());  // a window of 5: rings of 5 + 4 - 1 slots
  const auto tokens = some_tokens(60);
  const auto logits_at = [whole = all_logits(model, tokens, {})](std::size_t position) {
    return std::vector<float>(whole.begin() + static_cast<std::ptrdiff_t>((position - 1) * 101),
                              whole.begin() + static_cast<std::ptrdiff_t>(position * 101));
  };
  const auto other = some_tokens(100);
  for (const std::size_t end : {1u, 7u, 8u, 9u, 23u, 50u}) {
    CAPTURE(end);
    const std::size_t from = end <= 8 ? 0 : end - 4;  // all that fits the ring, or a chunk
    for (std::size_t to = 0; to <= end + 1; ++to) {
      CAPTURE(to);
      Session session(model, {.context = 100, .chunk = 4, .threads = 1});
      session.read(std::span(tokens).first(end));
      REQUIRE(session.rewindable_from() == from);
      if (to > end || (to > 0 && to < from)) {
        const std::string message = error_of(ErrorCode::argument, [&] { session.rewind(to); });
        CHECK(message == "Session: cannot go to position " + std::to_string(to) + " from " + std::to_string(end) +
                             ", expected 0 or " + std::to_string(from) + " to " + std::to_string(end));
        CHECK(session.position() == end);
        CHECK(same_bits(session.logits(), logits_at(end)));
        continue;
      }
      session.rewind(to);
      CHECK(session.position() == to);
      CHECK(session.tokens().size() == to);
      if (to < end) error_of(ErrorCode::argument, [&] { session.logits(); });
      session.read(std::span(tokens).subspan(to, 3));
      CHECK(same_bits(session.logits(), logits_at(to + 3)));
      // Going back does not bring back what was written over: the furthest position that was read counts.
      if (to > 0) CHECK(session.rewindable_from() == (end <= 8 && to + 3 <= 8 ? 0 : std::max(end, to + 3) - 4));
      session.reset();
      session.read(std::span(tokens).first(6));
      CHECK(session.rewindable_from() == 0);
    }
  }
  // Another text in place of the one that was forgotten leaves nothing of that.
  Session session(model, {.context = 100, .chunk = 4, .threads = 1});
  session.read(std::span(tokens).first(20));
  session.read(std::span(other).first(4));
  session.rewind(20);
  session.read(std::span(tokens).subspan(20));
  CHECK(same_bits(session.logits(), logits_at(60)));
}

TEST_CASE("going back restores the tokens that the table's keys look back to") {
  Model model = random_model<Model>(small_config());
  model.table.set_keys(hashed_ngrams(3, 101));
  const auto tokens = some_tokens(20);
  Session whole(model, {.chunk = 4, .threads = 1}), session(model, {.chunk = 4, .threads = 1});
  whole.read(tokens);
  session.read(std::span(tokens).first(15));
  session.rewind(12);
  session.read(std::span(tokens).subspan(12));
  CHECK(same_bits(session.logits(), whole.logits()));
}

TEST_CASE("a session whose model was changed after it was made is refused, not computed in room for another") {
  Model model = random_model<Model>(small_config());
  InlineExecutor executor;
  Session session(model, {.context = 64, .chunk = 8, .executor = &executor});
  const auto tokens = some_tokens(8);
  session.read(tokens);
  model.table.set_keys(hashed_ngrams(6, 101));
  CHECK(error_of(ErrorCode::argument, [&] { session.read(tokens); }) ==
        "forward: the table's keys are 5 rows a token, looking back 5 tokens; when the state was made they were 1 and "
        "0: make sessions after set_keys");
  CHECK(session.position() == 8);
  Batch batch(model, {.sessions = 1, .executor = &executor});
  Session* const sessions[] = {&session};
  CHECK(error_of(ErrorCode::argument, [&] { batch.read(sessions, std::span(tokens).first(1)); }).find("set_keys") !=
        std::string::npos);
  CHECK(session.position() == 8);
  Session(model, {.context = 64, .chunk = 8, .executor = &executor}).read(tokens);
  model.table.set_keys({});
  session.read(tokens);  // as it was when the session was made

  Gemma4Config wide = small_config();
  wide.hidden_size = 64;
  const Model copy = model;
  Session of_copy(copy, {.executor = &executor});
  model = random_model<Model>(wide);
  CHECK(error_of(ErrorCode::argument, [&] { session.read(tokens); }) ==
        "forward: the state was made by another model, or before this one was replaced");
  of_copy.read(tokens);
  model = copy;
  error_of(ErrorCode::argument, [&] { session.read(tokens); });
}

TEST_CASE("a sliding layer keeps a ring, a full layer the context, a shared layer nothing") {
  const Model model = random_model<Model>(small_config());
  Session session(model, {.context = 100, .chunk = 4});
  // layers 0 and 2: 2 heads x (5 + 4 - 1) slots x 8; layer 1: 2 heads x 100 slots x 16; K and V in f32
  CHECK(session.kv_cache_bytes() == (2 * (2 * 8 * 8) + 2 * 100 * 16) * 2 * sizeof(float));
  const Session half(model, {.context = 100, .chunk = 4, .kv_cache_dtype = Dtype::f16});
  CHECK(half.kv_cache_bytes() == session.kv_cache_bytes() / 2);
}

TEST_CASE("reading a prompt or a token allocates nothing") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = some_tokens(30);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    Session session(model, {.context = 200, .chunk = 8, .threads = 2, .kv_cache_dtype = dtype});
    const std::size_t before = testing::allocations();
    session.read(tokens);
    for (int i = 0; i < 150; ++i) session.read(tokens[0]);
    CHECK(testing::allocations() == before);
  }
}

TEST_CASE("layers that share K and V see only the positions whose logits are wanted") {
  const Model model = random_model<Model>(small_config());
  InlineExecutor executor;
  const auto state = model.make_state({.context = 64, .chunk = 16, .threads = 1});
  const auto tokens = some_tokens(16);
  for (const std::size_t wanted : {0u, 1u, 5u, 16u}) {
    std::vector<std::size_t> rows(model.blocks.size());
    std::vector<float> logits(wanted * 101);
    state->position = 0;
    model.forward(*state, executor, tokens, {logits.data(), wanted, 101, 101}, {},
                  [&](std::string_view what, std::size_t l, Rows r) {
                    if (what == "layer") rows[l] = r.rows;
                  });
    CHECK(rows == std::vector<std::size_t>{16, 16, 16, wanted, wanted});
  }
}

}  // namespace ple::session_test
