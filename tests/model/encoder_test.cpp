// SPDX-License-Identifier: Apache-2.0
// EmbeddingGemma 2 against the reference: random models saved by transformers, with the vectors that it computes of
// texts of one token, shorter and longer than the window (tests/reference/make_golden_embedding_gemma2.py).
#include "ple/model/encoder.h"

#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "ple/checkpoint/hf_folder.h"
#include "ple/core/thread_pool.h"
#include "ple/family/embedding_gemma2/block.h"
#include "ple/formats/safetensors.h"

namespace ple::encoder_test {

namespace {

using Model = EmbeddingGemma2<Any, testing::ChosenBackend>;

struct Golden {
  std::string name;
  HfFolder folder;
  SafetensorsFile expected;
  std::vector<std::size_t> lengths, sizes;

  std::span<const float> values(const std::string& of) const {
    const Tensor tensor = expected.tensor(of);
    REQUIRE(tensor.dtype == Dtype::f32);
    return {reinterpret_cast<const float*>(tensor.data), tensor.bytes / sizeof(float)};
  }
  std::vector<Token> tokens(std::size_t n) const {
    std::vector<Token> list;
    for (const float token : values("tokens_" + std::to_string(n))) list.push_back(static_cast<Token>(token));
    REQUIRE(list.size() == n);
    return list;
  }
  std::span<const float> vector(std::size_t n, std::size_t size, const std::string& kind = "vector_") const {
    return values(kind + std::to_string(n) + "_" + std::to_string(size));
  }
};

std::vector<Golden> goldens() {
  const auto open = [](const std::string& name, std::vector<std::size_t> lengths, std::vector<std::size_t> sizes) {
    const auto path = std::filesystem::path(PLE_TEST_DATA) / "golden_embedding_gemma2" / name;
    return Golden{name, HfFolder(path), SafetensorsFile::open(path / "expected.safetensors"), std::move(lengths),
                  std::move(sizes)};
  };
  std::vector<Golden> all;
  all.push_back(open("270m_like", {1, 4, 20, 60, 150}, {24, 16, 8, 4}));
  all.push_back(open("odd_sizes", {1, 20, 300}, {11, 5, 1}));
  all.push_back(open("270m_like_bf16", {1, 4, 20, 60}, {24, 16, 8, 4}));
  return all;
}

/// Whether a model rounds activations to bf16: its weights are that, and the CPU multiplies it.
bool rounds_activations(const Golden& golden) {
  return golden.folder.tensor(Parameter::token_embedding, 0).dtype == Dtype::bf16 &&
         testing::ChosenBackend::multiplies_bf16();
}

double relative_difference(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(double(a[i]) - double(b[i]), 2);
    size += std::pow(double(b[i]), 2);
  }
  return std::sqrt(error / size);
}

/// What rounding activations to bf16 explains after some layers: see golden_test.cpp. A layer has 6 products with
/// rounded activations, the projections of embeddings and of means are two more.
double rounding_bound(std::size_t layers) { return 0x1p-8 * std::sqrt(6 * static_cast<double>(layers) + 2); }

/// Whether values are the reference's, as closely as the arithmetic allows. In f32 a layer has 27 results on the way
/// from its input to its output, as golden_test.cpp counts them, most of them sums of up to 64 products: each is off by
/// about 2^-24 sqrt(64), and the 7 layers together by 2^-24 sqrt(64 * 27 * 7) = 7e-6 of the root mean square.
void check_equal(const Golden& golden, std::span<const float> found, std::span<const float> expected,
                 std::size_t layers) {
  const double difference = relative_difference(found, expected);
  CAPTURE(difference);
  CHECK(difference <= (rounds_activations(golden) ? rounding_bound(layers) : 1e-5));
}

std::vector<float> embedded(const Model& model, std::span<const Token> text, std::size_t size, std::size_t threads) {
  ThreadPool pool(threads);
  std::vector<float> vector(size);
  model.embed(pool, std::span(&text, 1), {vector.data(), 1, size, size});
  return vector;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
  });
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

TEST_CASE("vectors equal the reference's: every shape, length, size and backend; same bits on any number of threads") {
  for (const Golden& golden : goldens()) {
    CAPTURE(golden.name);
    testing::for_each_choice([&] {
      const auto model = Model::load(golden.folder);
      REQUIRE(model.config.embedding_dim == golden.sizes[0]);
      for (const std::size_t n : golden.lengths) {
        CAPTURE(n);
        const std::vector<Token> tokens = golden.tokens(n);
        for (const std::size_t size : golden.sizes) {
          CAPTURE(size);
          const auto vector = embedded(model, tokens, size, 1);
          // One number of length 1 is 1 or -1. Of a few, rounding may move one far while the whole vector moves little.
          if (!rounds_activations(golden) || size == golden.sizes[0])
            check_equal(golden, vector, golden.vector(n, size), model.config.num_layers());
          double squares = 0;
          for (const float x : vector) squares += double(x) * double(x);
          CHECK(squares == doctest::Approx(1).epsilon(1e-6));
          for (const std::size_t threads : {2u, 3u}) CHECK(same_bits(embedded(model, tokens, size, threads), vector));
        }
      }
      if (rounds_activations(golden)) {  // or nothing was rounded, and the stricter test would do
        CHECK(relative_difference(embedded(model, golden.tokens(60), golden.sizes[0], 1),
                                  golden.vector(60, golden.sizes[0])) > 1e-4);
      }
    });
  }
}

