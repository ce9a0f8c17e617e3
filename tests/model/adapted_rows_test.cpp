// SPDX-License-Identifier: Apache-2.0
// Trained rows of the PLE table in adapters: what sessions compute with them, wherever the table lives. PEFT's logits
// are compared in adapter_test.cpp.
#include "ple/table/adapted_rows.h"

#include <doctest/doctest.h>

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../allocations.h"
#include "../temporary.h"
#include "adapter_cases.h"
#include "ple/convert/pack_table.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/batch.h"
#include "ple/run/saved_session.h"
#include "ple/table/streamed.h"

namespace ple::adapted_rows_test {

using namespace adapter_cases;
using Backend = testing::ChosenBackend;

namespace {

using Model = Gemma4<Any, Backend>;

const std::filesystem::path folder = data / "golden" / "e2b_like";

Model open_model(const TableStorage& storage = Mapped{}, const CheckpointOptions& options = {}) {
  return Model::load(Checkpoint::open(folder, options), {.table = storage, .threads = 1});
}

/// Rows of 80 values that depend on `seed`.
TrainedRows rows_of(std::vector<RowId> ids, int seed) {
  TrainedRows rows{.ids = std::move(ids), .width = 80};
  rows.values.resize(rows.ids.size() * rows.width);
  for (std::size_t i = 0; i < rows.values.size(); ++i) {
    rows.values[i] = 0.05f * static_cast<float>((static_cast<int>(i) * 37 + seed * 101) % 61 - 30);
  }
  return rows;
}

std::shared_ptr<const Adapter> adapter_of(TrainedRows rows) {
  return std::make_shared<const Adapter>("memory", std::vector<Adapter::Part>(), std::move(rows));
}

std::vector<float> stored_row(const Model& model, RowId id) {
  std::vector<float> row(model.table.cols());
  InlineExecutor executor;
  RowSelection selection = model.table.make_selection(1);
  selection.ids.assign(1, id);
  model.table.gather_stored({executor}, selection, 0, 0, model.blocks.size(), {row.data(), 1, row.size(), row.size()});
  return row;
}

}  // namespace

TEST_CASE("a session with rows has the bits of a table with these rows, wherever the table lives") {
  const auto tokens = tokens_of(folder);
  const TrainedRows rows = rows_of({9, 129, 161, 182, 202}, 1);
  Model replaced = open_model();
  for (std::size_t i = 0; i < rows.ids.size(); ++i) replaced.table.set_row(rows.ids[i], {rows.row(i), rows.width});
  const auto expected = all_logits(replaced, tokens, {.threads = 1}), base = all_logits(open_model(), tokens, {});
  CHECK(largest_difference(base, expected) > 100 * tolerance(base));
  const auto adapter = adapter_of(rows);
  for (const TableStorage& storage : {TableStorage(Mapped{}), TableStorage(Streamed{.budget = 0}),
                                      TableStorage(Streamed{}), TableStorage(Resident{})}) {
    const Model model = open_model(storage);
    for (const std::size_t chunk : {1u, 7u, 60u}) {
      CHECK(same_bits(all_logits(model, tokens, {.chunk = chunk, .threads = 2, .adapters = {{adapter}}}), expected));
      CHECK(same_bits(all_logits(model, tokens, {.chunk = chunk, .threads = 2}), base));
      CHECK(same_bits(all_logits(model, tokens, {.chunk = chunk, .threads = 2, .adapters = {{adapter, 0}}}), base));
    }
    Session session(model, {.context = 64, .adapters = {{adapter}}});
    session.read(tokens);  // the last layers see the last token only
    CHECK(same_bits(session.logits(), std::span(expected).last(model.vocab_size())));
  }
}

TEST_CASE("rows of several adapters add up, scaled") {
  const auto tokens = tokens_of(folder);
  const TrainedRows first = rows_of({9, 129, 161}, 1), second = rows_of({129, 182}, 2);
  const Model model = open_model();
  Model mixed = open_model();
  for (const RowId id : {9u, 129u, 161u, 182u}) {
    const std::vector<float> stored = stored_row(model, id);
    std::vector<float> row = stored;
    for (const auto& [rows, scale] : {std::pair(&first, 0.5f), std::pair(&second, -2.0f)}) {
      const float* trained = rows->find(id);
      for (std::size_t i = 0; trained && i < row.size(); ++i) row[i] += scale * (trained[i] - stored[i]);
    }
    mixed.table.set_row(id, row);
  }
  const auto expected = all_logits(mixed, tokens, {});
  const auto a = adapter_of(first), b = adapter_of(second);
  const auto logits = [&](std::vector<SessionAdapter> some) {
    return all_logits(model, tokens, {.adapters = std::move(some)});
  };
  CHECK(largest_difference(logits({{a, 0.5f}, {b, -2}}), expected) <= tolerance(expected));
  CHECK(largest_difference(logits({{b, -2}, {a, 1.5f}, {a, -1}}), expected) <= tolerance(expected));
  CHECK(same_bits(logits({{a, 1}, {b, 0}}), logits({{a}})));
}

TEST_CASE("a token without a row of its own gets the trained row of the padding token") {
  const Model model = open_model();
  const auto pad = static_cast<RowId>(model.config.pad_token());
  const TrainedRows rows = rows_of({pad}, 3);
  Model replaced = open_model();
  replaced.table.set_row(pad, {rows.row(0), rows.width});
  std::vector<float> soft(model.config.hidden_size, 0.25f);
  const auto logits = [&](const Model& of, const SessionOptions& options) {
    Session session(of, options);
    const Token tokens[] = {5, soft_token, 7};
    session.read(tokens, {soft.data(), 1, soft.size(), soft.size()});
    return std::vector<float>(session.logits().begin(), session.logits().end());
  };
  const auto expected = logits(replaced, {.context = 8});
  CHECK(same_bits(logits(model, {.context = 8, .adapters = {{adapter_of(rows)}}}), expected));
  CHECK(!same_bits(logits(model, {.context = 8}), expected));
}

TEST_CASE("sessions of a batch with and without rows have the bits that each has alone; no token allocates") {
  const auto tokens = tokens_of(folder);
  const Model model = open_model(Streamed{});
  const auto a = adapter_of(rows_of({9, 129, 161}, 1)), b = adapter_of(rows_of({21, 129, 182}, 2)),
             lora = open(adapters / "e2b_lora_rows");
  const std::vector<std::vector<SessionAdapter>> sets = {{}, {{a}}, {{a, 0.5f}, {b}}, {}, {{lora}}, {{b, 2}, {lora}}};
  std::vector<Session> alone, together;
  for (const auto& set : sets) {
    alone.emplace_back(model, SessionOptions{.context = 64, .threads = 1, .adapters = set});
    together.emplace_back(model, SessionOptions{.context = 64, .threads = 1, .adapters = set});
  }
  Batch batch(model, {.sessions = sets.size(), .threads = 1});
  for (std::size_t step = 0; step < 20; ++step) {
    std::vector<Session*> sessions;
    std::vector<Token> next;
    for (std::size_t i = 0; i < sets.size(); ++i) {
      next.push_back(tokens[(step * 7 + i * 3) % tokens.size()]);
      sessions.push_back(&together[i]);
    }
    const std::size_t before = testing::allocations();
    for (std::size_t i = 0; i < sets.size(); ++i) alone[i].read(std::span(next).subspan(i, 1));
    const std::size_t between = testing::allocations();
    batch.read(sessions, next);
    if (step > 0) {  // the batch's first pass makes its workspace for adapters
      CHECK(between == before);
      CHECK(testing::allocations() == between);
    }
    for (std::size_t i = 0; i < sets.size(); ++i) CHECK(same_bits(together[i].logits(), alone[i].logits()));
  }
}

TEST_CASE("an adapter takes its own memory once, and a session that uses it next to none") {
  const Model model = open_model();
  std::vector<SessionAdapter> all;
  std::size_t size = 0;
  std::vector<RowId> ids;
  for (RowId id = 0; id < 200; ++id) ids.push_back(id);
  const std::size_t before = testing::allocated_bytes();
  for (int i = 0; i < 8; ++i) {
    all.push_back({adapter_of(rows_of(ids, i)), 0.1f});
    size += ids.size() * (80 * sizeof(float) + sizeof(RowId));
  }
  const std::size_t taken = testing::allocated_bytes() - before;  // what was given back counts too: rows_of copies ids
  CHECK(taken < size + size / 20 + 8 * 1024);
  const auto bytes_of_session = [&](const std::vector<SessionAdapter>& some) {
    const std::size_t start = testing::allocated_bytes();
    const Session session(model, {.context = 64, .threads = 1, .adapters = some});
    return testing::allocated_bytes() - start;
  };
  CHECK(bytes_of_session(all) < bytes_of_session({}) + 2048);
}

TEST_CASE("a saved session is resumed only with the same rows") {
  const Model model = open_model();
  const auto tokens = tokens_of(folder);
  const auto with = [&](TrainedRows rows) {
    return Session(model, {.context = 64, .adapters = {{adapter_of(std::move(rows))}}});
  };
  Session session = with(rows_of({9, 129}, 1));
  session.read(std::span(tokens).first(9));
  const std::vector<std::byte> saved = SavedSession::save(session);
  Session same = with(rows_of({9, 129}, 1));
  SavedSession::load(same, saved);
  for (const TrainedRows& rows : {rows_of({9, 129}, 2), rows_of({9, 130}, 1)}) {
    Session other = with(rows);
    CHECK_THROWS_WITH_AS(SavedSession::load(other, saved), doctest::Contains("or with other adapters"), Error);
  }
}

TEST_CASE("rows that do not fit a model's table are refused, and the message says why") {
  const auto refused = [](const LanguageModel& model, const TrainedRows& rows, ErrorCode code, const char* part) {
    CAPTURE(part);
    try {
      const Session session(model, {.context = 8, .adapters = {{adapter_of(rows)}}});
      FAIL("no error");
    } catch (const Error& error) {
      CAPTURE(std::string(error.what()));
      CHECK(error.code() == code);
      CHECK(std::string(error.what()).find(part) != std::string::npos);
    }
  };
  const TrainedRows rows = rows_of({9, 129}, 1);
  const Model model = open_model();
  refused(model, rows_of({9, 203}, 1), ErrorCode::argument, "one of them 203, the model's table has 203 rows");
  TrainedRows narrow{.ids = {1}, .width = 79};
  narrow.values.resize(79);
  refused(model, narrow, ErrorCode::shape, "of 79 values, the model's have 80");
  refused(open_model(Pruned{}), rows, ErrorCode::not_supported, "was pruned");
  const auto dense = load_model<Any, Backend>(Checkpoint::open(data / "golden" / "dense_31b_like"));
  refused(*dense, rows, ErrorCode::not_supported, "the model has none");
  const auto gemma3n = load_model<Any, Backend>(Checkpoint::open(data / "golden_gemma3n" / "e2b_like"));
  refused(*gemma3n, rows, ErrorCode::not_supported, "takes no adapters");
  Model ngrams = open_model();
  ngrams.table.set_keys(hashed_ngrams(3, ngrams.table.rows()));
  refused(ngrams, rows, ErrorCode::not_supported, "has 2 for each");

  const testing::TemporaryFolder temporary;
  InlineExecutor executor;
  const std::vector<std::optional<Dtype>> dtypes(10, Dtype::f32);
  pack_table(model, {.dtypes = dtypes, .fold = true}, temporary / "folded", executor);
  pack_table(model, {.dtypes = dtypes, .kept = {0, 9, 129}}, temporary / "cut", executor);
  refused(open_model(Mapped{}, {.table = temporary / "folded"}), rows, ErrorCode::not_supported, "was folded");
  refused(open_model(Mapped{}, {.table = temporary / "cut"}), rows, ErrorCode::not_supported, "was cut down");

  const auto bad = [](const TrainedRows& wrong, const char* part) {
    CHECK_THROWS_WITH_AS(adapter_of(wrong), doctest::Contains(part), Error);
  };
  bad(rows_of({9, 9}, 1), "id 9 follows 9, expected ascending ids");
  TrainedRows few = rows_of({9, 129}, 1);
  few.values.pop_back();
  bad(few, "159 values, expected 2 rows of 80");
}

}  // namespace ple::adapted_rows_test
