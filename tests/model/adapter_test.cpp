// SPDX-License-Identifier: Apache-2.0
// Adapters against PEFT and transformers (tests/reference/make_golden_adapters.py), and what sessions do with them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "adapter_cases.h"
#include "ple/core/thread_pool.h"
#include "ple/run/batch.h"
#include "ple/run/saved_session.h"

namespace ple::adapter_test {

using namespace adapter_cases;
using Backend = testing::ChosenBackend;

TEST_CASE("logits with an adapter are PEFT's: every case and backend; bits do not depend on chunks and threads") {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(adapters)) {
    ++count;
    const std::string name = entry.path().filename().string();
    CAPTURE(name);
    const auto expected = floats(entry.path() / "expected.safetensors", "logits");
    const auto checkpoint = Checkpoint::open(base_of(entry.path()));
    const auto tokens = tokens_of(base_of(entry.path()));
    const auto adapter = open(entry.path());
    testing::for_each_choice([&] {
      const auto model = load_model<Any, Backend>(checkpoint);
      const auto whole = all_logits(*model, tokens, {.chunk = tokens.size(), .threads = 1, .adapters = {{adapter}}});
      CHECK(largest_difference(whole, expected) <= tolerance(expected));
      for (const std::size_t chunk : {1u, 7u}) {
        CHECK(same_bits(all_logits(*model, tokens, {.chunk = chunk, .threads = 2, .adapters = {{adapter}}}), whole));
      }
      Session session(*model, {.context = tokens.size(), .adapters = {{adapter}}});
      session.read(tokens);  // layers that share K and V see the last token only
      CHECK(same_bits(session.logits(), std::span(whole).last(model->vocab_size())));
    });
  }
  CHECK(count == 9);
}

TEST_CASE("adapters add up, scaled; a session without any has the model's bits") {
  const E2b e2b;
  const auto logits = [&](std::vector<SessionAdapter> some) {
    return all_logits(*e2b.model, e2b.tokens, {.adapters = std::move(some)});
  };
  const auto base = logits({}), twice = logits({{e2b.first, 2}});
  CHECK(largest_difference(base, floats(data / "golden" / "e2b_like" / "expected.safetensors", "logits")) <=
        tolerance(base));
  CHECK(largest_difference(logits({{e2b.first}, {e2b.first}}), twice) <= tolerance(twice));
  CHECK(largest_difference(logits({{e2b.first, 3}, {e2b.first, -1}}), twice) <= tolerance(twice));
  CHECK(largest_difference(logits({{e2b.first}}), twice) > 100 * tolerance(twice));
  CHECK(largest_difference(logits({{e2b.first, 2}, {e2b.second}}), twice) > 100 * tolerance(twice));
  CHECK(same_bits(logits({{e2b.first, 0}}), base));
}

TEST_CASE("sessions of a batch with different adapters have the bits that each has alone") {
  const E2b e2b;
  const std::vector<std::vector<SessionAdapter>> sets = {
      {}, {{e2b.first}}, {{e2b.first}}, {{e2b.second, 0.5f}, {e2b.first}}, {}, {{e2b.second}}};
  std::vector<Session> alone, together;
  for (const auto& set : sets) {
    alone.emplace_back(*e2b.model, SessionOptions{.context = 64, .adapters = set});
    together.emplace_back(*e2b.model, SessionOptions{.context = 64, .adapters = set});
  }
  Batch batch(*e2b.model, {.sessions = sets.size()});
  for (std::size_t step = 0; step < 9; ++step) {
    std::vector<Session*> sessions;
    std::vector<Token> next;
    for (std::size_t i = 0; i < sets.size(); ++i) {
      if (step % 3 == 2 && i == 3) continue;  // not always the same ones
      next.push_back(e2b.tokens[(step * 5 + i * 3) % e2b.tokens.size()]);
      sessions.push_back(&together[i]);
      alone[i].read(std::span(next).last(1));
    }
    batch.read(sessions, next);
    for (std::size_t i = 0; i < sets.size(); ++i) CHECK(same_bits(together[i].logits(), alone[i].logits()));
  }
}

