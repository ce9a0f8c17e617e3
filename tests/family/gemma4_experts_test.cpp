// SPDX-License-Identifier: Apache-2.0
// Gemma 4 with experts, beside its logits (tests/model/golden_test.cpp): both layouts of GGUF files, number types that
// differ from tensor to tensor, and what is wrong with a file.
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "../allocations.h"
#include "../checkpoint/gguf_model.h"
#include "../formats/gguf_writer.h"
#include "../temporary.h"
#include "ple/convert/gguf_export.h"
#include "ple/dispatch.h"
#include "ple/formats/ggml_type.h"
#include "ple/ple.h"

namespace ple::gemma4_experts_test {

using ple::testing::gguf_of;
using ple::testing::GgufWriter;

namespace {

using Model = Gemma4<Any, BestSimd>;

const std::filesystem::path goldens = std::filesystem::path(PLE_TEST_DATA) / "golden_gemma4_large";

Checkpoint golden(const std::string& name) { return Checkpoint::open(goldens / name); }

std::vector<Token> text(std::size_t vocabulary) {
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < 30; ++i) tokens.push_back(static_cast<Token>((i * i * 7 + 3) % vocabulary));
  return tokens;
}

std::vector<float> logits_of(const LanguageModel& model, std::size_t chunk = 30, std::size_t threads = 1) {
  Session session(model, {.context = 64, .chunk = chunk, .threads = threads});
  std::vector<float> all;
  session.evaluate(text(model.vocab_size()), [&](std::size_t, std::span<const float> logits) {
    all.insert(all.end(), logits.begin(), logits.end());
  });
  return all;
}

Checkpoint written(const GgufWriter& writer) {
  ple::testing::TemporaryFolder folder;
  writer.write(folder / "model.gguf");
  return Checkpoint::open(folder / "model.gguf");  // stays mapped
}

GgufWriter::Entry& tensor_of(GgufWriter& file, const std::string& name) {
  for (GgufWriter::Entry& entry : file.tensors) {
    if (entry.name == name) return entry;
  }
  FAIL("no tensor " << name);
  return file.tensors[0];
}

/// Gate and up of all experts as two tensors.
GgufWriter apart(GgufWriter file) {
  std::vector<GgufWriter::Entry> tensors;
  for (GgufWriter::Entry& entry : file.tensors) {
    const std::size_t at = entry.name.find("ffn_gate_up_exps");
    if (at == std::string::npos) {
      tensors.push_back(std::move(entry));
      continue;
    }
    const std::uint64_t experts = entry.dimensions[2];
    const std::size_t half = entry.data.size() / experts / 2;
    GgufWriter::Entry parts[2] = {entry, entry};
    for (std::size_t i = 0; i < 2; ++i) {
      parts[i].name.replace(at, 16, i == 0 ? "ffn_gate_exps" : "ffn_up_exps");
      parts[i].dimensions[1] /= 2;
      parts[i].data.clear();
      for (std::size_t e = 0; e < experts; ++e) parts[i].data += entry.data.substr((2 * e + i) * half, half);
      tensors.push_back(std::move(parts[i]));
    }
  }
  file.tensors = std::move(tensors);
  return file;
}

/// Stores a tensor of f32 in another type; or, if `decoded`, the values that it then has.
void store(GgufWriter::Entry& entry, Dtype dtype, bool decoded) {
  REQUIRE(entry.type == 0);
  const std::size_t count = entry.data.size() / sizeof(float);
  AlignedVector<float> values(count);
  std::memcpy(values.data(), entry.data.data(), entry.data.size());
  AlignedVector<std::byte> blocks(bytes_of(dtype, count));
  with_dtype(dtype, [&]<class T>() {
    if constexpr (EncodableType<T>) {
      constexpr std::size_t n = DtypeTraits<T>::values_per_block;
      T* to = reinterpret_cast<T*>(blocks.data());
      for (std::size_t b = 0; b < count / n; ++b) DtypeTraits<T>::encode(values.data() + b * n, to[b]);
    }
  });
  decode<Scalar>(dtype, blocks.data(), count, values.data());
  if (decoded) {
    entry.data.assign(reinterpret_cast<const char*>(values.data()), count * sizeof(float));
  } else {
    entry.type = ggml_type(dtype).id;
    entry.data.assign(reinterpret_cast<const char*>(blocks.data()), blocks.size());
  }
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
  });
}

const std::vector<std::string> all_names = {"26b_like", "26b_like_128_experts", "experts_odd_sizes", "experts_with_ple",
                                            "26b_like_bf16"};

}  // namespace