TEST_CASE(
    "the embedding, every layer's output and per-layer input, and the final norm's output equal the reference's") {
  for (const Golden& golden : goldens()) {
    CAPTURE(golden.name);
    const auto model = Model::load(golden.folder);
    const std::size_t d = model.config.hidden_size, p = model.config.hidden_size_per_layer_input,
                      layers = model.config.num_layers();
    for (const std::size_t n : golden.lengths) {
      const std::vector<Token> tokens = golden.tokens(n);
      const std::span<const Token> texts[] = {tokens};
      std::vector<float> vector(golden.sizes[0]);
      ThreadPool pool(2);
      std::size_t observed = 0;
      model.embed(pool, texts, {vector.data(), 1, vector.size(), vector.size()},
                  [&](const std::string& what, std::size_t l, Rows rows) {
                    if (n != 20 && what != "norm") return;
                    CAPTURE(what);
                    CAPTURE(l);
                    REQUIRE(rows.rows == n);
                    std::vector<float> found, expected;
                    for (std::size_t t = 0; t < n; ++t) {
                      found.insert(found.end(), rows.row(t), rows.row(t) + rows.cols);
                      const auto reference = what == "norm" ? golden.values("norm_" + std::to_string(n)).subspan(t * d)
                                             : what == "embedding" ? golden.values("layers_20").subspan(t * d)
                                             : what == "layer"
                                                 ? golden.values("layers_20").subspan(((l + 1) * n + t) * d)
                                                 : golden.values("per_layer_input_20").subspan((t * layers + l) * p);
                      expected.insert(expected.end(), reference.begin(),
                                      reference.begin() + static_cast<std::ptrdiff_t>(rows.cols));
                    }
                    check_equal(golden, found, expected, what == "norm" ? layers : what == "layer" ? l + 1 : 0);
                    ++observed;
                  });
      CHECK(observed == (n == 20 ? 2 + 2 * layers : 1));
    }
  }
}

TEST_CASE("16-bit weights: the reference computing in bf16 is further from itself in f32 than we are") {
  const Golden golden = goldens()[2];
  const auto model = Model::load(golden.folder);
  for (const std::size_t n : golden.lengths) {
    const auto expected = golden.vector(n, golden.sizes[0]), low = golden.vector(n, golden.sizes[0], "vector_low_");
    const double ours = relative_difference(embedded(model, golden.tokens(n), golden.sizes[0], 2), expected),
                 theirs = relative_difference(low, expected);
    MESSAGE(n, " tokens: the reference in bf16 is ", theirs, " from itself in f32, we are ", ours);
    CHECK(ours < theirs);
  }
}

TEST_CASE("several texts in one call have the bits that each has alone, in any order, long ones among them") {
  for (const Golden& golden : goldens()) {
    CAPTURE(golden.name);
    const auto model = Model::load(golden.folder);
    std::vector<std::vector<Token>> tokens;
    for (std::size_t i = 0; i < 40; ++i) {
      tokens.push_back(golden.tokens(golden.lengths[i * i % golden.lengths.size()]));
      std::rotate(tokens[i].begin(), tokens[i].begin() + static_cast<std::ptrdiff_t>(i % tokens[i].size()),
                  tokens[i].end());
    }
    const std::vector<std::span<const Token>> texts(tokens.begin(), tokens.end());
    const std::size_t size = golden.sizes[1];
    std::vector<float> all(texts.size() * size);
    for (const std::size_t threads : {1u, 2u}) {
      ThreadPool pool(threads);
      model.embed(pool, texts, {all.data(), texts.size(), size, size});
      for (std::size_t i = 0; i < texts.size(); ++i) {
        CAPTURE(i);
        CHECK(same_bits(std::span(all).subspan(i * size, size), model.embed(tokens[i], size)));
      }
    }
    CHECK(Model::texts_at_once(texts) > 1);  // or nothing was tested
  }
}

TEST_CASE("an encoder refuses what it cannot embed, and says which text it is") {
  const Golden golden = goldens()[1];
  const auto model = Model::load(golden.folder);
  const std::size_t most = model.config.max_position_embeddings;
  const auto says = [&](std::vector<std::vector<Token>> tokens, std::size_t vectors, std::size_t size,
                        const std::string& part) {
    const std::vector<std::span<const Token>> texts(tokens.begin(), tokens.end());
    std::vector<float> memory(vectors * size, 7);
    InlineExecutor threads;
    const std::string found = message([&] { model.embed(threads, texts, {memory.data(), vectors, size, size}); });
    CAPTURE(found);
    CHECK(found.find(part) != std::string::npos);
    CHECK(std::all_of(memory.begin(), memory.end(), [](float x) { return x == 7; }));
  };
  says({{1}, {}}, 2, 4, "embed: text 2 of 2 has no tokens, expected at least 1");
  says({{1}, std::vector<Token>(most + 1, 3)}, 2, 4,
       "embed: text 2 of 2 has 513 tokens, expected at most 512, the model's max_position_embeddings");
  says({{1, 97}}, 1, 4, "embed: text 1 of 1 has token 97, expected 0 to 96");
  says({{-1}}, 1, 4, "embed: text 1 of 1 has token -1, expected 0 to 96");
  says({{1}}, 1, 12, "embed: vectors of 12 numbers, expected 1 to 11");
  says({{1}}, 2, 4, "embed: 2 vectors for 1 texts, expected as many");
  CHECK(message([&] { model.embed(std::vector<Token>{1}, 12); }) == "embed: vectors of 12 numbers, expected 1 to 11");
  const std::vector<Token> longest(most, 3);
  CHECK(model.embed(longest).size() == 11);
  InlineExecutor threads;
  model.embed(threads, {}, {nullptr, 0, 11, 11});  // no texts, no vectors
}

}  // namespace ple::encoder_test