TEST_CASE("a fork keeps the adapters; a saved session is resumed only with them") {
  const E2b e2b;
  const SessionOptions options{.context = 64, .adapters = {{e2b.first, 0.5f}}};
  Session session(*e2b.model, options);
  session.read(std::span(e2b.tokens).first(9));
  Session fork = session.fork();
  const std::vector<std::byte> saved = SavedSession::save(session);
  Session resumed(*e2b.model, options);
  SavedSession::load(resumed, saved);
  for (Session* other : {&fork, &resumed}) {
    other->read(std::span(e2b.tokens).subspan(9, 4));
  }
  session.read(std::span(e2b.tokens).subspan(9, 4));
  CHECK(same_bits(fork.logits(), session.logits()));
  CHECK(same_bits(resumed.logits(), session.logits()));
  for (const std::vector<SessionAdapter>& set :
       {std::vector<SessionAdapter>{}, {{e2b.first}}, {{e2b.second, 0.5f}}, {{e2b.first, 0.5f}, {e2b.second}}}) {
    Session other(*e2b.model, {.context = 64, .adapters = set});
    CHECK_THROWS_WITH_AS(SavedSession::load(other, saved), doctest::Contains("or with other adapters"), Error);
  }
}

TEST_CASE("an adapter adds to products of every type, with an epilogue too") {
  const std::size_t out = 80, in = 64, rank = 3, tokens = 5;
  std::mt19937 generator(1);
  std::normal_distribution<float> normal(0, 1);
  const auto random = [&](std::size_t n) {
    AlignedVector<float> values(n);
    for (float& value : values) value = normal(generator);
    return values;
  };
  AlignedVector<float> a = random(rank * in), b = random(rank * out), w = random(out * in), xs = random(tokens * in);
  const Rows x{xs.data(), tokens, in, in};
  ThreadPool pool(2);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16, Dtype::q8_0, Dtype::q4_0}) {
    CAPTURE(name_of(dtype));
    Linear<Any, BestSimd> linear(out, in);
    auto encoded = std::make_shared<AlignedVector<std::byte>>(bytes_of(dtype, w.size()));
    with_dtype(dtype, [&]<class T>() {
      constexpr std::size_t n = DtypeTraits<T>::values_per_block;
      for (std::size_t i = 0; i < w.size() / n; ++i) {
        if constexpr (requires(T & block) { DtypeTraits<T>::encode(w.data(), block); }) {
          DtypeTraits<T>::encode(w.data() + i * n, reinterpret_cast<T*>(encoded->data())[i]);
        }
      }
    });
    linear.weight.load(Tensor{"memory", "w", dtype, {out, in}, encoded->data(), encoded->size(), encoded});
    Arena arena(1 << 16);
    if (linear.weight.holds_integers()) linear.weight.repack(pool, arena);
    AlignedVector<std::byte> memory(product_workspace<Any, BestSimd>(tokens, tasks(pool), in, in));
    AdaptedWeights weights, none;
    weights.add(linear.weight.data(), {{a.data(), rank, in, in}, {b.data(), rank, out, out}, 0.5f});
    const AdaptedWeights* rows[] = {&weights, &none, &weights, &weights, nullptr};
    std::vector<float> workspace(RowAdapters::most_products * tokens * rank), base(tokens * out), y(tokens * out);
    const RowAdapters row_adapters{rows, workspace, rank};
    linear({pool, memory}, x, {base.data(), tokens, out, out});
    std::vector<int> seen(out);
    linear({pool, memory, &row_adapters}, x, {y.data(), tokens, out, out}, [&](std::size_t begin, std::size_t end) {
      for (std::size_t o = begin; o < end; ++o) ++seen[o];
      for (std::size_t t = 0; t < tokens; ++t) BestSimd::scale(2, end - begin, y.data() + t * out + begin);
    });
    CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
    bool good = true;
    for (std::size_t t = 0; t < tokens; ++t) {
      for (std::size_t o = 0; o < out; ++o) {
        double added = 0, size = std::abs(double(base[t * out + o]));
        for (std::size_t r = 0; r < rank && t != 1 && t != 4; ++r) {
          double ax = 0, magnitude = 0;
          for (std::size_t i = 0; i < in; ++i) {
            ax += double(a[r * in + i]) * double(xs[t * in + i]);
            magnitude += std::abs(double(a[r * in + i]) * double(xs[t * in + i]));
          }
          added += 0.5 * double(b[r * out + o]) * ax;
          size += 0.5 * std::abs(double(b[r * out + o])) * magnitude;
        }
        // sums of 64 terms, then of 4: each rounds by at most u of the terms' sizes
        good &= std::abs(double(y[t * out + o]) - 2 * (double(base[t * out + o]) + added)) <= 2 * size * 70 * 0x1p-24;
      }
    }
    CHECK(good);
    std::vector<float> little(rank);
    const RowAdapters without_room{rows, little, rank};
    CHECK_THROWS_AS(linear({pool, memory, &without_room}, x, {y.data(), tokens, out, out}), Error);
  }
}