TEST_CASE("experts: gate and up in one tensor or in two, the same bits") {
  for (const std::string& name : all_names) {
    CAPTURE(name);
    const auto folder = golden(name);
    const auto fused = written(gguf_of(folder)), split = written(apart(gguf_of(folder)));
    CHECK(fused.config<Gemma4Config>().fused_expert_gate_up);
    CHECK(!split.config<Gemma4Config>().fused_expert_gate_up);
    CHECK(split.config<Gemma4Config>().num_experts == folder.config<Gemma4Config>().num_experts);
    const auto expected = logits_of(Model::load(folder));
    CHECK(same_bits(logits_of(Model::load(fused)), expected));
    CHECK(same_bits(logits_of(Model::load(split)), expected));
  }
}

TEST_CASE("experts in blocks, of a type for each tensor, give what their values give, but for activations in 8 bits") {
  // Only the last layer's experts are in blocks. What its router reads is computed from f32, so that every token goes
  // to the same experts in both models: a router that compares rounded numbers may choose others.
  struct Types {
    Dtype gate, up, down;
  };
  for (const Types& types : {Types{Dtype::q8_0, Dtype::q8_0, Dtype::q8_0},
                             {Dtype::q8_0, Dtype::q4_0, Dtype::q5_0},
                             {Dtype::q4_0, Dtype::q4_0, Dtype::f16},
                             {Dtype::f32, Dtype::q8_0, Dtype::q4_0}}) {
    std::vector<float> logits[2];
    for (const bool decoded : {false, true}) {
      GgufWriter file = apart(gguf_of(golden("26b_like")));
      store(tensor_of(file, "blk.2.ffn_gate_exps.weight"), types.gate, decoded);
      store(tensor_of(file, "blk.2.ffn_up_exps.weight"), types.up, decoded);
      store(tensor_of(file, "blk.2.ffn_down_exps.weight"), types.down, decoded);
      logits[decoded] = logits_of(Model::load(written(file)));
    }
    double error = 0, size = 0;
    for (std::size_t i = 0; i < logits[0].size(); ++i) {
      error += std::pow(double(logits[0][i]) - double(logits[1][i]), 2);
      size += std::pow(double(logits[1][i]), 2);
    }
    // As in tests/model/quantized_test.cpp: a relative error of u in each product. Three are concerned, gate, up and
    // down; each enters the result with a weight of at most about 1.
    const double u = 2.5 / 127 / std::sqrt(12.0), relative = std::sqrt(error / size);
    CHECK(relative <= u * std::sqrt(3.0));
    CHECK(relative > 1e-5);
  }
}

TEST_CASE("experts in blocks: the same bits whole, in chunks, on threads, repacked or as in the file; no allocation") {
  for (const Dtype dtype : {Dtype::q8_0, Dtype::q4_0, Dtype::q4_1}) {
    GgufWriter file = gguf_of(golden("26b_like"));
    for (GgufWriter::Entry& entry : file.tensors) {
      if (entry.name.find("_exps.weight") != std::string::npos ||
          entry.name.find(".attn_q.weight") != std::string::npos)
        store(entry, dtype, false);
    }
    const auto checkpoint = written(file);
    const auto model = Model::load(checkpoint);
    CHECK(model.blocks[0].experts.gate_up.weight.packed());
    CHECK(model.blocks[0].experts.down.weight.packed());
    const auto whole = logits_of(model);
    for (const std::size_t chunk : {1u, 3u, 7u, 64u}) {
      for (const std::size_t threads : {1u, 2u}) CHECK(same_bits(logits_of(model, chunk, threads), whole));
    }
    const auto mapped = Model::load(checkpoint, {.weights = WeightStorage::mapped});
    CHECK(!mapped.blocks[0].experts.gate_up.weight.packed());
    CHECK(same_bits(logits_of(mapped, 7, 2), whole));

    Session session(model, {.context = 64, .chunk = 8, .threads = 2});
    const std::vector<Token> tokens = text(model.vocab_size());
    const std::size_t before = testing::allocations();
    session.read(tokens);
    for (int i = 0; i < 20; ++i) session.read(tokens[1]);
    CHECK(testing::allocations() == before);
  }
}

