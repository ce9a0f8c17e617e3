// SPDX-License-Identifier: Apache-2.0
// Sessions that forget the end of their text, that branch, and that give the logits of several positions: always the
// bits of a session that has read the text from its beginning.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../allocations.h"
#include "../model/random_model.h"
#include "../table/failing_storage.h"
#include "ple/checkpoint/hf_folder.h"
#include "ple/run/batch.h"
#include "ple/run/saved_session.h"
#include "ple/run/session.h"
#include "ple/table/row_keys.h"

namespace ple::fork_test {

using ple::testing::random_model;
using ple::testing::small_config;

namespace {

using Model = Gemma4<f32, Simd>;
constexpr std::size_t vocab = 101;

/// small_config with heads of whole q8_0 blocks: a window of 5, shorter than all texts here.
Gemma4Config config() {
  Gemma4Config c = small_config();
  for (auto& layer : c.layers) layer.head_dim = 32;
  return c;
}

std::vector<Token> text(std::size_t n, std::size_t seed = 11) {
  std::vector<Token> tokens(n);
  for (std::size_t i = 0; i < n; ++i) tokens[i] = static_cast<Token>((i * i * 7 + i * 37 + seed) % vocab);
  return tokens;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
         });
}

/// What a new session says after each token, [tokens, vocab].
std::vector<float> logits_of(const LanguageModel& model, std::span<const Token> tokens, SessionOptions options) {
  options.keep = 0;
  Session session(model, options);
  std::vector<float> all;
  for (const Token token : tokens) {
    session.read(token);
    all.insert(all.end(), session.logits().begin(), session.logits().end());
  }
  return all;
}

std::span<const float> row(const std::vector<float>& logits, std::size_t t) {
  return std::span(logits).subspan(t * vocab, vocab);
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

/// The first `count` of a and all of b.
std::vector<Token> joined(std::span<const Token> a, std::size_t count, std::span<const Token> b) {
  std::vector<Token> all(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(count));
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

}  // namespace

TEST_CASE("after truncate another text gives the bits of a new session, in every type of K and V, chunk and keep") {
  const Model model = random_model<Model>(config());
  const auto first = text(40), second = text(9, 60);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::q8_0}) {
    for (const std::size_t chunk : {1u, 3u, 16u}) {
      for (const std::size_t keep : {0u, 1u, 10u, 1000u}) {
        CAPTURE(name_of(dtype));
        CAPTURE(chunk);
        CAPTURE(keep);
        const SessionOptions options{
            .context = 60, .chunk = chunk, .threads = 1, .kv_cache_dtype = dtype, .keep = keep};
        Session session(model, options);
        session.read(first);
        // The ring has a window of 5, chunk - 1 and keep; what is still there less what a token sees.
        const std::size_t slots = std::min<std::size_t>(60, 5 + chunk - 1 + keep);
        const std::size_t to = slots >= 40 ? 0 : 40 - slots + 4;
        REQUIRE(session.truncatable_to() == to);
        if (to > 1) {
          CHECK(error_of(ErrorCode::argument, [&] { session.truncate(to - 1); }) ==
                "Session: cannot go to position " + std::to_string(to - 1) + " from 40, expected 0 or " +
                    std::to_string(to) + " to 40");
          CHECK(session.position() == 40);
        }
        for (const std::size_t position : {std::size_t{40}, std::size_t{39}, (to + 40) / 2, to}) {
          const auto expected = logits_of(model, joined(first, position, second), options);
          session.truncate(position);
          CHECK(session.position() == position);
          Session branch = session.fork();  // truncated, too, and goes on alone
          branch.read(second);
          CHECK(same_bits(branch.logits(), row(expected, position + 8)));
          if (position > to) continue;
          session.read(second);
          CHECK(same_bits(session.logits(), row(expected, position + 8)));
          break;
        }
      }
    }
  }
}

TEST_CASE("the lines of the README") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = text(100), draft = text(5);
  ple::Session session(model, {.context = 256, .keep = 64});  // may go back 64 tokens further than its windows need
  session.read(tokens);
  ple::Session other = session.fork();                  // the same past; each goes on alone
  const ple::Rows logits = session.read_logits(draft);  // what follows each of these tokens: [tokens, vocab_size]
  session.truncate(session.position() - 2);             // forgets the last two
  CHECK(logits.rows == 5);
  other.read(std::span(draft).first(3));
  other.read(draft[0]);
  session.read(draft[0]);
  CHECK(same_bits(session.logits(), other.logits()));
}

