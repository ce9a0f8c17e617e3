// SPDX-License-Identifier: Apache-2.0
// Gemma 4 and Gemma 3n against the reference: random models of many shapes, saved by transformers, with the logits,
// hidden states and per-layer inputs that it computes (tests/reference/make_golden.py, make_golden_gemma3n.py). Every
// backend, chunking and number of threads.
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "ple/io/checkpoint.h"
#include "ple/io/load_model.h"
#include "ple/io/safetensors.h"
#include "ple/run/session.h"

namespace ple::golden_test {

namespace {

struct Golden {
  std::string name;
  Checkpoint checkpoint;
  SafetensorsFile expected;
  std::vector<Token> tokens;

  bool is_gemma3n() const { return std::holds_alternative<Gemma3nConfig>(checkpoint.any_config()); }
};

std::span<const float> values(const Golden& golden, const std::string& name) {
  const Tensor tensor = golden.expected.tensor(name);
  REQUIRE(tensor.dtype == Dtype::f32);
  return {reinterpret_cast<const float*>(tensor.data), tensor.bytes / sizeof(float)};
}

std::vector<Golden> goldens() {
  std::vector<Golden> all;
  for (const std::string family : {"golden", "golden_gemma3n"}) {
    const std::size_t before = all.size();
    for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(PLE_TEST_DATA) / family)) {
      if (!entry.is_directory()) continue;
      const auto folder = entry.path();
      Golden golden{family + "/" + folder.filename().string(),
                    Checkpoint::open(folder),
                    SafetensorsFile::open(folder / "expected.safetensors"),
                    {}};
      for (const float token : values(golden, "tokens")) golden.tokens.push_back(static_cast<Token>(token));
      all.push_back(std::move(golden));
    }
    REQUIRE(all.size() - before >= 9);
  }
  std::sort(all.begin(), all.end(), [](const Golden& a, const Golden& b) { return a.name < b.name; });
  return all;
}

/// 1e-4 of the range the reference's logits span.
float tolerance(std::span<const float> logits) {
  const auto [least, most] = std::minmax_element(logits.begin(), logits.end());
  return 1e-4f * (*most - *least);
}

float largest_difference(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  float most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::isnan(a[i]) ? INFINITY : std::max(most, std::abs(a[i] - b[i]));
  return most;
}

std::vector<float> all_logits(const LanguageModel& model, std::span<const Token> tokens, std::size_t chunk,
                              std::size_t threads) {
  Session session(model, {.context = tokens.size(), .chunk = chunk, .threads = threads});
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

template <class F>
void for_scalar_and_each_backend(F&& f) {
  testing::for_each_choice([&] {
    const std::string backend = testing::ChosenBackend::name();
    CAPTURE(backend);
    f.template operator()<testing::ChosenBackend>();
  });
}

/// Calls f with the model as its own type.
template <class F>
void with_model(const Golden& golden, F&& f) {
  golden.is_gemma3n() ? f(Gemma3n<Any, testing::ChosenBackend>::load(golden.checkpoint))
                      : f(Gemma4<Any, testing::ChosenBackend>::load(golden.checkpoint));
}

}  // namespace

TEST_CASE("logits equal the reference's: every shape, backend, chunking; bits do not depend on chunks and threads") {
  for (const Golden& golden : goldens()) {
    CAPTURE(golden.name);
    const auto expected = values(golden, "logits");
    for_scalar_and_each_backend([&]<Backend B>() {
      const auto model = load_model<Any, B>(golden.checkpoint);
      const auto whole = all_logits(*model, golden.tokens, golden.tokens.size(), 1);
      CHECK(largest_difference(whole, expected) <= tolerance(expected));
      for (const std::size_t chunk : {1u, 3u, 7u, 64u}) {
        for (const std::size_t threads : {1u, 2u}) {
          CAPTURE(chunk);
          CAPTURE(threads);
          const auto logits = all_logits(*model, golden.tokens, chunk, threads);
          CHECK(std::equal(logits.begin(), logits.end(), whole.begin(), whole.end(), [](float a, float b) {
            return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
          }));
        }
      }
    });
  }
}

TEST_CASE("a prompt's last logits equal the reference's, though shared layers saw only its last token") {
  for (const Golden& golden : goldens()) {
    CAPTURE(golden.name);
    const auto expected = values(golden, "logits");
    const auto model = load_model<Any, testing::ChosenBackend>(golden.checkpoint);
    for (const std::size_t chunk : {5u, 64u}) {
      Session session(*model, {.chunk = chunk});
      session.read(golden.tokens);
      CHECK(largest_difference(session.logits(), expected.last(model->vocab_size())) <= tolerance(expected));
    }
  }
}

