// SPDX-License-Identifier: Apache-2.0
// The shipped model with its weights in every block type that can be written.
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "../allocations.h"
#include "ple/ple.h"
#include "requantized.h"

namespace ple::quantized_test {

using testing::Requantized;

namespace {

std::vector<Token> text() {
  std::vector<Token> tokens = {2};
  while (tokens.size() < 50) tokens.push_back(static_cast<Token>((tokens.back() * 37 + 11) % 1000));
  return tokens;
}

std::vector<float> logits_of(const LanguageModel& model, std::size_t chunk, std::size_t threads) {
  Session session(model, {.context = 64, .chunk = chunk, .threads = threads});
  std::vector<float> all;
  session.evaluate(
      text(), [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

const auto checkpoint = [] { return Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller"); };

template <class F>
void for_each_encodable_block_type(F&& f) {
  for (const Dtype dtype : all_dtypes) {
    const std::string name(name_of(dtype));
    CAPTURE(name);
    if (is_integer_type(dtype) && is_encodable(dtype)) f(dtype);
  }
}

}  // namespace

TEST_CASE("quantised weights give what their values give, but for activations in 8 bits, on every backend") {
  for_each_encodable_block_type([](Dtype dtype) {
    const auto exact = Gemma4<Any, BestSimd>::load(Requantized{checkpoint(), dtype, true});
    const std::vector<float> expected = logits_of(exact, 64, 1);
    const auto check = [&]<Backend B>() {
      const std::string backend = B::name();
      CAPTURE(backend);
      const auto model = Gemma4<Any, B>::load(Requantized{checkpoint(), dtype, false});
      CHECK(is_integer_type(model.blocks[0].mlp.down.weight.dtype()));  // 256 columns: whole blocks of every type
      const std::vector<float> logits = logits_of(model, 64, 2);
      double error = 0, size = 0;
      for (std::size_t i = 0; i < logits.size(); ++i) {
        error += std::pow(double(logits[i]) - double(expected[i]), 2);
        size += std::pow(double(expected[i]), 2);
      }
      // A block of 32 activations is rounded to steps of 1/127 of its largest, about 2.5 of its root mean square
      // where values are normal: a relative error of 2.5 / 127 / sqrt(12) = u in each product. Nine products of a
      // layer are on the way from its input to its output; each enters the residual stream with a weight of at most
      // about 1, and independent errors add as squares. Two more are the context's projection and the head.
      const double u = 2.5 / 127 / std::sqrt(12.0), layers = double(model.blocks.size());
      const double relative = std::sqrt(error / size), bound = u * std::sqrt(9 * layers + 2);
      MESSAGE(name_of(dtype), " ", backend, ": relative difference ", relative, ", bound ", bound);
      CHECK(relative <= bound);
      CHECK(relative > 0);
    };
    testing::for_each_choice([&] { check.operator()<testing::ChosenBackend>(); });
  });
}

TEST_CASE("quantised weights: the same bits read whole, in chunks and token by token, on any number of threads") {
  for_each_encodable_block_type([](Dtype dtype) {
    const auto model = Gemma4<Any, BestSimd>::load(Requantized{checkpoint(), dtype, false});
    const std::vector<float> whole = logits_of(model, 50, 1);
    for (const std::size_t chunk : {1u, 3u, 7u, 16u}) {
      for (const std::size_t threads : {1u, 2u}) {
        const std::vector<float> logits = logits_of(model, chunk, threads);
        CHECK(std::memcmp(logits.data(), whole.data(), whole.size() * sizeof(float)) == 0);
      }
    }
  });
}

TEST_CASE("quantised weights: no token allocates memory") {
  const auto model = Gemma4<Any, BestSimd>::load(Requantized{checkpoint(), Dtype::q4_0, false});
  Session session(model, {.context = 200, .chunk = 8, .threads = 2});
  const std::vector<Token> tokens = text();
  const std::size_t before = testing::allocations();
  session.read(tokens);
  for (int i = 0; i < 20; ++i) session.read(tokens[1]);
  CHECK(testing::allocations() == before);
}

}  // namespace ple::quantized_test
