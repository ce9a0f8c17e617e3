// SPDX-License-Identifier: Apache-2.0
// Models written as GGUF files and opened again.
#include "ple/convert/gguf_export.h"
#include "ple/core/os.h"

#include <doctest/doctest.h>
#include <cerrno>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "../checkpoint/folder.h"
#include "../checkpoint/gguf_model.h"
#include "../file_size_limit.h"
#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/session.h"

namespace ple::gguf_export_test {

using ple::testing::TemporaryFolder;

namespace {

std::vector<float> logits_of(const Checkpoint& checkpoint) {
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < 23; ++i) tokens.push_back(static_cast<Token>((i * 37 + 3) % model.vocab_size()));
  Session session(model, {.context = tokens.size(), .chunk = 8, .threads = 1});
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

GgufTypes all_types(Dtype type) {
  return {.attention = type, .feed_forward = type, .token_embedding = type, .ple_table = type, .ple_projections = type};
}

struct Written {
  std::vector<GgufPlanEntry> plan;
  std::vector<StoredSums> sums;
  Checkpoint checkpoint;
};

Written write(const Checkpoint& from, const GgufTypes& types, std::size_t threads = 2) {
  const TemporaryFolder folder;
  ThreadPool pool(threads);
  std::vector<GgufPlanEntry> plan = plan_gguf(from, types);
  std::vector<StoredSums> sums = write_gguf(from, {}, plan, folder / "model.gguf", pool);
  return {std::move(plan), std::move(sums), Checkpoint::open(folder / "model.gguf")};  // stays mapped
}

/// Relative root mean square of a - b.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += std::pow(double(a[i]) - double(b[i]), 2);
    size += std::pow(double(b[i]), 2);
  }
  return std::sqrt(error / size);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

Checkpoint storyteller() { return Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller"); }
Checkpoint golden(const std::string& name) {
  return Checkpoint::open(std::filesystem::path(PLE_TEST_DATA) / "golden" / name);
}

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <class F>
std::string message(ErrorCode code, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("models of all shapes give the same bits when they are written in their own type") {
  for (const char* name : {"e2b_like", "dense_31b_like", "published_style", "untied_head", "odd_heads_bf16",
                           "e2b_like_f16", "sharing_most"}) {
    CAPTURE(name);
    const Checkpoint folder = golden(name);
    const Dtype type = folder.tensor(Parameter::query, 0).dtype;
    const Written written = write(folder, all_types(type));
    CHECK(written.checkpoint.tensor(Parameter::query, 0).dtype == type);
    CHECK(same_bits(logits_of(written.checkpoint), logits_of(folder)));
    for (const StoredSums& sums : written.sums) CHECK(sums.squared_errors == 0);
  }
}

TEST_CASE("keys and tensors are those that llama.cpp's converter writes") {
  for (const char* name : {"e2b_like", "dense_31b_like", "odd_heads_bf16", "untied_head"}) {
    CAPTURE(name);
    const TemporaryFolder folder;
    const Checkpoint from = golden(name);
    InlineExecutor executor;
    write_gguf(from, {}, plan_gguf(from, all_types(from.tensor(Parameter::query, 0).dtype)), folder / "ours", executor);
    testing::gguf_of(from).write(folder / "converter's");
    const GgufFile ours = GgufFile::open(folder / "ours"), expected = GgufFile::open(folder / "converter's");
    for (const auto& item : expected.metadata().all()) {
      const std::string& key = item.first;
      const GgufValue& value = item.second;
      CAPTURE(key);
      const GgufValue* found = ours.metadata().find(key);
      REQUIRE(found != nullptr);
      CHECK(found->type == value.type);
      CHECK(found->element == value.element);
      REQUIRE(found->count == value.count);
      if (value.type == GgufType::text) {
        CHECK(ours.metadata().text(key) == expected.metadata().text(key));
      } else {
        const std::size_t size = value.count * least_bytes(value.is_array() ? value.element : value.type);
        CHECK(std::memcmp(found->data, value.data, size) == 0);
      }
    }
    CHECK(ours.metadata().number("gemma4.final_logit_softcapping") ==
          double(from.config<Gemma4Config>().final_logit_softcapping));
    REQUIRE(ours.list().size() == expected.list().size());
    for (const TensorInfo& info : expected.list()) {
      const Tensor a = ours.tensor(info.name), b = expected.tensor(info.name);
      CHECK(a.shape == b.shape);
      CHECK(a.dtype == b.dtype);
      CHECK(std::memcmp(a.data, b.data, b.bytes) == 0);
    }
  }
}

TEST_CASE("the shipped model in every type that can be written") {
  const Checkpoint folder = storyteller();
  const std::vector<float> original = logits_of(folder);
  for (const Dtype type : all_dtypes) {
    const std::string name(name_of(type));
    CAPTURE(name);
    if (!is_encodable(type)) continue;
    const Written written = write(folder, all_types(type));
    std::size_t fitting = 0, matrices = 0;
    for (const GgufPlanEntry& entry : written.plan) {
      const Tensor tensor = written.checkpoint.tensor(*entry.parameter, entry.layer);
      CHECK(tensor.dtype == entry.tensor.dtype);
      if (tensor.shape.size() == 1) continue;
      // A layer's part of the table's row has 32 values.
      const std::size_t together = entry.parameter == Parameter::ple_table ? 32 : tensor.shape[1];
      const bool fits = together % values_per_block(type) == 0;
      CHECK(tensor.dtype == (fits ? type : Dtype::q8_0));  // all its widths are multiples of 32
      matrices += 1;
      fitting += fits;
    }
    CHECK(fitting > 0);
    if (values_per_block(type) <= 32) CHECK(fitting == matrices);
    const std::vector<float> logits = logits_of(written.checkpoint);
    if (type == Dtype::bf16) CHECK(same_bits(logits, original));  // the type it has
    if (values_per_block(type) == 1) {
      // As the reference does it, the scales of token embedding and table are rounded to their type: a bf16 is off by
      // up to 2^-9, and what is added later depends on neither by more than its share.
      CHECK(distance(logits, original) <= 2 * 0x1p-9);
      // In f32 no weight moves; in f16 those below 2^-14 do, by at most 2^-25, where the root mean square is about
      // 2^-4.
      for (std::size_t i = 0; i < written.sums.size(); ++i) {
        const StoredSums& sums = written.sums[i];
        CHECK(sums.squared_errors <= (type == Dtype::f16 ? 1e-10 * sums.squares : 0));
      }
      continue;
    }
    // The same weights as f32: what is left is activations in 8 bits. See tests/model/quantized_test.cpp for the bound.
    const Checkpoint decoded = write(written.checkpoint, all_types(Dtype::f32)).checkpoint;
    const double u = 2.5 / 127 / std::sqrt(12.0), layers = double(folder.config<Gemma4Config>().num_layers());
    const double found = distance(logits, logits_of(decoded));
    CHECK(found <= u * std::sqrt(9 * layers + 2));
    CHECK(found > 0);
  }
}

TEST_CASE("how far the weights moved is what the file says, on any number of threads") {
  const Checkpoint folder = storyteller();
  const Written one = write(folder, {}, 1), three = write(folder, {}, 3);
  REQUIRE(one.sums.size() == one.plan.size());
  for (std::size_t i = 0; i < one.plan.size(); ++i) {
    const GgufPlanEntry& entry = one.plan[i];
    CAPTURE(entry.tensor.name);
    CHECK(one.sums[i].squares == three.sums[i].squares);
    CHECK(one.sums[i].squared_errors == three.sums[i].squared_errors);
    const Tensor from = folder.tensor(*entry.parameter, entry.layer),
                 to = one.checkpoint.tensor(*entry.parameter, entry.layer);
    CHECK(std::memcmp(to.data, three.checkpoint.tensor(*entry.parameter, entry.layer).data, to.bytes) == 0);
    std::size_t count = 1;
    for (const std::uint64_t n : from.shape) count *= n;
    std::vector<float> values(count), stored(count);
    decode<Scalar>(from.dtype, from.data, count, values.data());
    decode<Scalar>(to.dtype, to.data, count, stored.data());
    double squares = 0, errors = 0;
    for (std::size_t v = 0; v < count; ++v) {
      squares += std::pow(double(values[v]), 2);
      errors += std::pow(double(stored[v]) - double(values[v]), 2);
    }
    CHECK(one.sums[i].squares == doctest::Approx(squares));
    CHECK(one.sums[i].squared_errors == doctest::Approx(errors));
  }
}

TEST_CASE("defaults, fallbacks and a caller's own choice of types") {
  std::vector<GgufPlanEntry> plan = plan_gguf(storyteller());
  const auto entry = [&](const std::string& name) -> GgufPlanEntry& {
    return *std::find_if(plan.begin(), plan.end(), [&](const auto& e) { return e.tensor.name == name; });
  };
  CHECK(entry("per_layer_token_embd.weight").tensor.dtype == Dtype::q8_0);  // 32 values of each layer
  CHECK(entry("per_layer_token_embd.weight").wanted == Dtype::q6_k);
  CHECK(entry("token_embd.weight").tensor.dtype == Dtype::q8_0);  // 128 columns
  CHECK(entry("token_embd.weight").wanted == Dtype::q6_k);
  CHECK(entry("blk.0.attn_q.weight").tensor.dtype == Dtype::q4_0);
  CHECK(entry("blk.0.ffn_down.weight").tensor.dtype == Dtype::q4_0);
  CHECK(entry("blk.0.inp_gate.weight").tensor.dtype == Dtype::q8_0);
  CHECK(entry("per_layer_model_proj.weight").tensor.dtype == Dtype::q8_0);
  CHECK(entry("blk.0.attn_norm.weight").tensor.dtype == Dtype::f32);
  // Widths of 27 and the like are no multiple of 32 either.
  for (const GgufPlanEntry& odd : plan_gguf(golden("odd_heads"))) {
    if (odd.tensor.shape.size() == 2) CHECK(odd.tensor.dtype == Dtype::bf16);
  }

  const TemporaryFolder folder;
  InlineExecutor executor;
  const auto write_plan = [&] { write_gguf(storyteller(), {}, plan, folder / "model.gguf", executor); };
  entry("blk.0.attn_q.weight").tensor.dtype = Dtype::q5_1;
  write_plan();
  CHECK(Checkpoint::open(folder / "model.gguf").tensor(Parameter::query, 0).dtype == Dtype::q5_1);
  const auto refused = [&](const std::string& name, Dtype type, ErrorCode code) {
    Dtype& chosen = entry(name).tensor.dtype;
    const Dtype before = chosen;
    chosen = type;
    const std::string text = message(code, write_plan);
    chosen = before;
    return text;
  };
  CHECK(refused("token_embd.weight", Dtype::q4_k, ErrorCode::shape) ==
        "token_embd.weight: 128 values together in q4_k, expected a multiple of 256");
  CHECK(refused("blk.0.ffn_down.weight", Dtype::q2_k, ErrorCode::not_supported)
            .starts_with("blk.0.ffn_down.weight: type q2_k can be read, but not written; expected one of f32, "));
  CHECK(refused("blk.0.attn_norm.weight", Dtype::bf16, ErrorCode::argument) ==
        "blk.0.attn_norm.weight: type bf16, expected f32 for a vector");
}

TEST_CASE("stop tokens, sampling and chat template") {
  const Checkpoint folder = storyteller(), file = write(folder, {}).checkpoint;
  CHECK(file.stop_tokens() == folder.stop_tokens());
  CHECK(file.chat_template() == folder.chat_template());
  const SamplingOptions &a = file.recommended_sampling(), &b = folder.recommended_sampling();
  CHECK(a.temperature == b.temperature);
  CHECK(a.top_k == b.top_k);
  CHECK(a.top_p == b.top_p);
  CHECK(a.min_p == b.min_p);
  CHECK(a.repetition_penalty == b.repetition_penalty);
  CHECK(a.suppress_tokens == b.suppress_tokens);

  testing::Folder tiny;
  tiny.config["eos_token_id"] = {1, 5, 7};
  tiny.write();
  CHECK(write(Checkpoint::open(tiny.path()), {}).checkpoint.stop_tokens() == std::vector<Token>{1, 5, 7});
  tiny.config["eos_token_id"] = {1, 5, 7, 9};
  tiny.write();
  CHECK(message(ErrorCode::not_supported, [&] { write(Checkpoint::open(tiny.path()), {}); }) ==
        "GGUF cannot express 4 stop tokens, at most 3");
  tiny.config["eos_token_id"] = 1;
  tiny.config["rope_parameters"]["full_attention"] = {{"rope_type", "proportional"}, {"factor", 8.0}};
  tiny.write();
  CHECK(message(ErrorCode::not_supported, [&] { write(Checkpoint::open(tiny.path()), {}); }) ==
        "GGUF cannot express a RoPE factor of 8 in full layers");
}

TEST_CASE("what a model recommends for greedy decoding goes into the file") {
  testing::Folder tiny;
  tiny.write();
  const auto generation = [&](const std::string& text) {
    testing::write_file(tiny.path() / "generation_config.json", text);
    return Checkpoint::open(tiny.path());
  };
  const SamplingOptions sampling =
      write(generation(R"({"repetition_penalty":1.2,"suppress_tokens":[7,3]})"), {}).checkpoint.recommended_sampling();
  CHECK(sampling.temperature == 0);
  CHECK(sampling.repetition_penalty == 1.2f);
  CHECK(sampling.suppress_tokens == std::vector<Token>{7, 3});
  CHECK(message(ErrorCode::not_supported, [&] { write(generation(R"({"no_repeat_ngram_size":3})"), {}); }) ==
        "GGUF cannot express no_repeat_ngram_size 3");
}

TEST_CASE("values that a type cannot hold are an error that names the row") {
  testing::Folder tiny;
  tiny.write();
  const auto at = tiny.header["model.layers.1.mlp.up_proj.weight"]["data_offsets"][0].get<std::size_t>();
  const float large = 1e5f;
  std::memcpy(tiny.data.data() + at + (3 * 8 + 2) * sizeof large, &large, sizeof large);
  tiny.write();
  const Checkpoint checkpoint = Checkpoint::open(tiny.path());
  write(checkpoint, all_types(Dtype::bf16));
  CHECK(
      message(ErrorCode::dtype, [&] { write(checkpoint, all_types(Dtype::f16)); })
          .ends_with("model.layers.1.mlp.up_proj.weight: row 3 has values that are not finite, or are not once stored "
                     "as f16"));
}

TEST_CASE("a full disk, and who cancels, leave the older file as it was and nothing beside it") {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder / "model.gguf";
  InlineExecutor executor;
  const Checkpoint model = storyteller();
  const std::vector<GgufPlanEntry> plan = plan_gguf(model);
  write_gguf(model, {}, plan, path, executor);
  const std::string before = contents(path);
  const auto check_untouched = [&] {
    CHECK(contents(path) == before);
    CHECK(folder.names() == std::vector<std::string>{"model.gguf"});
  };
  // It is about 1.4 MB: the end is written when all is there, and a limit of 1000 bytes stops at once.
  for (const std::size_t most : {std::size_t{1000}, before.size() - 1}) {
    const std::string error = message(ErrorCode::file, [&] {
      const testing::FileSizeLimit limit(most);
      write_gguf(model, {}, plan, path, executor);
    });
    CHECK(error == path.string() + ": cannot write at byte " + std::to_string(most) + ": " + os::text_of(EFBIG));
    check_untouched();
  }
  for (const std::string step : {"bytes written", "bytes read back"}) {
    const std::string error = message(ErrorCode::cancelled, [&] {
      write_gguf(model, {}, plan, path, executor,
                 [&](const char* what, std::uint64_t, std::uint64_t) { return what != step; });
    });
    CHECK(error == path.string() + ": writing was cancelled");
    check_untouched();
  }
  CHECK(message(ErrorCode::argument, [&] {
          write_gguf(model, GgufKeys().text("general.architecture", "x"), plan, path, executor);
        }) == "GGUF: the key general.architecture is given twice");
  check_untouched();
}

TEST_CASE("a model is not written over a file that it is read from") {
  const TemporaryFolder folder;
  const auto from = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";
  for (const auto& file : std::filesystem::directory_iterator(from)) {
    std::filesystem::copy(file.path(), folder / file.path().filename().string());
  }
  const Checkpoint model = Checkpoint::open(folder / ".");
  InlineExecutor executor;
  const auto plan = plan_gguf(model);
  for (const char* name : {"model.safetensors", "config.json", "tokenizer.json"}) {
    CHECK(message(ErrorCode::argument, [&] { write_gguf(model, {}, plan, folder / name, executor); }) ==
          (folder / name).string() + ": cannot write: is one of the files that are read");
    CHECK(contents(folder / name) == contents(from / name));
  }
  write_gguf(model, {}, plan, folder / "model.gguf", executor);
  const Checkpoint written = Checkpoint::open(folder / "model.gguf");
  CHECK(message(ErrorCode::argument, [&] {
          write_gguf(written, {}, plan_gguf(written), folder / "model.gguf", executor);
        }).ends_with("is one of the files that are read"));
}

}  // namespace ple::gguf_export_test