TEST_CASE("an adapter that changes what ple does not compute is refused, and the message says what") {
  const auto with_config = [](const std::string& from, const std::string& to, ErrorCode code, const std::string& part) {
    const Copy copy("e2b_second");
    copy.config(from, to);
    copy.check_error(code, part);
  };
  with_config("\"LORA\"", "\"LOHA\"", ErrorCode::not_supported, "peft_type is \"LOHA\"");
  with_config("\"use_dora\": false", "\"use_dora\": true", ErrorCode::not_supported, "use_dora is true");
  with_config("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]", ErrorCode::not_supported,
              "modules_to_save is an array");
  with_config("\"init_lora_weights\": false", "\"init_lora_weights\": \"pissa_niter_4\"", ErrorCode::not_supported,
              "init_lora_weights is \"pissa");
  with_config("\"bias\": \"none\"", "\"bias\": \"all\"", ErrorCode::not_supported, "bias is \"all\"");
  with_config("\"bias\": \"none\"", "\"bias\": \"none\", \"new_kind\": 3", ErrorCode::not_supported, "new_kind is 3");
  with_config("\"rank_pattern\": {}", "\"rank_pattern\": {\".*q_proj\": 3}", ErrorCode::not_supported, ".*q_proj");
  with_config("\"r\": 3", "\"r\": 4", ErrorCode::config, "has rank 3, adapter_config.json says 4");
  with_config("\"r\": 3", "\"r\": \"3\"", ErrorCode::config, "r is \"3\"");
  with_config("\"lora_alpha\": 3", "\"lora_alpha\": 1e300", ErrorCode::config, "not finite");

  const auto with_tensors = [](const std::string& from, const std::string& to, ErrorCode code,
                               const std::string& part) {
    const Copy copy("e2b_second");
    copy.tensors(from, to);
    copy.check_error(code, part);
  };
  with_tensors("layers.1.mlp.up_proj.lora_", "layers.1.mlp.up_proj.ia3__", ErrorCode::not_supported,
               "is no lora_A or lora_B");
  with_tensors("layers.1.mlp.up_proj.lora_B.weight", "layers.x.mlp.up_proj.lora_B.weight", ErrorCode::missing,
               "layers.1.mlp.up_proj.lora_B");
  with_tensors("layers.1.mlp.up_proj.", "layers.1.mlp.ab_proj.", ErrorCode::not_supported, "ab_proj");
  with_tensors("base_model.model.model.layers.1", "base_model.model.vision_tower.1", ErrorCode::not_supported,
               "vision");

  {
    const Copy copy("e2b_second");
    std::fstream file(copy / "adapter_model.safetensors", std::ios::binary | std::ios::in | std::ios::out);
    const float nan = NAN;
    file.seekp(-4, std::ios::end);
    file.write(reinterpret_cast<const char*>(&nan), sizeof nan);
    file.close();
    copy.check_error(ErrorCode::malformed, "not finite");
  }
  {
    const Copy copy("e2b_second");
    std::filesystem::rename(copy / "adapter_model.safetensors", copy / "adapter_model.bin");
    copy.check_error(ErrorCode::not_supported, "pickled");
    std::filesystem::remove(copy / "adapter_model.bin");
    copy.check_error(ErrorCode::file, "adapter_model.safetensors");
    std::filesystem::remove(copy / "adapter_config.json");
    copy.check_error(ErrorCode::file, "adapter_config.json");
  }
}

