// SPDX-License-Identifier: Apache-2.0
#include "ple/checkpoint/gguf_checkpoint.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "../dtype/random_scales.h"
#include "../temporary.h"
#include "folder.h"
#include "gguf_model.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/family/gemma4/block.h"
#include "ple/formats/ggml_type.h"
#include "ple/run/session.h"

namespace ple::gguf_checkpoint_test {

using ple::testing::Folder;
using ple::testing::gguf_of;
using ple::testing::GgufWriter;
using ple::testing::raw;
using ple::testing::TemporaryFolder;

namespace {

std::vector<float> all_logits(const LanguageModel& model, std::span<const Token> tokens) {
  Session session(model, {.context = tokens.size(), .chunk = 5, .threads = 1});
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

/// The 2-layer model of folder.h as a GGUF file.
GgufWriter tiny() {
  Folder folder;
  folder.write();
  return gguf_of(Checkpoint::open(folder.path()));
}

Checkpoint open(const GgufWriter& writer) {
  TemporaryFolder folder;
  writer.write(folder / "model.gguf");
  return Checkpoint::open(folder / "model.gguf");  // stays mapped
}

void check_change(const std::function<void(GgufWriter&)>& change, ErrorCode code,
                  const std::vector<std::string>& parts) {
  GgufWriter writer = tiny();
  change(writer);
  try {
    Gemma4<Any, Simd>::load(open(writer));
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(error.code() == code);
    CHECK(message.find("model.gguf") != std::string::npos);
    for (const std::string& part : parts) {
      CAPTURE(part);
      CHECK(message.find(part) != std::string::npos);
    }
    return;
  }
  CAPTURE(parts[0]);
  FAIL_CHECK("no error");
}

GgufWriter::Entry& tensor_of(GgufWriter& file, const std::string& name) {
  for (GgufWriter::Entry& entry : file.tensors) {
    if (entry.name == name) return entry;
  }
  FAIL("no tensor " << name);
  return file.tensors[0];
}

void erase(GgufWriter& file, const std::string& name) {
  std::erase_if(file.tensors, [&](const GgufWriter::Entry& entry) { return entry.name == name; });
}

}  // namespace

TEST_CASE("a model gives the same bits from a Hugging Face folder and from a GGUF file") {
  std::size_t models = 0;
  std::vector<std::filesystem::path> paths;
  for (const char* goldens : {"golden", "golden_gemma4_large"}) {
    for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(PLE_TEST_DATA) / goldens)) {
      if (entry.is_directory()) paths.push_back(entry.path());
    }
  }
  for (const auto& path : paths) {
    const std::string name = path.filename().string();
    CAPTURE(name);
    const auto folder = Checkpoint::open(path);
    REQUIRE(folder.config<Gemma4Config>().full_rope.factor == 1);  // what GGUF has no word for
    const auto file = open(gguf_of(folder));
    const Gemma4Config &a = folder.config<Gemma4Config>(), &b = file.config<Gemma4Config>();
    CHECK(a.attention_k_eq_v == b.attention_k_eq_v);
    CHECK(a.tie_word_embeddings == b.tie_word_embeddings);
    CHECK(a.vocab_size == b.vocab_size);
    CHECK(a.pad_token_id == b.pad_token_id);
    if (a.hidden_size_per_layer_input > 0) CHECK(a.vocab_size_per_layer_input == b.vocab_size_per_layer_input);
    std::vector<Token> tokens;
    for (std::size_t i = 0; i < 23; ++i) tokens.push_back(static_cast<Token>((i * 7 + 3) % a.vocab_size));
    const auto expected = all_logits(Gemma4<Any, Simd>::load(folder), tokens);
    const auto logits = all_logits(Gemma4<Any, Simd>::load(file), tokens);
    CHECK(std::equal(logits.begin(), logits.end(), expected.begin(), expected.end(), [](float x, float y) {
      return std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
    }));
    ++models;
  }
  CHECK(models >= 17);
}