TEST_CASE("experts that stay in the file: the same bits with any budget, and never more bytes than it") {
  GgufWriter file = apart(gguf_of(golden("26b_like")));
  for (GgufWriter::Entry& entry : file.tensors) {
    if (entry.name.find("_exps.weight") != std::string::npos)
      store(entry, entry.name.find("ffn_up") != std::string::npos ? Dtype::q4_0 : Dtype::q8_0, false);
  }
  const auto checkpoint = written(file);
  const auto whole = Model::load(checkpoint);
  const auto expected = logits_of(whole);
  const auto& all = whole.blocks[0].experts;
  const std::uint64_t one = (all.gate.weight.bytes() + all.up.weight.bytes() + all.down.weight.bytes()) / 8;
  for (const std::uint64_t experts : {1u, 3u, 10u, 24u}) {
    CAPTURE(experts);
    const auto model = Model::load(checkpoint, {.expert_budget = experts * one});
    const auto& cache = *model.blocks[0].experts.cache;
    CHECK(cache.counters().misses == 0);
    for (const std::size_t chunk : {1u, 7u, 64u}) {
      CHECK(same_bits(logits_of(model, chunk, 2), expected));
      CHECK(cache.counters().bytes <= experts * one);
    }
    const std::uint64_t misses = cache.counters().misses;
    CHECK(same_bits(logits_of(model), expected));
    CHECK((cache.counters().misses == misses) == (experts == 24));  // all 8 of 3 layers fit
    if (experts == 24) CHECK(misses <= 24);
    if (experts >= 10) CHECK(cache.counters().hits > 0);
  }
  const auto none = Model::load(checkpoint, {.expert_budget = 1});
  CHECK(same_bits(logits_of(none, 7, 1), expected));
  CHECK(none.blocks[0].experts.cache->counters().bytes == 0);
  const auto one_expert = Model::load(checkpoint, {.expert_budget = 1u << 20});
  Session session(one_expert, {.context = 8, .threads = 1});
  session.read(Token{5});
  CHECK(one_expert.blocks[0].experts.cache->counters().misses == 3 * 2);  // two experts in each layer, no others
}

TEST_CASE("experts that stay in the file, used by several threads at once") {
  GgufWriter file = gguf_of(golden("26b_like"));
  for (GgufWriter::Entry& entry : file.tensors) {
    if (entry.name.find("_exps.weight") != std::string::npos) store(entry, Dtype::q8_0, false);
  }
  const auto model = Model::load(written(file), {.expert_budget = 20000});
  const auto expected = logits_of(model);
  std::vector<std::vector<float>> found(4);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < found.size(); ++i) threads.emplace_back([&, i] { found[i] = logits_of(model, i + 1); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& logits : found) CHECK(same_bits(logits, expected));
}

TEST_CASE("experts whose widths are no whole tiles stay as they are, and compute the same") {
  GgufWriter file = gguf_of(golden("experts_with_ple"));  // 24 wide, of 32
  for (GgufWriter::Entry& entry : file.tensors) {
    if (entry.name.find("ffn_gate_up_exps") != std::string::npos) store(entry, Dtype::q8_0, false);
  }
  const auto model = Model::load(written(file));
  CHECK(!model.blocks[0].experts.gate_up.weight.packed());
  const auto whole = logits_of(model);
  for (const std::size_t chunk : {1u, 7u}) CHECK(same_bits(logits_of(model, chunk, 2), whole));
}

TEST_CASE("experts: a batch gives each text what it gets alone") {
  const auto model = Model::load(golden("26b_like_128_experts"));
  std::vector<Session> sessions, alone;
  for (std::size_t i = 0; i < 3; ++i) {
    sessions.emplace_back(model, SessionOptions{.context = 64, .threads = 1});
    alone.emplace_back(model, SessionOptions{.context = 64, .threads = 1});
  }
  Batch batch(model, {.threads = 2});
  for (Token step = 0; step < 10; ++step) {
    std::vector<Session*> pointers;
    std::vector<Token> tokens;
    for (std::size_t i = 0; i < 3; ++i) {
      pointers.push_back(&sessions[i]);
      tokens.push_back(static_cast<Token>((step * 17 + static_cast<Token>(i) * 31) % 100));
      alone[i].read(tokens.back());
    }
    batch.read(pointers, tokens);
    for (std::size_t i = 0; i < 3; ++i)
      CHECK(std::equal(sessions[i].logits().begin(), sessions[i].logits().end(), alone[i].logits().begin()));
  }
}

TEST_CASE("experts: a GGUF file that we write means the same") {
  for (const std::string& name : all_names) {
    CAPTURE(name);
    const auto folder = golden(name);
    auto plan = plan_gguf(folder);
    for (GgufPlanEntry& entry : plan) {
      if (entry.tensor.shape.size() > 1 && entry.parameter != Parameter::router)
        entry.tensor.dtype = folder.tensor(*entry.parameter, entry.layer).dtype;
    }
    ple::testing::TemporaryFolder temporary;
    InlineExecutor executor;
    write_gguf(folder, {}, plan, temporary / "model.gguf", executor);
    const auto file = Checkpoint::open(temporary / "model.gguf");
    std::size_t different = 0;
    for (const ParameterShape& shape : parameter_shapes(folder.config<Gemma4Config>())) {
      const Tensor a = folder.tensor(shape.parameter, shape.layer), b = file.tensor(shape.parameter, shape.layer);
      different += a.shape != b.shape;
      if (a.dtype == b.dtype) different += std::memcmp(a.data, b.data, a.bytes) != 0;
    }
    CHECK(different == 0);
    if (name != "26b_like_bf16") CHECK(same_bits(logits_of(Model::load(file)), logits_of(Model::load(folder))));
  }
}

