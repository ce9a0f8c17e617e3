// SPDX-License-Identifier: Apache-2.0
// What Gemma 3n has of its own beside the logits (tests/model/golden_test.cpp): tokens past the table's end, its table
// in every form, its copies of weights.
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "../allocations.h"
#include "../temporary.h"
#include "ple/convert/pack_table.h"
#include "ple/family/gemma3n/block.h"
#include "ple/ple.h"

namespace ple::gemma3n_test {

namespace {

using Best = testing::ChosenBackend;
using Model = Gemma3n<Any, Best>;

/// Ten layers, the first four sparse, the last five shared; 140 tokens, of which 110 have rows.
const std::filesystem::path folder = std::filesystem::path(PLE_TEST_DATA) / "golden_gemma3n" / "e2b_like";
constexpr std::size_t layers = 10, vocab_size = 140, rows = 110;

Model open(const TableStorage& storage = Mapped{}, const std::filesystem::path& table = {}) {
  return Model::load(Checkpoint::open(folder, {.table = table}), {.table = storage});
}

Model packed(const Model& original, const testing::TemporaryFolder& temporary, PackOptions options,
             const TableStorage& storage = Mapped{}) {
  InlineExecutor executor;
  pack_table(original, std::move(options), temporary / "table", executor);
  return open(storage, temporary / "table");
}

std::vector<std::optional<Dtype>> all_layers(Dtype dtype) { return std::vector<std::optional<Dtype>>(layers, dtype); }

/// Every token once, those without rows among the others.
std::vector<Token> text() {
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < vocab_size; ++i) tokens.push_back(static_cast<Token>(i * 37 % vocab_size));
  return tokens;
}

std::vector<float> logits_of(const Model& model, const std::vector<Token>& tokens, std::size_t chunk = 7) {
  Session session(model, {.context = 256, .chunk = chunk, .threads = 2});
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("Gemma 3n: the table's place, type and folding change no bit, for tokens without a row neither") {
  testing::TemporaryFolder temporary;
  const Model original = open();
  const std::vector<float> expected = logits_of(original, text());
  for (const TableStorage& storage : {TableStorage(Resident{}), TableStorage(Streamed{}),
                                      TableStorage(Streamed{.budget = 0}), TableStorage(Mapped{.budget = 10'000})}) {
    CHECK(same(logits_of(open(storage), text()), expected));
    CHECK(same(logits_of(packed(original, temporary, {.dtypes = all_layers(Dtype::f32)}, storage), text()), expected));
    const Model folded = packed(original, temporary, {.dtypes = all_layers(Dtype::f32), .fold = true}, storage);
    CHECK(folded.table.folded());
    for (const std::size_t chunk : {1u, 7u, 140u}) CHECK(same(logits_of(folded, text(), chunk), expected));
  }
}

TEST_CASE("Gemma 3n: a table whose depths have types of their own, or none") {
  testing::TemporaryFolder temporary;
  const Model original = open();
  auto dtypes = all_layers(Dtype::bf16);
  dtypes[0] = Dtype::f16;
  dtypes[3] = dtypes[9] = std::nullopt;
  const std::vector<float> logits = logits_of(original, text()), none = logits_of(open(Pruned{}), text()),
                           some = logits_of(packed(original, temporary, {.dtypes = dtypes}, Streamed{}), text());
  const auto distance = [&](const std::vector<float>& other) {
    double sum = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) sum += std::pow(double(logits[i]) - double(other[i]), 2);
    return std::sqrt(sum);
  };
  CHECK(distance(some) > 0);
  CHECK(distance(none) > distance(some));
  dtypes = std::vector<std::optional<Dtype>>(layers);
  CHECK(same(logits_of(packed(original, temporary, {.dtypes = dtypes}), text()), none));
}

TEST_CASE("Gemma 3n: tokens past the table's end, and positions that are no text, have the row of token 0") {
  Model model = open();
  const std::vector<float> expected = logits_of(model, text());
  const std::size_t d = model.hidden_size();
  // Their own embedding as a soft token: nothing is left of the token but its row.
  std::vector<float> embedding(d);
  visit_floats(model.embedding, [&](const auto& matrix) {
    Best::decode(matrix.row(rows + 5), d, embedding.data());
    Best::scale(std::sqrt(static_cast<float>(d)), d, embedding.data());
  });
  const auto last_logits = [&](Token token, Rows soft) {
    Session session(model, {.context = 16, .threads = 1});
    session.read(std::vector<Token>{2, token}, soft);
    return std::vector<float>(session.logits().begin(), session.logits().end());
  };
  CHECK(same(last_logits(rows + 5, {}), last_logits(soft_token, {embedding.data(), 1, d, d})));
  const std::vector<float> before = last_logits(rows + 5, {}), other = last_logits(7, {});
  model.table.set_row(0, std::vector<float>(model.table.cols(), 1.0f));
  CHECK_FALSE(same(last_logits(rows + 5, {}), before));
  CHECK(same(last_logits(7, {}), other));
  CHECK(message([&] { last_logits(vocab_size, {}); }).find("expected 0 to 139") != std::string::npos);
}

TEST_CASE("Gemma 3n: a cut-down vocabulary drops the tokens that have no row with those that were left out") {
  testing::TemporaryFolder temporary;
  const Model original = open();
  const std::vector<Token> kept = {0, 3, 6, 9, 99}, tokens = {3, 9, 99, 0};
  const Model model = packed(original, temporary, {.dtypes = all_layers(Dtype::f32), .kept = kept});
  const std::vector<float> all = logits_of(original, tokens), logits = logits_of(model, tokens);
  bool good = true;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const auto token = static_cast<Token>(i % vocab_size);
    const bool has = std::find(kept.begin(), kept.end(), token) != kept.end();
    good &= has ? logits[i] == all[i] : logits[i] == -std::numeric_limits<float>::infinity();
  }
  CHECK(good);
  for (const Token token : {4, 120}) {
    CHECK(message([&] {
            logits_of(model, {3, token});
          }) == "token " + std::to_string(token) + " has no row: it was left out when the table was packed");
  }
}

TEST_CASE("Gemma 3n: no token allocates memory") {
  const Model model = open(Streamed{});
  Session session(model, {.context = 200, .chunk = 8, .threads = 2});
  const std::vector<Token> tokens = text();
  const std::size_t before = testing::allocations();
  session.read(tokens);
  for (int i = 0; i < 20; ++i) session.read(tokens[1]);
  CHECK(testing::allocations() == before);
}

TEST_CASE("a checkpoint of one family is not one of the other") {
  const auto gemma3n = Checkpoint::open(folder);
  CHECK(message([&] { static_cast<void>(gemma3n.config<Gemma4Config>()); }) ==
        folder.string() + ": is a Gemma 3n model, expected Gemma 4: load_model() opens every family");
  const auto gemma4 = Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller");
  CHECK(message([&] { Model::load(gemma4); }).find("is a Gemma 4 model, expected Gemma 3n") != std::string::npos);
}

}  // namespace ple::gemma3n_test
