// SPDX-License-Identifier: Apache-2.0
// How often a row of the PLE table is selected, asked for and read.
#include "ple/model/per_layer_inputs.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ple/ple.h"
#include "ple/table/streamed.h"

namespace ple::per_layer_inputs_test {

namespace {

using Model = Gemma4<Any, Simd>;

/// Ten layers, of which the last five share K and V; 203 tokens.
const std::filesystem::path folder = std::filesystem::path(PLE_TEST_DATA) / "golden" / "e2b_like";

struct Calls {
  std::size_t selected = 0, requests = 0, pins = 0;
  bool operator==(const Calls&) const = default;
};

/// Nothing is kept for later; counts calls.
struct CountingStorage {
  std::shared_ptr<Calls> calls;

  std::shared_ptr<RowStore> open(const TableSource& source) const {
    struct Store final : RowStore {
      std::shared_ptr<RowStore> rows;
      std::shared_ptr<Calls> calls;
      Store(std::shared_ptr<RowStore> r, std::shared_ptr<Calls> c) : rows(std::move(r)), calls(std::move(c)) {}
      std::size_t most_at_once() const override { return rows->most_at_once(); }
      void request(std::span<const RowId> ids) noexcept override {
        ++calls->requests;
        rows->request(ids);
      }
      void pin(std::span<const RowId> ids, std::span<const std::byte*> addresses) override {
        ++calls->pins;
        rows->pin(ids, addresses);
      }
      void unpin(std::span<const RowId> ids) noexcept override { rows->unpin(ids); }
      TableCounters counters() const override { return rows->counters(); }
    };
    return std::make_shared<Store>(Streamed{.budget = 0}.open(source), calls);
  }
};

Model open(const TableStorage& storage) {
  return Model::load(Checkpoint::open(folder), {.table = storage, .threads = 1});
}

/// A row that depends on a token, those before it and `other`; counts.
RowKeys counted_keys(std::shared_ptr<Calls> calls, Token other = 0, std::size_t history = 0) {
  return {.history = history,
          .ids = [calls = std::move(calls), other](std::span<const Token> window, std::span<RowId> ids) {
            ++calls->selected;
            Token sum = other;
            for (const Token token : window) sum = 3 * sum + token;
            ids[0] = static_cast<RowId>(sum % 203);
          }};
}

std::vector<float> logits_of(const Session& session) { return {session.logits().begin(), session.logits().end()}; }

}  // namespace

TEST_CASE("a pass reads each row once from a table that keeps nothing, and counts it once") {
  const Model model = open(Streamed{.budget = 0});
  const std::size_t row_bytes = model.table.layout().row_bytes();
  Session session(model, {.chunk = 4, .threads = 1});
  TableCounters before = model.table.counters();
  const auto read = [&](const std::vector<Token>& tokens) {
    session.read(tokens);
    const TableCounters now = model.table.counters();
    const std::pair rows{now.rows_asked - before.rows_asked, (now.bytes_read - before.bytes_read) / row_bytes};
    before = now;
    return rows;
  };
  CHECK(read({7, 8, 7}) == std::pair<std::uint64_t, std::uint64_t>{2, 2});
  CHECK(read({9}) == std::pair<std::uint64_t, std::uint64_t>{1, 1});
  CHECK(read({1, 2, 3, 4, 5, 6, 7, 1, 1}) == std::pair<std::uint64_t, std::uint64_t>{9, 9});  // in three passes
  Generation generation(session, {.max_tokens = 3});
  while (generation.next()) {
  }
  generation.flush();
  CHECK(model.table.counters().rows_asked == before.rows_asked + 3);
  CHECK(model.table.counters().bytes_read == before.bytes_read + 3 * row_bytes);
}

TEST_CASE("a token's row is selected, requested and pinned once, whoever asked first") {
  const auto calls = std::make_shared<Calls>();
  Model model = open(CountingStorage{calls});
  model.table.set_keys(counted_keys(calls));
  Session session(model, {.threads = 1}), other(model, {.threads = 1});
  const auto calls_of = [&](auto&& f) {
    *calls = {};
    f();
    return *calls;
  };
  const std::vector<Token> tokens{5, 6, 5, 9};
  const Token token = 7;
  CHECK(calls_of([&] { session.read(tokens); }) == Calls{4, 1, 1});
  CHECK(calls_of([&] { session.read(token); }) == Calls{1, 1, 1});
  CHECK(calls_of([&] {
          session.prefetch(std::span(&token, 1));
          session.read(token);
        }) == Calls{1, 1, 1});
  CHECK(calls_of([&] {
          session.prefetch(tokens);
          session.read(std::span(tokens).first(2));  // less than was asked for
        }) == Calls{4, 2, 1});
  other.read(tokens);
  Batch batch(model, {.sessions = 2, .threads = 1});
  const std::vector<Session*> sessions{&session, &other};
  const std::vector<Token> next{7, 8};
  CHECK(calls_of([&] { batch.read(sessions, next); }) == Calls{2, 1, 1});
  CHECK(calls_of([&] {
          session.prefetch(std::span(next).first(1));
          other.prefetch(std::span(next).last(1));
          batch.read(sessions, next);
        }) == Calls{2, 2, 1});
}

TEST_CASE("rows that were prefetched are not used for another text, nor after the table has changed") {
  const auto calls = std::make_shared<Calls>();
  Model model = open(CountingStorage{calls});
  model.table.set_keys(counted_keys(calls, 0, 2));
  const std::vector<Token> text{5, 6, 9, 4}, changed{5, 6, 8};
  const Token token = 4;
  const auto fresh = [&](std::vector<Token> tokens) {
    tokens.push_back(token);
    Session session(model, {.threads = 1});
    for (const Token t : tokens) session.read(t);
    return logits_of(session);
  };
  Session session(model, {.threads = 1});
  for (const Token t : {5, 6, 9}) session.read(t);
  session.prefetch(std::span(&token, 1));
  session.rewind(2);
  session.read(8);
  session.read(token);
  CHECK(logits_of(session) == fresh(changed));

  session.rewind(3);
  session.prefetch(std::span(&token, 1));
  const std::vector<float> old = fresh(changed);
  model.table.set_keys(counted_keys(calls, 1, 2));
  session.read(token);
  const std::vector<float> now = logits_of(session);
  CHECK(now != old);
  session.rewind(3);
  session.read(token);
  CHECK(logits_of(session) == now);
}

}  // namespace ple::per_layer_inputs_test
