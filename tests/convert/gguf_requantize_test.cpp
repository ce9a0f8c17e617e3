// SPDX-License-Identifier: Apache-2.0
// GGUF files written anew in other number types.
#include "ple/convert/gguf_requantize.h"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/core/thread_pool.h"

namespace ple::gguf_requantize_test {

using ple::testing::TemporaryFolder;

namespace {

GgufTypes all_types(Dtype type) {
  return {.attention = type, .feed_forward = type, .token_embedding = type, .ple_table = type, .ple_projections = type};
}

Checkpoint storyteller() { return Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller"); }

GgufShards write(const Checkpoint& from, const GgufTypes& types, const std::filesystem::path& path) {
  ThreadPool pool(2);
  write_gguf(from, {}, plan_gguf(from, types), path, pool);
  return GgufShards::open(path);
}

GgufShards rewrite(const GgufShards& from, const GgufTypes& types, const std::filesystem::path& path) {
  ThreadPool pool(2);
  const auto sums = write_requantized(from, plan_requantized(from, types), path, pool);
  CHECK(sums.size() == from.list().size());
  return GgufShards::open(path);
}

bool same_value(const GgufValue& a, const GgufValue& b) {
  return a.type == b.type && a.element == b.element && a.count == b.count && a.bytes == b.bytes &&
         std::memcmp(a.data, b.data, static_cast<std::size_t>(a.bytes)) == 0;
}

void check_same(const GgufShards& a, const GgufShards& b) {
  CHECK(a.metadata().all().size() == b.metadata().all().size());
  for (const auto& entry : a.metadata().all()) {
    const auto& key = entry.first;
    CAPTURE(key);
    REQUIRE(b.metadata().has(key));
    CHECK(same_value(entry.second, *b.metadata().find(key)));
  }
  REQUIRE(a.list().size() == b.list().size());
  for (const TensorInfo& info : a.list()) {
    CAPTURE(info.name);
    const Tensor x = a.tensor(info.name), y = b.tensor(info.name);
    CHECK(x.shape == y.shape);
    REQUIRE(x.dtype == y.dtype);
    CHECK(std::memcmp(x.data, y.data, x.bytes) == 0);
  }
}

/// A small file that says it is a Gemma 4, with whatever else is put into it.
template <class F>
GgufShards with_extra(const GgufShards& from, const std::filesystem::path& path, F&& extra) {
  GgufKeys keys;
  for (const auto& [key, value] : from.metadata().all()) keys.copy(key, value);
  std::vector<GgufTensor> tensors;
  std::vector<std::vector<std::byte>> bytes;
  for (const TensorInfo& info : from.list()) {
    const Tensor tensor = from.tensor(info.name);
    tensors.push_back({info.name, info.shape, tensor.dtype});
    bytes.emplace_back(tensor.data, tensor.data + tensor.bytes);
  }
  extra(keys, tensors, bytes);
  GgufFileWriter writer(path, keys, tensors);
  for (const auto& some : bytes) writer.write(some);
  writer.finish({});
  return GgufShards::open(path);
}

}  // namespace

TEST_CASE("a GGUF file written anew is the file that the folder gives in those types") {
  const TemporaryFolder folder;
  const Checkpoint model = storyteller();
  const GgufShards bf16 = write(model, all_types(Dtype::bf16), folder / "bf16");
  int number = 0;
  for (const GgufTypes& types : {GgufTypes{}, all_types(Dtype::bf16), all_types(Dtype::q4_k),
                                 GgufTypes{.attention = Dtype::q8_0, .feed_forward = Dtype::q5_1}}) {
    const std::string name = std::to_string(++number);
    check_same(rewrite(bf16, types, folder / name), write(model, types, folder / (name + "of folder")));
  }
}

TEST_CASE("what a model does not know, and what has no type to choose, is copied") {
  const TemporaryFolder folder;
  const std::vector<std::byte> bytes(3 * 64 * 2, std::byte{0x3c});
  const auto from =
      with_extra(write(storyteller(), all_types(Dtype::f16), folder / "first"), folder / "from",
                 [&](GgufKeys& keys, std::vector<GgufTensor>& tensors, std::vector<std::vector<std::byte>>& all) {
                   keys.text("any.text", "text").flags("any.flags", {true, false, true}).count("general.file_type", 1);
                   keys.texts("any.texts", std::vector<std::string_view>{"a", "", "ccc"});
                   tensors.push_back({"blk.0.unknown.weight", {3, 64}, Dtype::f16});
                   all.push_back(bytes);
                 });
  const auto written = rewrite(from, all_types(Dtype::q8_0), folder / "written");
  CHECK_FALSE(written.metadata().has("general.file_type"));  // it said f16
  for (const auto& [key, value] : from.metadata().all()) {
    if (key != "general.file_type") CHECK(same_value(value, *written.metadata().find(key)));
  }
  const Tensor unknown = written.tensor("blk.0.unknown.weight");
  CHECK(unknown.dtype == Dtype::f16);
  CHECK(std::memcmp(unknown.data, bytes.data(), bytes.size()) == 0);
  CHECK(written.tensor("blk.0.ffn_down.weight").dtype == Dtype::q8_0);
  CHECK(written.tensor("blk.0.attn_norm.weight").dtype == Dtype::f32);
  CHECK(Checkpoint::open(folder / "written").config<Gemma4Config>().num_layers() == 8);
}

TEST_CASE("what cannot be written is refused before anything is") {
  const TemporaryFolder folder;
  const GgufShards from = write(storyteller(), {}, folder / "from");
  InlineExecutor executor;
  const auto refused = [&](auto&& change) {
    auto plan = plan_requantized(from);
    change(plan);
    std::string message = "no error";
    try {
      write_requantized(from, plan, folder / "out", executor);
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(folder.names() == std::vector<std::string>{"from"});
    return message;
  };
  const auto entry = [](std::vector<GgufPlanEntry>& plan, const char* name) -> GgufPlanEntry& {
    for (GgufPlanEntry& e : plan) {
      if (e.tensor.name == name) return e;
    }
    FAIL("no such tensor");
    return plan[0];
  };
  CHECK(refused([&](auto& plan) { entry(plan, "blk.0.attn_norm.weight").tensor.dtype = Dtype::bf16; }) ==
        "blk.0.attn_norm.weight: type bf16, expected f32 for a vector");
  CHECK(refused([&](auto& plan) { entry(plan, "per_layer_token_embd.weight").tensor.dtype = Dtype::q4_k; }) ==
        "per_layer_token_embd.weight: 32 values together in q4_k, expected a multiple of 256");
  CHECK_THROWS_WITH(write_requantized(from, plan_requantized(from), folder / "from", executor),
                    ((folder / "from").string() + ": cannot write: is one of the files that are read").c_str());
  const auto empty = with_extra(from, folder / "empty", [](GgufKeys&, std::vector<GgufTensor>& tensors, auto& all) {
    tensors.push_back({"nothing", {0, 32}, Dtype::f32});
    all.emplace_back();
  });
  CHECK_THROWS_WITH(plan_requantized(empty),
                    ((folder / "empty").string() + ": nothing: shape is [0, 32], expected one value or more").c_str());
}

}  // namespace ple::gguf_requantize_test
