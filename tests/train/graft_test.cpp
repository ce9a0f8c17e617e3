// SPDX-License-Identifier: Apache-2.0
// PLE in a model that had none, and models written with what was trained. That transformers computes what grafted
// models compute is in tests/model/golden_test.cpp and gradient_test.cpp (golden_gemma3/with_ple).
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../family/gemma3_gguf.h"
#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/core/thread_pool.h"
#include "ple/family/families.h"
#include "ple/run/session.h"
#include "ple/train/graft.h"
#include "ple/train/trained_model.h"
#include "ple/train/trainer.h"

namespace ple::graft_test {

namespace {

using Model = Gemma3<Any, testing::ChosenBackend>;
const std::filesystem::path data = PLE_TEST_DATA, golden = data / "golden_gemma3";

std::vector<float> logits_of(const std::filesystem::path& path, const TableStorage& table = Mapped{}) {
  const Model model = Model::load(Checkpoint::open(path), {.table = table});
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < 40; ++i) tokens.push_back(static_cast<Token>(i * 37 % model.vocab_size()));
  Session session(model, {.context = 64, .chunk = 16, .threads = 2});
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

constexpr Parameter ple_weights[] = {Parameter::ple_context_projection, Parameter::ple_context_norm,
                                     Parameter::ple_gate, Parameter::ple_output, Parameter::post_ple_norm};

TrainingOptions all_of_ple() {
  return {.adapters = {},
          .weights = {std::begin(ple_weights), std::end(ple_weights)},
          .rows = true,
          .rate = 1e-2,
          .gradient = {.max_tokens = 16, .threads = 2}};
}

/// Trains a few steps, writes the model to `to`. Returns the loss after the last.
double train(const std::filesystem::path& from, const std::filesystem::path& to) {
  const Model model = Model::load(Checkpoint::open(from));
  Trainer<Model> trainer(model, all_of_ple());
  const std::vector<Token> tokens = {5, 9, 60, 9, 33, 7, 5, 12, 88, 4, 60};
  const std::vector<std::uint8_t> learnt(tokens.size(), 1);
  const TrainingSequence text{tokens, learnt};
  ThreadPool pool(2);
  const double before = trainer.evaluate(pool, {&text, 1});
  for (int i = 0; i < 6; ++i) trainer.step(pool, {&text, 1});
  const double after = trainer.evaluate(pool, {&text, 1});
  CHECK(after < before);
  check_trained_model(from, trainer.trained());
  write_trained_model(from, trainer.trained(), to);
  const Model written = Model::load(Checkpoint::open(to));
  const double found =
      Trainer<Model>(written, {.gradient = {.max_tokens = 16, .threads = 2}}).evaluate(pool, {&text, 1});
  // A folder's norms are rounded with the 1 that they lack, a table in bf16 is rounded, too.
  const Checkpoint checkpoint = Checkpoint::open(from);
  const bool is_file = !std::filesystem::is_directory(from),
             is_f32 = checkpoint.tensor(Parameter::ple_table).dtype == Dtype::f32;
  CHECK(std::abs(found - after) <= (is_f32 ? (is_file ? 0 : 1e-6) : 1e-3) * after);
  CHECK(found != before);
  return after;
}

}  // namespace

TEST_CASE("a grafted model has PLE and answers as before: folders of every kind, GGUF files") {
  const testing::TemporaryFolder temporary;
  for (const std::string name : {"270m_like", "270m_like_bf16", "4b_like", "27b_like", "published_style"}) {
    CAPTURE(name);
    graft_ple(golden / name, {.width = 12}, temporary / name);
    const Checkpoint grafted = Checkpoint::open(temporary / name);
    CHECK(grafted.config<Gemma3Config>().hidden_size_per_layer_input == 12);
    CHECK(grafted.config<Gemma3Config>().vocab_size_per_layer_input == grafted.config<Gemma3Config>().vocab_size);
    CHECK(logits_of(temporary / name) == logits_of(golden / name));
  }
  testing::gemma3_gguf_of(golden / "270m_like").write(temporary / "base.gguf");
  graft_ple(temporary / "base.gguf", {.width = 8, .seed = 3}, temporary / "grafted.gguf");
  CHECK(Checkpoint::open(temporary / "grafted.gguf").config<Gemma3Config>().hidden_size_per_layer_input == 8);
  CHECK(logits_of(temporary / "grafted.gguf") == logits_of(temporary / "base.gguf"));
}

TEST_CASE("gates and projections begin as the seed says, the same in a folder as in a file; norms and the table at 0") {
  const testing::TemporaryFolder temporary;
  testing::gemma3_gguf_of(golden / "270m_like").write(temporary / "base.gguf");
  graft_ple(golden / "270m_like", {.width = 8, .seed = 3}, temporary / "folder");
  graft_ple(temporary / "base.gguf", {.width = 8, .seed = 3}, temporary / "three.gguf");
  graft_ple(temporary / "base.gguf", {.width = 8, .seed = 4}, temporary / "four.gguf");
  const Checkpoint folder = Checkpoint::open(temporary / "folder"), three = Checkpoint::open(temporary / "three.gguf"),
                   four = Checkpoint::open(temporary / "four.gguf");
  const auto values = [](const Checkpoint& checkpoint, Parameter parameter, std::size_t layer) {
    const Tensor tensor = checkpoint.tensor(parameter, layer);
    std::vector<float> all(tensor.bytes / bytes_of(tensor.dtype, 1));
    decode<Scalar>(tensor.dtype, tensor.data, all.size(), all.data());
    return all;
  };
  for (const Parameter parameter : ple_weights) {
    const std::size_t layer = is_of_layer(parameter) ? 2 : 0;
    CAPTURE(role_of(parameter).hf);
    const std::vector<float> all = values(folder, parameter, layer);
    CHECK(all == values(three, parameter, layer));
    if (is_norm(parameter)) {
      for (const float value : all) CHECK(value == (parameter == Parameter::post_ple_norm ? 0.0f : 1.0f));
      continue;
    }
    CHECK(all != values(four, parameter, layer));
    if (is_of_layer(parameter)) CHECK(all != values(three, parameter, 1));
    double squares = 0;
    for (const float value : all) squares += static_cast<double>(value) * static_cast<double>(value);
    const auto in = static_cast<double>(three.tensor(parameter, layer).shape[1]);
    CHECK(squares / static_cast<double>(all.size()) == doctest::Approx(1 / in).epsilon(0.25));
  }
  for (const float value : values(three, Parameter::ple_table, 0)) CHECK(value == 0);
}

TEST_CASE("a model written with what was trained computes what training computed") {
  const testing::TemporaryFolder temporary;
  graft_ple(golden / "270m_like", {.width = 8}, temporary / "folder");
  train(temporary / "folder", temporary / "folder_trained");
  train(golden / "with_ple", temporary / "f32");
  testing::gemma3_gguf_of(golden / "with_ple").write(temporary / "f32.gguf");
  // The same values in both formats: the folder's norms are stored without their 1.
  CHECK(train(temporary / "f32.gguf", temporary / "f32_trained.gguf") ==
        train(golden / "with_ple", temporary / "f32_again"));
  const std::vector<float> file = logits_of(temporary / "f32_trained.gguf"), folder = logits_of(temporary / "f32");
  for (std::size_t i = 0; i < file.size(); ++i) CHECK(std::abs(file[i] - folder[i]) < 1e-3f);
  // A grafted table is as good as any.
  const std::vector<float> mapped = logits_of(temporary / "folder_trained");
  CHECK(logits_of(temporary / "folder_trained", Streamed{}) == mapped);
  CHECK(logits_of(temporary / "folder_trained", Resident{}) == mapped);
}

TEST_CASE("a graft's first step is a share of what its layer has, of rows a share of 1 / sqrt(p)") {
  const testing::TemporaryFolder temporary;
  graft_ple(golden / "270m_like", {.width = 16}, temporary / "folder");
  const Model model = Model::load(Checkpoint::open(temporary / "folder"));
  TrainingOptions options = all_of_ple();
  options.weight_share = 0.02;
  options.row_share = 0.5;
  options.clip = 0;
  Trainer<Model> trainer(model, options);
  const std::vector<Token> tokens = {5, 9, 60, 9, 33, 7};
  const std::vector<std::uint8_t> learnt(tokens.size(), 1);
  const TrainingSequence text{tokens, learnt};
  ThreadPool pool(2);
  trainer.step(pool, {&text, 1});  // AdamW's first step is the rate, whatever the gradient
  double rms = 0;
  const std::vector<float>& like = model.blocks[3].post_feed_forward_norm.weight;
  for (const float w : like) rms += static_cast<double>(w) * static_cast<double>(w) / static_cast<double>(like.size());
  for (const float w : trainer.trained().weight(Parameter::post_ple_norm, 3)->values) {
    CHECK(std::abs(w) == doctest::Approx(0.02 * std::sqrt(rms)).epsilon(1e-3));
  }
  // Rows had no gradient yet: their step's norm was 0. Now they have.
  trainer.step(pool, {&text, 1});
  double most = 0;
  for (const float v : trainer.trained().rows.at(9).values) most = std::max(most, std::abs(static_cast<double>(v)));
  CHECK(most ==
        doctest::Approx(0.5 / 4 * (1 - 0.9) / (1 - 0.81) / std::sqrt((1 - 0.999) / (1 - 0.998001))).epsilon(0.02));
}

TEST_CASE("what cannot be grafted, or written, is refused") {
  const testing::TemporaryFolder temporary;
  const auto says = [&](const std::string& part, const std::function<void()>& f) {
    const std::string found = message(f);
    CAPTURE(found);
    CHECK(found.find(part) != std::string::npos);
  };
  const auto graft = [&](const std::filesystem::path& from, std::size_t width) {
    return [&temporary, from, width] { graft_ple(from, {.width = width}, temporary / "new"); };
  };
  says("with_ple: has a PLE table already, of width 12", graft(golden / "with_ple", 8));
  says("width is 0", graft(golden / "270m_like", 0));
  says("hidden_size_per_layer_input is 65537", graft(golden / "270m_like", 65537));
  says("expected 'gemma3'", graft(data / "golden" / "e2b_like", 8));
  CHECK(!std::filesystem::exists(temporary / "new"));

  const Model model = Model::load(Checkpoint::open(golden / "with_ple"));
  const Trainer<Model> trainer(model, all_of_ple());
  says("has shape [80, 32], but 3840 values were trained",
       [&] { check_trained_model(golden / "with_ple_bf16", trainer.trained()); });
}

}  // namespace ple::graft_test
