// SPDX-License-Identifier: Apache-2.0
// What bench/work.h says a forward pass has to do is what the kernels are asked to do.
#include "../../bench/work.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "../model/random_model.h"
#include "ple/family/gemma3n/block.h"
#include "ple/run/session.h"
#include "ple/simd/scalar.h"

namespace ple::work_test {

namespace {

/// Counts what it computes.
struct Counting : Scalar {
  using Scalar::matmul;
  static inline bench::Work done = {};
  static inline std::uint64_t weighted_sums = 0, pieces_added = 0;

  template <StoredType T>
  static void matmul(const T* w, std::size_t stride, std::size_t rows, std::size_t cols, const float* x,
                     std::size_t x_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    done.float_multiply_adds += rows * cols * tokens;
    Scalar::matmul(w, stride, rows, cols, x, x_stride, tokens, y, y_stride);
  }
  static void matmul(const PackedTiles& w, const QuantizedRows& x, float* y, std::size_t y_stride, std::byte* scratch) {
    done.integer_multiply_adds += w.rows * w.layout.cols * x.tokens();
    Scalar::matmul(w, x, y, y_stride, scratch);
  }
  static void multiply_rows(const PackedRows& w, const std::size_t* rows, std::size_t count, const RowActivations& x,
                            float* y) {
    done.integer_multiply_adds += count * w.layout.sub_blocks * w.layout.format->sub_block;
    Scalar::multiply_rows(w, rows, count, x, y);
  }
  static void multiply_columns(const PackedColumns& w, std::size_t first, std::size_t rows, const QuantizedRows& x,
                               std::size_t t, float* y) {
    for (std::size_t s = 0; s < w.layout.sub_blocks; ++s) {
      const std::int8_t* values = x.values(t, s);
      done.integer_multiply_adds += rows * (x.sub_block() - std::count(values, values + x.sub_block(), 0));
    }
    Scalar::multiply_columns(w, first, rows, x, t, y);
  }
  template <StoredType T>
  static void weighted_sum(const T* rows, std::size_t stride, std::size_t n, std::size_t cols, const float* weights,
                           std::size_t weights_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    done.float_multiply_adds += n * cols * tokens;
    (n == 1 ? pieces_added : weighted_sums) += n * cols * tokens;
    Scalar::weighted_sum(rows, stride, n, cols, weights, weights_stride, tokens, y, y_stride);
  }
};

Gemma4Config config_of_blocks() {
  Gemma4Config config = ple::testing::small_config();
  config.hidden_size_per_layer_input = 32;  // whole blocks of q8_0 everywhere
  for (LayerConfig& layer : config.layers) layer.intermediate_size = layer.intermediate_size / 48 * 64;
  return config;
}

/// Eight layers of which the last three share K and V, in shape and size as `same`.
Gemma3nConfig gemma3n_config(const Gemma4Config& same, float sparsity) {
  Gemma3nConfig config{.vocab_size = same.vocab_size,
                       .hidden_size = same.hidden_size,
                       .num_attention_heads = same.num_attention_heads,
                       .num_key_value_heads = 2,
                       .head_dim = 16,
                       .num_kv_shared_layers = 3,
                       .sliding_window = same.sliding_window,
                       .max_position_embeddings = same.max_position_embeddings,
                       .vocab_size_per_layer_input = same.vocab_size_per_layer_input - 1,
                       .hidden_size_per_layer_input = same.hidden_size_per_layer_input,
                       .laurel_rank = 32,
                       .layers = gemma3n_layers(8, 512)};
  for (Gemma3nLayerConfig& layer : config.layers) layer.activation_sparsity = sparsity;
  return config;
}

/// Multiply-adds of one layer's streams with each other, for one position, which bench/work.h leaves out.
std::uint64_t sums_over_streams(const Gemma3nConfig& config) {
  const std::uint64_t n = config.altup_num_inputs, d = config.hidden_size;
  return n * n * d + (n + 1) * d;
}
/// And of the lengths that streams are given, before the layers and after them.
std::uint64_t sums_of_lengths(const Gemma3nConfig& config) {
  return 2 * (config.altup_num_inputs - 1) * config.hidden_size;
}

template <class Model>
Model model_of_zeros(const typename Model::Config& config) {
  using T = typename Model::T;
  Model model(config);
  model.parameters([]<class V>(Parameter, std::size_t, V& values) {
    if constexpr (!std::is_same_v<V, std::vector<float>>) {
      std::fill_n(values.allocate(), values.rows() * values.cols() / DtypeTraits<T>::values_per_block, T{});
    }
  });
  model.finalize();
  return model;
}

template <class T>
void check_counts() {
  for (const auto& [tied, experts] : {std::pair(true, 0), std::pair(false, 0), std::pair(true, 6)}) {
    Gemma4Config config = config_of_blocks();
    config.tie_word_embeddings = tied;
    config.num_experts = static_cast<std::size_t>(experts);
    config.top_k_experts = 2;
    config.moe_intermediate_size = 96;
    auto model = model_of_zeros<Gemma4<T, Counting>>(config);
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

void check_gemma3n_counts() {
  const Gemma3nConfig config = gemma3n_config(config_of_blocks(), 0);
  auto model = model_of_zeros<Gemma3n<f32, Counting>>(config);
  const std::vector<Token> prompt(29, 7);
  Session session(model, {.context = 64, .chunk = 8, .threads = 1});
  const std::uint64_t own = config.first_shared_layer(), shared = config.num_kv_shared_layers;

  Counting::done = {};
  session.read(prompt);
  // Of the shared layers, and behind all, the last position alone.
  const std::uint64_t sums =
      (prompt.size() * own + shared) * sums_over_streams(config) + (prompt.size() + 1) * sums_of_lengths(config);
  CHECK(Counting::done.float_multiply_adds ==
        bench::work_of_prompt(model, prompt.size(), 8).float_multiply_adds + sums);
  Counting::done = {};
  session.read(Token{3});
  CHECK(Counting::done.float_multiply_adds == bench::work_of(model, prompt.size(), 1, 1).float_multiply_adds +
                                                  (own + shared) * sums_over_streams(config) +
                                                  2 * sums_of_lengths(config));
}

}  // namespace

TEST_CASE("the work of a forward pass, counted on a model, is what its kernels do") {
  check_counts<f32>();
  check_counts<q8_0>();
  check_gemma3n_counts();
}

/// The multiply-adds of a token that sparse feed-forwards leave are those that random gates leave.
template <class T>
void check_sparse_counts() {
  CAPTURE(DtypeTraits<T>::name);
  constexpr bool integers = IntegerType<T>;
  const float sparsity = 0.9f;
  Gemma4Config same = integers ? config_of_blocks() : ple::testing::small_config();
  if (integers) same.hidden_size = 512;  // a whole tile of a packed row's sub-blocks
  const Gemma3nConfig config = gemma3n_config(same, sparsity);
  auto model = ple::testing::random_model<Gemma3n<T, Counting>>(config);
  auto dense = ple::testing::random_model<Gemma3n<T, Counting>>(gemma3n_config(same, 0));
  if (integers) {
    InlineExecutor executor;
    model.repack(executor);
  }
  Session session(model, {.context = 64, .chunk = 1, .threads = 1});
  Counting::done = {};
  const std::size_t tokens = 40, layers = config.num_layers();
  bench::Work expected, all;
  for (std::size_t t = 0; t < tokens; ++t) {
    session.read(static_cast<Token>(t * 37 % 101));
    expected += bench::work_of(model, t, 1, 1);
    all += bench::work_of(dense, t, 1, 1);
  }
  const auto products = [](const bench::Work& work) {
    return static_cast<double>(work.float_multiply_adds + work.integer_multiply_adds);
  };
  const double found = products(Counting::done) -
                       static_cast<double>(tokens * (layers * sums_over_streams(config) + 2 * sums_of_lengths(config)));
  // Gates are independent numbers of which a tenth counts: of up and down together, both of 512 x d for each layer.
  const auto gates = static_cast<double>(tokens * layers * 512), d = static_cast<double>(config.hidden_size),
             width = 2 * d;
  const double deviation = std::sqrt(gates * 0.9 * 0.1) * width;
  CHECK(std::abs(found - products(expected)) < 4 * deviation);
  CHECK(products(all) - products(expected) == doctest::Approx(0.9 * gates * width).epsilon(1e-3));
  CHECK(all.weight_bytes == expected.weight_bytes + expected.sparse_bytes);
  // A weight's bytes for each of them; but the numbers of down's blocks are read where one of 32 columns counts.
  const double bytes = static_cast<double>(bytes_of(DtypeTraits<T>::id, 32)) / 32,
               scales = integers ? gates * d * 2 / 32 * (std::pow(0.9, 32) - 0.9) : 0;
  CHECK(static_cast<double>(expected.sparse_bytes) ==
        doctest::Approx(0.9 * gates * width * bytes + scales).epsilon(1e-3));
}

TEST_CASE("of sparse feed-forwards as much counts as the gates of a model with random weights leave") {
  check_sparse_counts<f32>();
  check_sparse_counts<q8_0>();
}

}  // namespace ple::work_test
