// SPDX-License-Identifier: Apache-2.0
// What bench/work.h says a forward pass has to do is what the kernels are asked to do.
#include "../../bench/work.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "../model/random_model.h"
#include "ple/run/session.h"
#include "ple/simd/scalar.h"

namespace ple::work_test {

namespace {

/// Counts instead of computing, but for what is no product.
struct Counting : Scalar {
  static inline bench::Work done = {};
  static inline std::uint64_t weighted_sums = 0, pieces_added = 0;

  template <StoredType T>
  static void matmul(const T*, std::size_t, std::size_t rows, std::size_t cols, const float*, std::size_t,
                     std::size_t tokens, float* y, std::size_t y_stride) {
    done.float_multiply_adds += rows * cols * tokens;
    for (std::size_t t = 0; t < tokens; ++t) std::fill_n(y + t * y_stride, rows, 0.0f);
  }
  static void matmul(const InterleavedRows& w, const QuantizedRows& x, float* y, std::size_t y_stride, std::byte*) {
    done.integer_multiply_adds += w.rows * w.layout.cols * x.tokens();
    for (std::size_t t = 0; t < x.tokens(); ++t) std::fill_n(y + t * y_stride, w.rows, 0.0f);
  }
  template <StoredType T>
  static void weighted_sum(const T*, std::size_t, std::size_t n, std::size_t cols, const float*, std::size_t,
                           std::size_t tokens, float*, std::size_t) {
    done.float_multiply_adds += n * cols * tokens;
    (n == 1 ? pieces_added : weighted_sums) += n * cols * tokens;
  }
};

Gemma4Config config_of_blocks() {
  Gemma4Config config = ple::testing::small_config();
  config.hidden_size_per_layer_input = 32;  // whole blocks of q8_0 everywhere
  for (Gemma4LayerConfig& layer : config.layers) layer.intermediate_size = layer.intermediate_size / 48 * 64;
  return config;
}

template <class T>
Gemma4<T, Counting> model_of_zeros(const Gemma4Config& config) {
  Gemma4<T, Counting> model(config);
  model.parameters([]<class V>(Parameter, std::size_t, V& values) {
    if constexpr (!std::is_same_v<V, std::vector<float>>) {
      std::fill_n(values.allocate(), values.rows() * values.cols() / DtypeTraits<T>::values_per_block, T{});
    }
  });
  model.tie();
  return model;
}

template <class T>
void check_counts() {
  for (const bool tied : {true, false}) {
    Gemma4Config config = config_of_blocks();
    config.tie_word_embeddings = tied;
    auto model = model_of_zeros<T>(config);
    const std::vector<Token> prompt(29, 7);
    Session session(model, {.context = 64, .chunk = 8, .threads = 1});

    Counting::done = {};
    session.read(prompt);
    const bench::Work expected = bench::work_of_prompt(model, prompt.size(), 8);
    CHECK(Counting::done.float_multiply_adds == expected.float_multiply_adds);
    CHECK(Counting::done.integer_multiply_adds == expected.integer_multiply_adds);

    Counting::done = {};
    Counting::weighted_sums = Counting::pieces_added = 0;
    session.read(Token{3});
    const bench::Work token = bench::work_of(model, prompt.size(), 1, 1);
    CHECK(Counting::done.float_multiply_adds == token.float_multiply_adds);
    CHECK(Counting::done.integer_multiply_adds == token.integer_multiply_adds);
    // Every weight is read for one multiplication, but for rows that are looked up; attention multiplies with K as
    // often as with V.
    const std::uint64_t products =
        token.float_multiply_adds + token.integer_multiply_adds - 2 * Counting::weighted_sums - Counting::pieces_added;
    const std::uint64_t looked_up = config.num_layers() * config.hidden_size_per_layer_input +  // the table's row
                                    (tied ? 0 : config.hidden_size);                            // the embedding's
    CHECK(token.weight_bytes == bytes_of(DtypeTraits<T>::id, products + looked_up));
  }
}

}  // namespace

TEST_CASE("the work of a forward pass, counted on a model, is what its kernels do") {
  check_counts<f32>();
  check_counts<q8_0>();
}

}  // namespace ple::work_test