TEST_CASE("the embedding, every layer's output and every per-layer input equal the reference's") {
  for (const Golden& golden : goldens()) {
    CAPTURE(golden.name);
    with_model(golden, [&](const auto& model) {
      const std::size_t T = golden.tokens.size(), layers = model.config.num_layers();
      const std::size_t p = model.config.hidden_size_per_layer_input;
      const std::size_t width = model.streams.streams() * model.config.hidden_size;
      const auto hidden = values(golden, "hidden_states");
      REQUIRE(hidden.size() == (layers + 1) * T * width);
      const auto per_layer_input = model.has_ple() ? values(golden, "per_layer_input") : std::span<const float>{};
      REQUIRE(per_layer_input.size() == T * layers * p);

      ThreadPool pool(2);
      const auto state = model.make_state({.context = T, .chunk = T, .parts = parts(pool)});
      std::vector<float> logits(T * model.vocab_size());
      std::size_t observed = 0;
      model.forward(*state, pool, golden.tokens, {logits.data(), T, model.vocab_size(), model.vocab_size()}, {},
                    [&](std::string_view what, std::size_t l, Rows rows) {
                      REQUIRE(rows.rows == T);
                      float difference = 0, most = 0;
                      for (std::size_t t = 0; t < T; ++t) {
                        const float* reference = what == "embedding" ? &hidden[t * width]
                                                 : what == "layer"   ? &hidden[((l + 1) * T + t) * width]
                                                                     : &per_layer_input[(t * layers + l) * p];
                        for (std::size_t i = 0; i < rows.cols; ++i) {
                          difference = std::max(difference, std::abs(rows.row(t)[i] - reference[i]));
                          most = std::max(most, std::abs(reference[i]));
                        }
                      }
                      CAPTURE(what);
                      CAPTURE(l);
                      CHECK(difference <= 1e-4f * most);
                      ++observed;
                    });
      CHECK(observed == 1 + layers * (model.has_ple() ? 2 : 1));
    });
  }
}

TEST_CASE("16-bit weights: the reference computing in 16 bits itself is as far away as its roundings explain") {
  // ple widens 16-bit weights exactly and computes in f32, so the first test holds for them unchanged. The reference,
  // run in the weights' type, rounds the result of every operation: relative error u (2^-8 for bf16, 2^-11 for f16)
  // each time. A layer has 27 such results on the way from its input to its output (10 in the attention branch, 8 in
  // the feed-forward, 6 in the PLE branch, 3 sums), each of which enters the residual stream with a weight of at most
  // about 1. Independent errors add as squares, so the final hidden state, and the logits before the soft-cap with it,
  // are off by at most u sqrt(27 layers) of their root mean square. The soft-cap only shrinks differences. A layer of
  // Gemma 3n has 20 more: 6 of LAuReL with its norm and sum and the division by sqrt(2), 5 each in the routers of
  // prediction and correction, and 4 in what these do to the streams.
  std::size_t checked = 0;
  for (const Golden& golden : goldens()) {
    if (!golden.expected.contains("logits_low")) continue;
    CAPTURE(golden.name);
    with_model(golden, [&](const auto& model) {
      const auto logits = all_logits(model, golden.tokens, 64, 2);
      const auto low = values(golden, "logits_low");
      REQUIRE(low.size() == logits.size());
      const double cap = double(model.config.final_logit_softcapping);
      double error = 0, size = 0;
      for (std::size_t i = 0; i < low.size(); ++i) {
        const double before_cap = cap > 0 ? cap * std::atanh(double(logits[i]) / cap) : double(logits[i]);
        error += std::pow(double(low[i]) - double(logits[i]), 2);
        size += before_cap * before_cap;
      }
      const double u = model.embedding.dtype() == Dtype::bf16 ? 0x1p-8 : 0x1p-11;
      const double relative = std::sqrt(error / size),
                   bound = u * std::sqrt((golden.is_gemma3n() ? 47.0 : 27.0) * double(model.config.num_layers()));
      MESSAGE(golden.name, ": relative difference ", relative, ", bound ", bound);
      CHECK(relative <= bound);
      CHECK(relative > 0);
      ++checked;
    });
  }
  CHECK(checked >= 5);
}

}  // namespace ple::golden_test