TEST_CASE("trained rows that are not whole, or of another table, are refused") {
  const auto with = [](const char* name, const std::string& from, const std::string& to, ErrorCode code,
                       const std::string& part) {
    const Copy copy(name);
    copy.config(from, to);
    copy.check_error(code, part);
  };
  const std::string field = "\"trainable_token_indices\": {", rows = "\"embed_tokens_per_layer\": [";
  with("e2b_lora_rows", field, "\"trainable_token_indices\": [7], \"runtime_config\": {", ErrorCode::not_supported,
       "rows of embed_tokens, which ple does not adapt");
  with("e2b_lora_rows", rows, "\"embed_tokens\": [", ErrorCode::not_supported, "has rows of embed_tokens:");
  with("e2b_lora_rows", rows, rows + "3], \"model.embed_tokens_per_layer\": [", ErrorCode::not_supported, "twice");
  with("e2b_lora_rows", field, "\"trainable_token_indices\": null, \"runtime_config\": {", ErrorCode::missing,
       "trainable_token_indices has no ids for the rows of base_model.model.model.embed_tokens_per_layer");
  with("e2b_lora_rows", "      182,\n", "      -1,\n", ErrorCode::config, "[0] is -1, expected a whole number");
  for (const char* name : {"e2b_lora_rows", "e2b_rows"}) {
    const std::string indent(name == std::string("e2b_rows") ? 4 : 6, ' ');
    with(name, indent + "182,\n", indent + "9,\n", ErrorCode::config, "has 9 twice, expected each row once");
    with(name, indent + "182,\n", "", ErrorCode::shape, "has shape [10, 80], expected a row for each id of");
    with(name, indent + "182,\n", indent + "1.5,\n", ErrorCode::config, "[0] is 1.5, expected a whole number");
  }
  with("e2b_rows", "\"TRAINABLE_TOKENS\"", "\"LORA\"", ErrorCode::not_supported, "init_weights is true");
  with("e2b_rows", "\"token_indices\"", "\"token_indexes\"", ErrorCode::not_supported, "token_indexes is an array");

  Copy of_embedding("e2b_lora_rows");
  of_embedding.tensors("embed_tokens_per_layer.token_adapter", "an_embedding_for_layer.token_adapter");
  of_embedding.check_error(ErrorCode::not_supported, "has rows of an_embedding_for_layer");
  const Copy without("e2b_second");
  without.config("\"trainable_token_indices\": null",
                 "\"trainable_token_indices\": {\"embed_tokens_per_layer\": [1, 2]}");
  without.check_error(ErrorCode::missing, "has no rows of embed_tokens_per_layer, but");
}

TEST_CASE("an adapter of another model is refused, and so are models that take none") {
  const E2b e2b;
  const auto refused = [](const LanguageModel& model, const std::string& adapter, ErrorCode code, const char* part) {
    CAPTURE(adapter);
    try {
      const Session session(model, {.context = 8, .adapters = {{open(adapters / adapter)}}});
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.code() == code);
      CHECK(std::string(error.what()).find(part) != std::string::npos);
    }
  };
  refused(*e2b.model, "gemma3", ErrorCode::shape, "is for a matrix of [");
  const auto gemma3n = load_model<Any, Backend>(Checkpoint::open(data / "golden_gemma3n" / "e2b_like"));
  refused(*gemma3n, "e2b_second", ErrorCode::not_supported, "takes no adapters");
  CHECK_THROWS_AS(Session(*e2b.model, {.context = 8, .adapters = {{nullptr}}}), Error);
  CHECK_THROWS_WITH_AS(Session(*e2b.model, {.context = 8, .adapters = {{e2b.first, NAN}}}),
                       doctest::Contains("expected a finite number"), Error);
}

}  // namespace ple::adapter_test
