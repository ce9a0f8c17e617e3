// SPDX-License-Identifier: Apache-2.0
// Sessions that share a streamed table: what the thread sanitizer is to watch.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <span>
#include <thread>
#include <vector>

#include "ple/ple.h"

namespace ple::shared_table_test {

namespace {

using Model = Gemma4<Any, Simd>;

const auto checkpoint = [] { return Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller"); };

std::vector<float> logits_of(const Model& model, const std::vector<Token>& tokens, std::size_t chunk) {
  Session session(model, {.context = 256, .chunk = chunk, .threads = 2});
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

}  // namespace

TEST_CASE("two sessions at once on a cache that holds few rows read what one alone reads") {
  const Model mapped = Model::load(checkpoint());
  std::vector<Token> tokens = {2};
  while (tokens.size() < 150) tokens.push_back(static_cast<Token>((tokens.back() * 37 + 11) % 1000));
  const std::vector<float> expected = logits_of(mapped, tokens, 7);
  for (const std::size_t budget : {std::size_t{0}, std::size_t{10} * 512}) {
    for (const ReadEngine engine : {ReadEngine::threads, ReadEngine::best}) {
      const Model model = Model::load(checkpoint(), {.table = Streamed{.budget = budget, .engine = engine}});
      std::vector<std::vector<float>> results(2);
      std::vector<std::thread> threads;
      for (std::size_t i = 0; i < 2; ++i) {
        threads.emplace_back([&, i] { results[i] = logits_of(model, tokens, i == 0 ? 16 : 1); });
      }
      for (std::thread& thread : threads) thread.join();
      for (const auto& result : results) {
        REQUIRE(result.size() == expected.size());
        CHECK(std::memcmp(result.data(), expected.data(), expected.size() * sizeof(float)) == 0);
      }
    }
  }
}

}  // namespace ple::shared_table_test