TEST_CASE("experts: a model of K types has another type where rows are too short") {
  const auto plan = plan_gguf(golden("26b_like"), {.feed_forward = Dtype::q4_k, .fallback = Dtype::q8_0});
  std::size_t experts = 0;
  for (const GgufPlanEntry& entry : plan) {
    if (part_of(*entry.parameter) != ParameterPart::experts) continue;
    CHECK(entry.wanted == Dtype::q4_k);
    CHECK(entry.tensor.dtype == Dtype::q8_0);
    ++experts;
  }
  CHECK(experts == 3 * 2);
}

TEST_CASE("experts: what is wrong with a file") {
  const GgufWriter good = gguf_of(golden("26b_like"));
  const auto says = [&](ErrorCode code, const std::string& part, const std::function<void(GgufWriter&)>& change) {
    GgufWriter file = good;
    change(file);
    std::string found = "no error";
    try {
      Model::load(written(file));
    } catch (const Error& error) {
      found = error.what();
      CHECK(error.code() == code);
      CHECK(found.find("model.gguf") != std::string::npos);
    }
    CAPTURE(found);
    CAPTURE(part);
    CHECK(found.find(part) != std::string::npos);
  };
  const auto without = [](const std::string& name) {
    return [name](GgufWriter& f) {
      std::erase_if(f.tensors, [&](const GgufWriter::Entry& entry) { return entry.name == name; });
    };
  };
  const auto key = [](const std::string& name, std::size_t value) {
    return [name, value](GgufWriter& f) { f.remove("gemma4." + name).count("gemma4." + name, value); };
  };
  for (const char* name : {"expert_used_count", "expert_feed_forward_length"}) {
    says(ErrorCode::missing, std::string("gemma4.") + name + " is missing",
         [&](auto& f) { f.remove(std::string("gemma4.") + name); });
  }
  for (const char* name : {"ffn_gate_inp.weight", "ffn_gate_inp.scale", "ffn_down_exps.weight", "ffn_down_exps.scale",
                           "pre_ffw_norm_2.weight", "post_ffw_norm_1.weight", "post_ffw_norm_2.weight"}) {
    const std::string full = std::string("blk.1.") + name;
    says(ErrorCode::missing, full + ": no such tensor", without(full));
  }
  says(ErrorCode::missing, "blk.0.ffn_gate_exps.weight: no such tensor", without("blk.0.ffn_gate_up_exps.weight"));
  says(ErrorCode::missing, "blk.1.ffn_gate_up_exps.weight: no such tensor", without("blk.1.ffn_gate_up_exps.weight"));
  says(ErrorCode::config, "top_k_experts is 9, expected 1 to 8", key("expert_used_count", 9));
  says(ErrorCode::config, "num_experts is 5000, expected 1 to 4096", key("expert_count", 5000));
  says(ErrorCode::shape, "blk.0.ffn_gate_inp.weight: shape is [8, 32], expected [4, 32]", key("expert_count", 4));
  says(ErrorCode::shape, "blk.0.ffn_gate_up_exps.weight: shape is [8, 64, 32], expected [8, 32, 32]",
       key("expert_feed_forward_length", 16));
  says(ErrorCode::shape, "blk.2.ffn_down_exps.weight: shape is [4, 64, 32], expected [8, 32, 32]", [](auto& f) {
    tensor_of(f, "blk.2.ffn_down_exps.weight").dimensions = {32, 64, 4};
  });
  says(ErrorCode::shape, "blk.2.ffn_down_exps.weight: shape is [256, 32], expected [8, 32, 32]", [](auto& f) {
    tensor_of(f, "blk.2.ffn_down_exps.weight").dimensions = {32, 256};
  });
  says(ErrorCode::shape, "blk.1.ffn_down_exps.scale: shape is [4], expected [8]", [](auto& f) {
    auto& entry = tensor_of(f, "blk.1.ffn_down_exps.scale");
    entry.dimensions = {4};
    entry.data.resize(16);
  });
}

}  // namespace ple::gemma4_experts_test
