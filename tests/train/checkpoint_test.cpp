// SPDX-License-Identifier: Apache-2.0
// Runs that are saved and go on.
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/core/thread_pool.h"
#include "ple/family/gemma4/block.h"
#include "ple/train/checkpoint.h"

namespace ple::checkpoint_test {

namespace {

using Model = Gemma4<Any, testing::ChosenBackend>;

struct Run {
  Model model = Model::load(Checkpoint::open(std::filesystem::path(PLE_TEST_DATA) / "golden" / "e2b_like"));
  std::vector<Token> first = {2, 5, 7, 9, 11, 5, 3}, second = {2, 30, 31, 7, 32};
  std::vector<std::uint8_t> all = std::vector<std::uint8_t>(7, 1);
  TrainingOptions options = {.rank = 2,
                             .weights = {Parameter::post_ple_norm, Parameter::ple_gate},
                             .rows = true,
                             .rate = 1e-3,
                             .schedule = {.steps = 8, .warm_up = 2},
                             .gradient = {.max_tokens = 8, .threads = 2}};
  ThreadPool pool{2};

  /// Steps [begin, end): of one text, then the other, so that rows differ in steps.
  void train(Trainer<Model>& trainer, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const std::vector<Token>& tokens = i % 3 == 2 ? second : first;
      const TrainingSequence sequence{tokens, std::span(all).first(tokens.size())};
      trainer.step(pool, std::span(&sequence, 1));
    }
  }
};

std::vector<float> values(Trainer<Model>& trainer) {
  std::vector<float> all;
  trainer.trained().for_each([&](const TrainedValues& v, bool) {
    all.insert(all.end(), v.values.begin(), v.values.end());
    all.insert(all.end(), v.mean.begin(), v.mean.end());
    all.insert(all.end(), v.variance.begin(), v.variance.end());
    all.push_back(static_cast<float>(v.steps));
  });
  return all;
}

std::string read(const std::filesystem::path& path) {
  std::stringstream all;
  all << std::ifstream(path, std::ios::binary).rdbuf();
  return all.str();
}

}  // namespace

TEST_CASE("a saved run goes on with the same bits; its notes come back") {
  Run run;
  const testing::TemporaryFolder folder;
  Trainer<Model> whole(run.model, run.options), before(run.model, run.options), after(run.model, run.options);
  run.train(whole, 0, 8);
  run.train(before, 0, 5);
  save_checkpoint(before, folder / "run", {{"held-out", "1.5\n\"2\""}});
  run.train(after, 0, 1);  // forgotten
  CHECK(load_checkpoint(after, folder / "run") == std::map<std::string, std::string>{{"held-out", "1.5\n\"2\""}});
  CHECK(after.steps() == 5);
  CHECK(values(after) == values(before));
  run.train(after, 5, 8);
  CHECK(values(after) == values(whole));
}

TEST_CASE("a checkpoint that is damaged, or of another run, changes nothing") {
  Run run;
  const testing::TemporaryFolder folder;
  Trainer<Model> trainer(run.model, run.options);
  run.train(trainer, 0, 3);
  save_checkpoint(trainer, folder / "run");
  const std::string good = read(folder / "run");
  const std::vector<float> kept = values(trainer);
  const auto check_error = [&](Trainer<Model>& into, const std::string& bytes, ErrorCode code,
                               const std::string& part) {
    std::ofstream(folder / "bad", std::ios::binary) << bytes;
    std::string message = "no error";
    try {
      load_checkpoint(into, folder / "bad");
    } catch (const Error& error) {
      CHECK(error.code() == code);
      message = error.what();
    }
    CAPTURE(message);
    CHECK(message.find(part) != message.npos);
    CHECK(message.find("bad") != message.npos);
    CHECK(values(trainer) == kept);
  };
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    REQUIRE(bytes.find(from) != bytes.npos);
    return bytes.replace(bytes.find(from), from.size(), to);
  };
  std::string flipped = good;
  flipped[flipped.size() - 3] = static_cast<char>(flipped[flipped.size() - 3] ^ 1);
  check_error(trainer, flipped, ErrorCode::malformed, "checksum");
  check_error(trainer, good.substr(0, good.size() - 4), ErrorCode::malformed, "");
  check_error(trainer, with("ple training 1", "ple training 9"), ErrorCode::malformed, "ple training 9");
  check_error(trainer, with("\"steps\":\"3\"", "\"steps\":\"x\""), ErrorCode::malformed, "steps is 'x'");
  check_error(trainer, with("\"rows.steps\"", "\"rows.other\""), ErrorCode::missing, "rows.steps");
  TrainingOptions other = run.options;
  other.rate = 5e-3;
  Trainer<Model> faster(run.model, other);
  check_error(faster, good, ErrorCode::argument, "rate 0.005");
  other = run.options;
  other.only_rows = {7, 9};
  Trainer<Model> narrower(run.model, other);
  check_error(narrower, good, ErrorCode::argument, "row 7, row 9");
  other = run.options;
  other.weights.pop_back();
  Trainer<Model> fewer(run.model, other);
  check_error(fewer, good, ErrorCode::argument, "tensors");
}

