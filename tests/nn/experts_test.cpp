// SPDX-License-Identifier: Apache-2.0
// A router and experts against their formulas, written out.
#include "ple/nn/experts.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "ple/core/thread_pool.h"
#include "ple/simd/decode.h"

namespace ple::experts_test {

namespace {

constexpr std::size_t d = 32, width = 32, all_experts = 6, top_k = 2, most_tokens = 9;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

Tensor tensor_of(Dtype dtype, std::size_t rows, std::size_t cols, std::vector<float> values) {
  auto blocks = std::make_shared<AlignedVector<std::byte>>(bytes_of(dtype, values.size()));
  with_dtype(dtype, [&]<class T>() {
    if constexpr (EncodableType<T>) {
      constexpr std::size_t n = DtypeTraits<T>::values_per_block;
      for (std::size_t b = 0; b < values.size() / n; ++b)
        DtypeTraits<T>::encode(values.data() + b * n, reinterpret_cast<T*>(blocks->data())[b]);
    }
  });
  const std::byte* data = blocks->data();
  return {"memory", "weights", dtype, {rows, cols}, data, blocks->size(), std::move(blocks)};
}

std::vector<float> random(std::size_t n, unsigned seed, float deviation) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

/// The values that a matrix of this type holds.
std::vector<float> stored(Dtype dtype, const std::vector<float>& values) {
  const Tensor tensor = tensor_of(dtype, 1, values.size(), values);
  std::vector<float> decoded(values.size());
  decode<Scalar>(dtype, tensor.data, values.size(), decoded.data());
  return decoded;
}

struct Workspace {
  RouterWorkspace router;
  ExpertsWorkspace experts;
  AlignedVector<float> memory;
  std::vector<Choice> choices = std::vector<Choice>(most_tokens * all_experts);
  std::vector<RoutedToken> routed = std::vector<RoutedToken>(most_tokens * all_experts);
  std::vector<std::size_t> begin_of = std::vector<std::size_t>(all_experts + 1);
  AlignedVector<std::byte> products = AlignedVector<std::byte>(
      product_workspace<Any, Simd>(most_tokens, 8, (std::max)(d, width), (std::max)(d, width)));

  Workspace() {
    const RowsRequest all[] = {{&router.normed, most_tokens, d},        {&router.scores, most_tokens, all_experts},
                               {&experts.in, most_tokens, d},           {&experts.out, most_tokens, d},
                               {&experts.mlp.gate, most_tokens, width}, {&experts.mlp.up, most_tokens, width}};
    memory = allocate_rows(all);
    router.choices = choices;
    router.routed = routed;
    router.begin_of = begin_of;
  }
};

Rows rows_of(std::vector<float>& values) { return {values.data(), values.size() / d, d, d}; }

struct Matrices {
  std::vector<float> gate = random(all_experts * width * d, 1, 0.2f), up = random(all_experts * width * d, 2, 0.2f),
                     down = random(all_experts * d * width, 3, 0.2f);

  /// Gate and up of one type are fused if `fused`.
  Experts<Any, Simd> load(bool fused, Dtype gate_type, Dtype up_type, Dtype down_type) const {
    Experts<Any, Simd> model(d, all_experts, width, fused);
    if (fused) {
      std::vector<float> both;
      for (std::size_t e = 0; e < all_experts; ++e) {
        for (const auto* half : {&gate, &up}) {
          const auto begin = half->begin() + static_cast<std::ptrdiff_t>(e * width * d);
          both.insert(both.end(), begin, begin + static_cast<std::ptrdiff_t>(width * d));
        }
      }
      model.gate_up.weight.load(tensor_of(gate_type, all_experts * 2 * width, d, both));
    } else {
      model.gate.weight.load(tensor_of(gate_type, all_experts * width, d, gate));
      model.up.weight.load(tensor_of(up_type, all_experts * width, d, up));
    }
    model.down.weight.load(tensor_of(down_type, all_experts * d, width, down));
    return model;
  }

  Matrices in(Dtype gate_type, Dtype up_type, Dtype down_type) const {
    return {stored(gate_type, gate), stored(up_type, up), stored(down_type, down)};
  }