namespace {

/// The file with its matrices in `types` in turn: random blocks of all bytes, but for small finite scales. What layers
/// add gets as large as what they add it to.
GgufWriter mixed(GgufWriter file, const std::vector<Dtype>& types) {
  std::mt19937 generator(5);
  std::size_t next = 0;
  for (GgufWriter::Entry& entry : file.tensors) {
    if (entry.name.find(".post_") != std::string::npos) {
      entry.data.clear();
      for (std::size_t i = 0; i < entry.dimensions[0]; ++i) entry.data += raw(8.0f);
    }
    if (entry.dimensions.size() != 2) continue;
    const Dtype dtype = types[next++ % types.size()];
    const std::size_t count = entry.dimensions[0] * entry.dimensions[1];
    entry.type = ggml_type(dtype).id;
    entry.data.assign(bytes_of(dtype, count), '\0');
    with_dtype(dtype, [&]<class T>() {
      for (std::size_t i = 0; i < count / DtypeTraits<T>::values_per_block; ++i) {
        T block;
        auto* bytes = reinterpret_cast<std::uint8_t*>(&block);
        for (std::size_t b = 0; b < sizeof block; ++b) bytes[b] = static_cast<std::uint8_t>(generator());
        testing::set_scales(block, generator);
        std::memcpy(entry.data.data() + i * sizeof block, &block, sizeof block);
      }
    });
  }
  return file;
}

/// The file with its matrices decoded to f32.
GgufWriter decoded(GgufWriter file) {
  for (GgufWriter::Entry& entry : file.tensors) {
    if (entry.dimensions.size() != 2) continue;
    std::vector<float> values(entry.dimensions[0] * entry.dimensions[1]);
    with_dtype(*dtype_of_name(ggml_type(entry.type)->name), [&]<class T>() {
      constexpr std::size_t n = DtypeTraits<T>::values_per_block;
      for (std::size_t i = 0; i < values.size() / n; ++i) {
        T block;
        std::memcpy(&block, entry.data.data() + i * sizeof block, sizeof block);
        DtypeTraits<T>::decode(block, values.data() + i * n);
      }
    });
    entry.type = 0;
    entry.data.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }
  return file;
}

}  // namespace

TEST_CASE("a file may mix types: each matrix is read in its own") {
  std::vector<Dtype> types;
  for (const Dtype dtype : all_dtypes) {
    if (values_per_block(dtype) > 1) types.push_back(dtype);
  }
  Folder folder({.hidden = 256, .head = 128, .global_head = 256, .intermediate = 512, .per_layer = 256});
  folder.write();
  const GgufWriter plain = gguf_of(Checkpoint::open(folder.path()));
  const std::vector<Token> tokens = {2, 5, 9, 14, 3, 3, 7, 19, 0, 11};
  // 21 matrices, 23 types: twice, beginning at another one.
  for (const std::size_t first : {0u, 11u}) {
    std::rotate(types.begin(), types.begin() + static_cast<std::ptrdiff_t>(first), types.end());
    const GgufWriter file = mixed(plain, types);
    const auto model = Gemma4<Any, Simd>::load(open(file));
    CHECK(model.blocks[0].mlp.down.weight.dtype() != model.blocks[1].mlp.down.weight.dtype());
    const std::vector<float> logits = all_logits(model, tokens),
                             exact = all_logits(Gemma4<Any, Simd>::load(open(decoded(file))), tokens);
    double error = 0, size = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      error += std::pow(double(logits[i]) - double(exact[i]), 2);
      size += std::pow(double(exact[i]), 2);
    }
    // As tests/model/quantized_test.cpp explains: 8-bit activations, in 9 products of a layer, and two more.
    const double bound = 2.5 / 127 / std::sqrt(12.0) * std::sqrt(9.0 * 2 + 2);
    MESSAGE("relative difference ", std::sqrt(error / size), ", bound ", bound);
    CHECK(error > 0);
    CHECK(std::sqrt(error / size) <= bound);
  }
}

TEST_CASE("a matrix with a factor of its own is refused") {
  for (const char* name : {"blk.1.ffn_up.scale", "blk.1.ffn_up.weight.scale"}) {
    check_change([&](auto& f) { f.tensor(name, {1}, 0, raw(0.5f)); }, ErrorCode::not_supported,
                 {std::string(name) + ": expected blk.1.ffn_up.weight to need no other scale"});
  }
}

TEST_CASE("as many pairs turn as the file says, for every head") {
  std::size_t rounded = 0;
  for (std::size_t pairs = 1; pairs <= 300; ++pairs) {
    for (std::size_t turning = 0; turning <= pairs; ++turning) {
      const double share = detail::gguf_share(turning, pairs);
      REQUIRE(static_cast<std::size_t>(share * static_cast<double>(2 * pairs) / 2) == turning);  // as in nn/rope.h
      REQUIRE(share <= 1);
      rounded += share != static_cast<double>(turning) / static_cast<double>(pairs);
    }
  }
  CHECK(rounded > 0);
}