TEST_CASE("keep makes room for going back, and K and V that much larger") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = text(90);
  Session session(model, {.context = 100, .chunk = 4, .threads = 1, .keep = 20});
  const Session plain(model, {.context = 100, .chunk = 4, .threads = 1});
  // Layers 0 and 2: 2 heads, 20 more slots of 8 values, K and V in f32.
  CHECK(session.kv_cache_bytes() - plain.kv_cache_bytes() == 2 * (2 * 20 * 8) * 2 * sizeof(float));
  session.read(tokens);
  CHECK(session.truncatable_to() == 66);  // 90 - 4 - 20
  session.truncate(66);
  CHECK(session.truncatable_to() == 66);  // what was written over stays gone
  session.read(std::span(tokens).subspan(66));
  CHECK(same_bits(session.logits(), row(logits_of(model, tokens, {.context = 100}), 89)));
  CHECK(Session(model, {.context = 100, .keep = ~std::size_t{0}}).kv_cache_bytes() ==
        Session(model, {.context = 100, .chunk = 100}).kv_cache_bytes());
}

TEST_CASE("the old names of truncate go the same way") {
  const Model model = random_model<Model>(small_config());
  Session session(model, {.context = 20, .threads = 1});
  session.read(text(10));
  CHECK(session.rewindable_from() == session.truncatable_to());
  session.rewind(8);
  CHECK(session.position() == 8);
}

TEST_CASE("a fork and its original go on apart, with the bits they have without each other") {
  Model model = random_model<Model>(small_config());
  for (const bool keyed : {false, true}) {
    if (keyed) model.table.set_keys(hashed_ngrams(3, vocab));  // a row looks back two tokens
    const auto past = text(23), left = text(20, 50), right = text(20, 80);
    const SessionOptions options{.context = 64, .chunk = 4, .threads = 2};
    const auto expected_left = logits_of(model, joined(past, 23, left), options);
    const auto expected_right = logits_of(model, joined(past, 23, right), options);
    Session session(model, options);
    CHECK(session.fork().position() == 0);
    session.read(past);
    Session fork = session.fork();
    CHECK(fork.position() == 23);
    CHECK(fork.truncatable_to() == session.truncatable_to());
    CHECK(std::ranges::equal(fork.tokens(), past));
    CHECK(same_bits(fork.logits(), session.logits()));
    std::size_t wrong = 0, wrong_fork = 0;
    std::thread other([&] {
      for (std::size_t i = 0; i < right.size(); ++i) {
        fork.read(right[i]);
        wrong_fork += !same_bits(fork.logits(), row(expected_right, 23 + i));
      }
    });
    for (std::size_t i = 0; i < left.size(); ++i) {
      session.read(left[i]);
      wrong += !same_bits(session.logits(), row(expected_left, 23 + i));
    }
    other.join();
    CHECK(wrong == 0);
    CHECK(wrong_fork == 0);
    // One that outlives its original.
    auto parent = std::make_unique<Session>(model, options);
    parent->read(past);
    Session child = parent->fork();
    parent.reset();
    child.truncate(21);
    child.read(std::span(past).subspan(21));
    child.read(left);
    CHECK(same_bits(child.logits(), row(expected_left, 42)));
    Session* const both[] = {&session, &child};
    const Token next[] = {5, 6};
    Batch(model, {.sessions = 2, .threads = 2}).read(both, next);
    CHECK(child.position() == 44);
  }
}

TEST_CASE("a fork of a session that was loaded, or whose last prompt failed, is as that one") {
  const Model model = random_model<Model>(small_config());
  const SessionOptions options{.context = 64, .chunk = 8, .threads = 1};
  const auto tokens = text(40);
  Session session(model, options), loaded(model, options);
  error_of(ErrorCode::cancelled, [&] { session.read(tokens, [](std::size_t, std::size_t) { return false; }); });
  CHECK(session.position() == 8);
  Session fork = session.fork();
  CHECK(error_of(ErrorCode::argument, [&] { fork.logits(); }).find("no logits") != std::string::npos);
  fork.read(std::span(tokens).subspan(8, 22));
  SavedSession::load(loaded, SavedSession::save(fork));
  Session other = loaded.fork();
  CHECK(other.truncatable_to() == 29);  // a window of 5 was saved
  other.read(std::span(tokens).subspan(30));
  CHECK(same_bits(other.logits(), row(logits_of(model, tokens, options), 39)));
  Model changed = random_model<Model>(small_config());
  Session of_changed(changed, options);
  changed = random_model<Model>(small_config(), 2);
  CHECK(error_of(ErrorCode::argument, [&] { of_changed.fork(); }).find("another model") != std::string::npos);
}