TEST_CASE("a loss that is no number stops the step before anything changes") {
  Run run;
  Trainer<Model> trainer(run.model, run.options);
  run.train(trainer, 0, 2);
  trainer.trained().adapters.begin()->second.a.values[0] = std::numeric_limits<float>::infinity();
  const std::vector<float> before = values(trainer);
  try {
    run.train(trainer, 0, 1);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::not_finite);
    CHECK(std::string(error.what()).find("step 3") != std::string::npos);
  }
  CHECK(values(trainer) == before);
  CHECK(trainer.steps() == 2);
}

TEST_CASE("rows move by their rate when a text first needs them, however late; others do not move") {
  Run run;
  run.options.adapters.clear();
  run.options.weights.clear();
  run.options.schedule = {.steps = 1000, .warm_up = 0};
  run.options.row_rate = 0.01;
  run.options.clip = 0;
  Trainer<Model> trainer(run.model, run.options);
  run.train(trainer, 0, 2);
  CHECK(trainer.trained().rows.count(30) == 0);
  const auto token = trainer.trained().rows.at(9);
  run.train(trainer, 2, 3);
  CHECK(trainer.trained().rows.at(9).values == token.values);
  const TrainedValues& row = trainer.trained().rows.at(30);
  std::vector<float> table(row.values.size());
  RowSelection selection = run.model.table.make_selection(1);
  selection.ids = {30};
  InlineExecutor executor;
  run.model.table.gather_stored(Context(executor), selection, 0, 0, run.model.blocks.size(),
                                {table.data(), 1, table.size(), table.size()});
  std::size_t moved = 0;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const float move = std::abs(row.values[i] - table[i]);
    CHECK(move < 0.0101f);
    moved += move > 0.0099f;
  }
  CHECK(moved > table.size() / 2);
}

TEST_CASE("sequences and options that cannot be trained are refused") {
  Run run;
  const auto check_error = [&](const TrainingSequence& sequence, const std::string& part) {
    Trainer<Model> trainer(run.model, run.options);
    std::string message = "no error";
    try {
      trainer.step(run.pool, std::span(&sequence, 1));
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::argument);
      message = error.what();
    }
    CAPTURE(message);
    CHECK(message.find(part) != message.npos);
  };
  const std::vector<Token> tokens(9, 3), wrong = {2, 3, 1 << 20};
  const std::vector<std::uint8_t> all(9, 1), none(9, 0);
  const std::size_t begins[] = {0, 3, 3}, late[] = {1};
  check_error({tokens, all}, "9 tokens, at most 8");
  check_error({std::span(tokens).first(4), all}, "9 marks for 4 tokens");
  check_error({std::span(tokens).first(4), std::span(none).first(4)}, "no token of the batch counts");
  check_error({std::span(tokens).first(1), std::span(all).first(1)}, "no token of the batch counts");
  check_error({wrong, std::span(all).first(3)}, "1048576");
  check_error({std::span(tokens).first(8), std::span(all).first(8), begins}, "text 2 begins at 3");
  check_error({std::span(tokens).first(8), std::span(all).first(8), late}, "text 0 begins at 1");
  run.options.adapters = {Parameter::token_embedding};
  CHECK_THROWS_AS(Trainer<Model>(run.model, run.options), Error);
  run.options.adapters = {};
  run.options.weights = {Parameter::query};
  CHECK_THROWS_AS(Trainer<Model>(run.model, run.options), Error);
}

}  // namespace ple::checkpoint_test