TEST_CASE("stop tokens, sampling, chat template and tokenizer of a GGUF file") {
  const auto plain = open(tiny());
  CHECK(plain.stop_tokens().empty());
  CHECK(plain.recommended_sampling().temperature == 0);
  CHECK(!plain.chat_template());
  GgufWriter writer = tiny();
  writer.count("tokenizer.ggml.eos_token_id", 1).count("tokenizer.ggml.eot_token_id", 7);
  writer.text("tokenizer.chat_template", "<|turn>a<turn|>");
  CHECK(open(writer).stop_tokens() == std::vector<Token>{1, 7});
  CHECK(open(writer).chat_template() == "<|turn>a<turn|>");
  writer.number("general.sampling.temp", 0.7).add("general.sampling.top_k", GgufWriter::i32, raw(std::int32_t{40}));
  writer.number("general.sampling.top_p", 0.9).number("general.sampling.min_p", 0.05);
  writer.number("general.sampling.penalty_repeat", 1.1);
  const auto sampling = open(writer).recommended_sampling();
  CHECK(sampling.temperature == 0.7f);
  CHECK(sampling.top_k == 40);
  CHECK(sampling.top_p == 0.9f);
  CHECK(sampling.min_p == 0.05f);
  CHECK(sampling.repetition_penalty == 1.1f);
  writer.remove("tokenizer.ggml.eot_token_id").count("tokenizer.ggml.eot_token_id", 1);
  CHECK(open(writer).stop_tokens() == std::vector<Token>{1});

  std::vector<std::string> tokens(20, "a");
  tokens[5] = "<turn|>";
  writer.texts("tokenizer.ggml.tokens", tokens);
  CHECK(open(writer).stop_tokens() == std::vector<Token>{1, 5});

  // Google's three, by name, though the file has but the second.
  tokens[2] = "<eos>";
  tokens[8] = "<|tool_response>";
  writer.remove("tokenizer.ggml.tokens").texts("tokenizer.ggml.tokens", tokens);
  writer.remove("tokenizer.ggml.eos_token_id").count("tokenizer.ggml.eos_token_id", 5);
  writer.remove("tokenizer.ggml.eot_token_id");
  CHECK(open(writer).stop_tokens() == std::vector<Token>{5, 2, 8});
  // Ollama's list.
  writer.numbers<std::int32_t>("tokenizer.ggml.eos_token_ids", GgufWriter::i32, {1, 5, 9});
  CHECK(open(writer).stop_tokens() == std::vector<Token>{5, 1, 9, 2, 8});
  writer.remove("tokenizer.ggml.eos_token_ids")
      .numbers<std::int32_t>("tokenizer.ggml.eos_token_ids", GgufWriter::i32, {1, 20});
  CHECK_THROWS_AS(open(writer), Error);
  writer.remove("tokenizer.ggml.eos_token_ids");

  TemporaryFolder folder;
  writer.write(folder / "without_extension");
  const auto checkpoint = Checkpoint::open(folder / "without_extension");
  CHECK(checkpoint.tokenizer_file() == folder / "without_extension");
  CHECK(checkpoint.folder() == (folder / "x").parent_path());
}

TEST_CASE("recommended sampling of a GGUF file: greedy rules by themselves, nonsense stops nobody from opening") {
  const auto sampling = [](auto&& change) {
    GgufWriter writer = tiny();
    change(writer);
    return open(writer).recommended_sampling();
  };
  const SamplingOptions greedy = sampling([](GgufWriter& w) {
    w.number("general.sampling.penalty_repeat", 1.25)
        .numbers<std::int32_t>("tokenizer.ggml.suppress_tokens", GgufWriter::i32, {3, -1, 19, 20});
  });
  CHECK(greedy.temperature == 0);
  CHECK(greedy.repetition_penalty == 1.25f);
  CHECK(greedy.suppress_tokens == std::vector<Token>{3, 19});
  const auto i32 = [](std::int32_t value) { return raw(value); };
  const SamplingOptions odd = sampling([&](GgufWriter& w) {
    w.number("general.sampling.temp", -0.5).add("general.sampling.top_k", GgufWriter::i32, i32(-1));
    w.number("general.sampling.top_p", 2).number("general.sampling.min_p", -1);
  });
  CHECK(odd.temperature == 0);
  CHECK(odd.top_k == 0);
  CHECK(odd.top_p == 1);
  CHECK(odd.min_p == 0);
  GgufWriter writer = tiny();
  writer.number("general.sampling.temp", 1).number("general.sampling.top_p", -1);
  const Checkpoint checkpoint = open(writer);
  try {
    static_cast<void>(checkpoint.recommended_sampling());
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::config);
    CHECK(std::string(error.what()).find(": general.sampling.top_p is -1, expected 0 to ") != std::string::npos);
  }
}