  /// y += weight * expert e of x, in f64
  void add(std::size_t e, const float* x, double weight, double* y) const {
    std::vector<double> h(width);
    for (std::size_t i = 0; i < width; ++i) {
      double g = 0, u = 0;
      for (std::size_t c = 0; c < d; ++c) {
        g += double(gate[(e * width + i) * d + c]) * double(x[c]);
        u += double(up[(e * width + i) * d + c]) * double(x[c]);
      }
      h[i] = g / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u;
    }
    for (std::size_t o = 0; o < d; ++o) {
      for (std::size_t i = 0; i < width; ++i) y[o] += weight * double(down[(e * d + o) * width + i]) * h[i];
    }
  }
};

Router<Any, Simd> random_router(std::size_t k) {
  Router<Any, Simd> router(d, all_experts, k, 1e-6f);
  router.norm.weight = random(d, 4, 1);
  router.expert_scale = random(all_experts, 5, 1);
  router.projection.weight.load(tensor_of(Dtype::f32, all_experts, d, random(all_experts * d, 6, 3)));
  return router;
}

}  // namespace

TEST_CASE("a router chooses and weighs as its formula says") {
  Workspace w;
  InlineExecutor executor;
  const Context context(executor, w.products);
  std::vector<float> x = random(most_tokens * d, 7, 2);
  for (const std::size_t k : {std::size_t{1}, top_k, all_experts}) {
    const auto router = random_router(k);
    std::vector<float> projection = random(all_experts * d, 6, 3);
    router(context, w.router, rows_of(x));
    CHECK(w.router.begin_of[0] == 0);
    CHECK(w.router.begin_of[all_experts] == most_tokens * k);
    for (std::size_t t = 0; t < most_tokens; ++t) {
      double square = 0, all = 0, sum = 0;
      for (std::size_t c = 0; c < d; ++c) square += double(x[t * d + c]) * double(x[t * d + c]);
      std::vector<double> p(all_experts);
      for (std::size_t e = 0; e < all_experts; ++e) {
        for (std::size_t c = 0; c < d; ++c) {
          p[e] += double(projection[e * d + c]) * double(x[t * d + c]) / std::sqrt(square / d + 1e-6) *
                  double(router.norm.weight[c]) / std::sqrt(double(d));
        }
        all += p[e] = std::exp(p[e]);
      }
      for (double& value : p) value /= all;
      std::vector<std::size_t> order(all_experts);
      for (std::size_t e = 0; e < all_experts; ++e) order[e] = e;
      std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
      for (std::size_t i = 0; i < k; ++i) sum += p[order[i]];
      for (std::size_t i = 0; i < all_experts; ++i) {
        const auto routed = w.router.routed_to(order[i]);
        const auto found =
            std::find_if(routed.begin(), routed.end(), [&](const RoutedToken& token) { return token.token == t; });
        REQUIRE((found != routed.end()) == (i < k));
        if (i < k) {
          CHECK(double(found->weight) ==
                doctest::Approx(p[order[i]] / sum * double(router.expert_scale[order[i]])).epsilon(1e-5));
        }
      }
    }
    for (std::size_t e = 0; e < all_experts; ++e) {
      const auto routed = w.router.routed_to(e);
      CHECK(std::is_sorted(routed.begin(), routed.end(),
                           [](const RoutedToken& a, const RoutedToken& b) { return a.token < b.token; }));
    }
  }
}

TEST_CASE("of equally likely experts a token goes to the first; never twice to one, even if scores are not numbers") {
  Workspace w;
  InlineExecutor executor;
  const Context context(executor, w.products);
  std::vector<float> x = random(2 * d, 7, 1);
  auto router = random_router(3);
  router.projection.weight.load(tensor_of(Dtype::f32, all_experts, d, std::vector<float>(all_experts * d)));
  router(context, w.router, rows_of(x));
  for (std::size_t e = 0; e < all_experts; ++e) CHECK(w.router.routed_to(e).size() == (e < 3 ? 2 : 0));
  x[3] = nan;
  router(context, w.router, rows_of(x));
  for (std::size_t t = 0; t < 2; ++t) {
    std::set<std::size_t> chosen;
    for (std::size_t i = 0; i < 3; ++i) chosen.insert(w.choices[t * 3 + i].expert);
    CHECK(chosen.size() == 3);
    CHECK(*chosen.rbegin() < all_experts);
  }
}

TEST_CASE("experts give the weighted sum of what each would give, in every type and layout, packed or not") {
  const Matrices matrices;
  std::vector<float> x = random(most_tokens * d, 7, 1);
  const auto router = random_router(top_k);
  struct Types {
    bool fused;
    Dtype gate, up, down;
  };
  for (const Types& types : {Types{true, Dtype::f32, Dtype::f32, Dtype::f32},
                             {false, Dtype::f32, Dtype::f16, Dtype::f32},
                             {true, Dtype::q8_0, Dtype::q8_0, Dtype::q4_0},
                             {false, Dtype::q8_0, Dtype::q5_0, Dtype::f16},
                             {false, Dtype::bf16, Dtype::q4_0, Dtype::q8_0}}) {
    const Matrices exact = matrices.in(types.gate, types.up, types.down);
    for (const bool packed : {false, true}) {
      auto model = matrices.load(types.fused, types.gate, types.up, types.down);
      InlineExecutor executor;
      Arena arena(1 << 16);
      if (packed) {
        for (auto* linear : {&model.gate_up, &model.gate, &model.up, &model.down}) {
          if (linear->weight.loaded()) linear->weight.repack(executor, arena);
        }
      }
      Workspace w;
      const Context context(executor, w.products);
      std::vector<float> y(x.size());
      router(context, w.router, rows_of(x));
      model(context, w.experts, w.router, rows_of(x), rows_of(y));
      double error = 0, size = 0;
      for (std::size_t t = 0; t < most_tokens; ++t) {
        std::vector<double> expected(d);
        for (std::size_t e = 0; e < all_experts; ++e) {
          for (const RoutedToken& token : w.router.routed_to(e)) {
            if (token.token == t) exact.add(e, &x[t * d], double(token.weight), expected.data());
          }
        }
        for (std::size_t i = 0; i < d; ++i) {
          error += std::pow(double(y[t * d + i]) - expected[i], 2);
          size += std::pow(expected[i], 2);
        }
      }
      // Activations are rounded twice on the way, before gate and up and before down: in blocks to steps of 1/127 of
      // the largest, about 2.5 of the root mean square, each a relative error of 2.5 / 127 / sqrt(12); in bf16 less.
      const bool rounds = types.gate != Dtype::f32;
      CAPTURE(packed);
      CHECK(std::sqrt(error / size) <= (rounds ? 2.5 / 127 / std::sqrt(12.0) * std::sqrt(3.0) : 1e-6));

      // Token by token and on two threads: the same bits.
      ThreadPool pool(2);
      for (std::size_t t = 0; t < most_tokens; ++t) {
        Workspace one;
        std::vector<float> in(x.begin() + static_cast<std::ptrdiff_t>(t * d),
                              x.begin() + static_cast<std::ptrdiff_t>((t + 1) * d)),
            out(d);
        const Context threads(pool, one.products);
        router(threads, one.router, rows_of(in));
        model(threads, one.experts, one.router, rows_of(in), rows_of(out));
        CHECK(std::equal(out.begin(), out.end(), y.begin() + static_cast<std::ptrdiff_t>(t * d)));
      }
    }
  }
}

TEST_CASE("experts to which no token goes are not touched") {
  Matrices matrices;
  std::vector<float> x = random(d, 7, 1), y(d);
  Workspace w;
  InlineExecutor executor;
  const Context context(executor, w.products);
  const auto router = random_router(top_k);
  router(context, w.router, rows_of(x));
  for (std::size_t e = 0; e < all_experts; ++e) {
    if (!w.router.routed_to(e).empty()) continue;
    const auto poison = [&](std::vector<float>& values) {
      std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(e * width * d), width * d, nan);
    };
    poison(matrices.gate);
    poison(matrices.up);
    poison(matrices.down);
  }
  for (const bool fused : {true, false}) {
    matrices.load(fused, Dtype::f32, Dtype::f32, Dtype::f32)(context, w.experts, w.router, rows_of(x), rows_of(y));
    CHECK(std::none_of(y.begin(), y.end(), [](float value) { return std::isnan(value); }));
  }
}

}  // namespace ple::experts_test