TEST_CASE("logits of the last positions of a text have the bits of reading token by token") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = text(50);
  const auto expected = logits_of(model, tokens, {.context = 64, .threads = 1});
  for (const std::size_t chunk : {1u, 7u, 16u, 64u}) {
    for (const std::size_t last : {0u, 1u, 5u, 16u, 20u, 49u, 50u, 1000u}) {
      CAPTURE(chunk);
      CAPTURE(last);
      Session session(model, {.context = 64, .chunk = chunk, .threads = 1});
      const Rows rows = session.read_logits(tokens, last);
      const std::size_t count = std::min<std::size_t>(last, 50);
      REQUIRE(rows.rows == count);
      REQUIRE(rows.cols == vocab);
      bool same = true;
      for (std::size_t r = 0; r < count; ++r)
        same = same && same_bits({rows.row(r), vocab}, row(expected, 50 - count + r));
      CHECK(same);
      if (count > 0) CHECK(same_bits(session.logits(), row(expected, 49)));
      CHECK(session.position() == 50);
    }
  }
  Session session(model, {.context = 64, .chunk = 16, .threads = 1});
  session.read_logits(tokens.size() > 4 ? std::span(tokens).first(4) : tokens);
  const std::size_t before = testing::allocations();
  const Rows rows = session.read_logits(std::span(tokens).subspan(4, 4));
  CHECK(testing::allocations() == before);  // room for four is there
  CHECK(same_bits({rows.row(0), vocab}, row(expected, 4)));
  CHECK(session.read_logits({}).rows == 0);
  CHECK(same_bits(session.logits(), row(expected, 7)));
  CHECK(error_of(ErrorCode::argument, [&] { session.read_logits(text(60)); }).find("go past the context of 64") !=
        std::string::npos);
}

TEST_CASE("a token that the model has no row for is refused before anything is read") {
  Gemma4Config fewer = small_config();
  fewer.vocab_size_per_layer_input = 60;
  const Model model = random_model<Model>(fewer);
  CHECK(model.token_limit() == 60);
  Session session(model, {.context = 64, .chunk = 4, .threads = 1});
  std::vector<Token> tokens(20, 3);
  tokens[17] = 60;
  const std::string expected = "Session: token 60, expected 0 to 59";
  CHECK(error_of(ErrorCode::argument, [&] { session.read(tokens); }) == expected);
  CHECK(error_of(ErrorCode::argument, [&] { session.read_logits(tokens); }) == expected);
  CHECK(error_of(ErrorCode::argument, [&] { session.evaluate(tokens, [](std::size_t, std::span<const float>) {}); }) ==
        expected);
  CHECK(session.position() == 0);
  Session* const one[] = {&session};
  CHECK(error_of(ErrorCode::argument, [&] {
          Batch(model, {.threads = 1}).read(one, std::span(tokens).subspan(17, 1));
        }) == "Batch: session 0: token 60, expected 0 to 59");
  tokens[17] = 59;
  session.read(tokens);
  CHECK(session.position() == 20);
}

TEST_CASE("sessions with as many threads share a pool, which goes with the last of them") {
  const auto a = shared_pool(3), b = shared_pool(3), c = shared_pool(2);
  CHECK(a == b);
  CHECK(a != c);
  CHECK(shared_pool() == shared_pool(std::max(1u, std::thread::hardware_concurrency())));
  const Model model = random_model<Model>(small_config());
  std::weak_ptr<ThreadPool> gone = shared_pool(5);
  CHECK(gone.expired());
  {
    Session first(model, {.context = 16, .threads = 5}), second(model, {.context = 16, .threads = 5});
    Batch batch(model, {.sessions = 2, .threads = 5});
    gone = shared_pool(5);
    CHECK(gone.use_count() == 3);
    Session* const both[] = {&first, &second};
    batch.read(both, std::vector<Token>{1, 2});
    InlineExecutor executor;
    Session told(model, {.context = 16, .threads = 5, .executor = &executor});
    CHECK(gone.use_count() == 3);
  }
  CHECK(gone.expired());
}

}  // namespace ple::fork_test