TEST_CASE("named chat templates of a GGUF file") {
  GgufWriter writer = tiny();
  writer.texts("tokenizer.chat_templates", {"rag", "tool_use"}).text("tokenizer.chat_template.rag", "r");
  try {
    static_cast<void>(open(writer).chat_template());
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::missing);
    CHECK(std::string(error.what()).find("they are rag, tool_use") != std::string::npos);
  }
  writer.text("tokenizer.chat_template", "d");
  CHECK(open(writer).chat_template() == "d");
}

TEST_CASE("a split model is one checkpoint") {
  const GgufWriter whole = tiny();
  GgufWriter parts[2];
  parts[0].keys = whole.keys;
  for (std::size_t i = 0; i < whole.tensors.size(); ++i) parts[i % 2].tensors.push_back(whole.tensors[i]);
  TemporaryFolder folder;
  for (std::uint16_t i = 0; i < 2; ++i) {
    parts[i].add("split.no", GgufWriter::u16, raw(i)).add("split.count", GgufWriter::u16, raw(std::uint16_t{2}));
    parts[i].count("split.tensors.count", whole.tensors.size());
    parts[i].write(folder / ("m-0000" + std::to_string(i + 1) + "-of-00002.gguf"));
  }
  const std::vector<Token> tokens = {2, 5, 9, 13, 19};
  const auto checkpoint = Checkpoint::open(folder / "m-00002-of-00002.gguf");
  CHECK(checkpoint.tokenizer_file() == folder / "m-00001-of-00002.gguf");
  CHECK(all_logits(Gemma4<Any, Simd>::load(checkpoint), tokens) ==
        all_logits(Gemma4<Any, Simd>::load(open(whole)), tokens));
}

TEST_CASE("a layer without a scalar has the scalar 1") {
  GgufWriter writer = tiny();
  tensor_of(writer, "blk.1.layer_output_scale.weight").data = raw(1.0f);
  const std::vector<Token> tokens = {2, 5, 9};
  const auto expected = all_logits(Gemma4<Any, Simd>::load(open(writer)), tokens);
  erase(writer, "blk.1.layer_output_scale.weight");
  CHECK(!open(writer).has(Parameter::layer_scalar, 1));
  CHECK(open(writer).has(Parameter::layer_scalar, 0));
  CHECK(all_logits(Gemma4<Any, Simd>::load(open(writer)), tokens) == expected);
}

TEST_CASE("keys that must be there") {
  for (const char* key :
       {"general.architecture", "gemma4.block_count", "gemma4.context_length", "gemma4.embedding_length",
        "gemma4.attention.head_count", "gemma4.attention.sliding_window", "gemma4.attention.sliding_window_pattern",
        "gemma4.attention.key_length", "gemma4.attention.key_length_swa", "gemma4.feed_forward_length",
        "gemma4.attention.layer_norm_rms_epsilon"}) {
    check_change([&](auto& f) { f.remove(key); }, ErrorCode::missing, {std::string(key) + " is missing"});
  }
}

TEST_CASE("tensors that must be there") {
  for (const char* name : {"token_embd.weight", "per_layer_token_embd.weight", "rope_freqs.weight",
                           "output_norm.weight", "blk.1.attn_q.weight", "blk.0.attn_v.weight", "blk.1.proj.weight"}) {
    check_change([&](auto& f) { erase(f, name); }, ErrorCode::missing, {std::string(name) + ": no such tensor"});
  }
  check_change([](auto& f) { tensor_of(f, "blk.0.attn_q.weight").name = "blk.0.attn_qkv.weight"; },
               ErrorCode::not_supported, {"blk.0.attn_qkv.weight: expected attn_q, attn_k and attn_v apart"});
}

TEST_CASE("other models, and what a later version may add") {
  const auto refused = [](const std::function<void(GgufWriter&)>& change, const std::string& part) {
    check_change(change, ErrorCode::not_supported, {part});
  };
  const auto architecture = [](const std::string& name) {
    return [name](GgufWriter& f) { f.remove("general.architecture").text("general.architecture", name); };
  };
  refused(architecture("gemma2"), "general.architecture is 'gemma2', expected 'gemma4', 'gemma3n' or 'gemma3'");
  refused(architecture("llama"), "general.architecture is 'llama', expected 'gemma4'");
  refused(architecture("clip"), "general.architecture is 'clip'");
  refused([](auto& f) { f.number("gemma4.rope.scaling.factor", 8); }, "gemma4.rope.scaling.factor is 8");
  const auto replaced = [](const std::string& key, std::size_t value) {
    return [key, value](GgufWriter& f) { f.remove("gemma4." + key).count("gemma4." + key, value); };
  };
  refused(replaced("attention.value_length", 8),
          "attention.value_length is 8, expected 6 as gemma4.attention.key_length");
  refused(replaced("rope.dimension_count_swa", 2), "rope.dimension_count_swa is 2, expected 4");
  refused(
      [](auto& f) {
        f.remove("gemma4.attention.head_count");
        f.template numbers<std::int32_t>("gemma4.attention.head_count", GgufWriter::i32, {2, 3});
      },
      "gemma4.attention.head_count has 3 and 2");
  refused([](auto& f) { tensor_of(f, "rope_freqs.weight").data = raw(1.0f) + raw(2.0f) + raw(1e30f); },
          "rope_freqs.weight: entry 1 is 2 after 1 of 1");
}

TEST_CASE("numbers and shapes that contradict each other") {
  const auto config = [](const std::function<void(GgufWriter&)>& change, const std::string& part) {
    check_change(change, ErrorCode::config, {part});
  };
  const auto replaced = [](const std::string& key, std::size_t value) {
    return [key, value](GgufWriter& f) { f.remove("gemma4." + key).count("gemma4." + key, value); };
  };
  config(replaced("block_count", 0), "shared_kv_layers is 0, expected less than gemma4.block_count, which is 0");
  config(replaced("block_count", 5000), "gemma4.block_count is 5000 (uint32), expected a whole number from 0 to 4096");
  config(replaced("block_count", 3), "sliding_window_pattern has 2 entries, expected one for each of the 3 layers");
  config(replaced("attention.shared_kv_layers", 2), "shared_kv_layers is 2, expected less than");
  config(replaced("attention.head_count_kv", 3), "num_key_value_heads is 3, expected 1 to 2");
  config(replaced("attention.sliding_window", 0), "sliding_window is 0");
  config([](auto& f) { f.count("tokenizer.ggml.eos_token_id", 20); }, "eos_token_id is 20 (uint32)");
  config([](auto& f) { f.remove("tokenizer.ggml.padding_token_id").count("tokenizer.ggml.padding_token_id", 20); },
         "padding_token_id is 20 (uint32)");
  config(
      [](auto& f) {
        f.texts("tokenizer.ggml.tokens", {"a", "b"});
      },
      "tokenizer.ggml.tokens is an array of 2 text, expected an array of 20 text");
  config([](auto& f) { f.remove("gemma4.block_count").text("gemma4.block_count", "two"); },
         "gemma4.block_count is 'two'");
  const auto shape = [](const char* name, std::vector<std::uint64_t> dimensions, const std::string& part) {
    check_change([&](auto& f) { tensor_of(f, name).dimensions = dimensions; }, ErrorCode::shape, {name, part});
  };
  shape("rope_freqs.weight", {2}, "f32 of shape [2], expected f32 of shape [3]");
  shape("token_embd.weight", {160}, "shape is [160], expected 2 dimensions");
  shape("blk.0.attn_q.weight", {4, 16}, "[16, 4]");
  shape("blk.0.attn_norm.weight", {4, 2}, "[2, 4]");
}

TEST_CASE("a file that is no GGUF file, and one that is not there") {
  TemporaryFolder folder;
  std::ofstream(folder / "model.gguf") << "not a model";
  for (const char* name : {"model.gguf", "missing.gguf", "missing"}) {
    try {
      Checkpoint::open(folder / name);
      FAIL("opened");
    } catch (const Error& error) {
      CHECK(std::string(error.what()).find(name) != std::string::npos);
      CHECK(error.code() == (name == std::string("model.gguf") ? ErrorCode::malformed : ErrorCode::file));
    }
  }
}

}  // namespace ple::gguf_checkpoint_test
