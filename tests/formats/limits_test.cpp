// SPDX-License-Identifier: Apache-2.0
// A program's own limits: what goes over them is refused before it takes anything.
#include "ple/formats/limits.h"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "../allocations.h"
#include "../checkpoint/folder.h"
#include "../checkpoint/gguf_model.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/convert/inspect.h"
#include "ple/convert/pack_table.h"
#include "ple/run/session.h"
#include "ple/text/open_tokenizer.h"

namespace ple::limits_test {

using ple::testing::Folder;

namespace {

using Model = Gemma4<Any, Scalar>;

std::string refused(auto&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::limit);
    return error.what();
  }
  return "no error";
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("the largest file") {
  Folder folder;
  folder.write();
  const std::uint64_t size = std::filesystem::file_size(folder.model());
  const auto open = [&](const std::filesystem::path& path, std::uint64_t most, const std::string& table = "") {
    return refused([&] { Checkpoint::open(path, {.table = table, .limits = {.file_bytes = most}}); });
  };
  CHECK(open(folder.path(), size) == "no error");
  CHECK(has(open(folder.path(), size - 1), "model.safetensors: has " + std::to_string(size) + " bytes, more than"));
  ple::testing::write_file(folder.path() / "tokenizer.json", std::string(size + 10, ' '));
  CHECK(has(open(folder.path(), size + 9), "tokenizer.json"));
  std::filesystem::remove(folder.path() / "tokenizer.json");

  const auto checkpoint = Checkpoint::open(folder.path());
  const auto table = folder.path() / "table";
  InlineExecutor executor;
  pack_table(Model::load(checkpoint), {.dtypes = {Dtype::f32, Dtype::f32}, .kept = {1, 2}}, table, executor);
  std::filesystem::resize_file(table, size + 1);  // it is not even opened
  CHECK(has(open(folder.path(), size, table.string()), "table: has "));

  // A GGUF file, alone and in parts: all of them count, whichever is opened.
  const std::string gguf = ple::testing::gguf_of(checkpoint).bytes();
  ple::testing::write_file(folder.path() / "model.gguf", gguf);
  CHECK(open(folder.path() / "model.gguf", gguf.size()) == "no error");
  CHECK(has(open(folder.path() / "model.gguf", gguf.size() - 1), "model.gguf: has "));
  ple::testing::write_file(folder.path() / "m-00001-of-00002.gguf", "GGUF");
  ple::testing::write_file(folder.path() / "m-00002-of-00002.gguf", gguf);
  CHECK(has(open(folder.path() / "m-00001-of-00002.gguf", gguf.size() - 1), "m-00002-of-00002.gguf: has "));
}

TEST_CASE("the largest vocabulary") {
  Folder folder;
  folder.write();
  const auto open = [&](std::size_t most) {
    return refused([&] { Checkpoint::open(folder.path(), {.limits = {.vocab_size = most}}); });
  };
  CHECK(open(20) == "no error");
  CHECK(has(open(19), "has a vocabulary of 20, more than CheckpointLimits::vocab_size, which is 19"));
}

TEST_CASE("the vocabulary of a packed table, which need not have a row for each token") {
  Folder folder;
  folder.write();
  InlineExecutor executor;
  const auto table = folder.path() / "table";
  pack_table(Model::load(Checkpoint::open(folder.path())), {.dtypes = {Dtype::f32, Dtype::f32}, .kept = {1, 2}}, table,
             executor);
  std::string bytes = read_file(table);
  const std::string field = "\"vocab_size\":\"20\"", more = "\"vocab_size\":\"1073741824\"";
  bytes.replace(bytes.find(field), field.size(), more);
  bytes.erase(bytes.find("    "), more.size() - field.size());  // of the header's padding
  ple::testing::write_file(table, bytes);
  const auto open = [&](const CheckpointLimits& limits) {
    return refused([&] { Checkpoint::open(folder.path(), {.table = table, .limits = limits}); });
  };
  const std::size_t before = ple::testing::allocated_bytes();
  CHECK(
      has(open({}), "table: has a vocabulary of 1073741824, more than CheckpointLimits::vocab_size, which is 4194304"));
  CHECK(ple::testing::allocated_bytes() - before < std::size_t{1} << 20);
}

TEST_CASE("JSON: the text's bytes and the values in it") {
  Folder folder;
  folder.write();
  const auto open = [&](const JsonLimits& json) {
    return refused([&] { Checkpoint::open(folder.path(), {.limits = {.json = json}}); });
  };
  const std::uint64_t header = folder.header.dump().size(), config = folder.config.dump().size();
  REQUIRE(header > config);
  CHECK(open({.bytes = header}) == "no error");
  CHECK(has(open({.bytes = header - 1}), "model.safetensors: has " + std::to_string(header) + " bytes of JSON, more"));
  CHECK(has(open({.bytes = config - 1}), "config.json: has " + std::to_string(config) + " bytes, more than"));
  // The object, its members, two layer types.
  CHECK(has(open({.nodes = folder.config.size() + 2}), "config.json: has more JSON values than JsonLimits::nodes"));
  CHECK(has(open({.nodes = folder.config.size() + 3}), "model.safetensors: has more JSON values"));
  // Every tensor has an entry of a type, a shape and two offsets.
  std::uint64_t values = 1;
  for (const auto& entry : folder.header) values += 6 + entry["shape"].size();
  CHECK(open({.nodes = values}) == "no error");
  CHECK(has(open({.nodes = values - 1}), "model.safetensors: has more JSON values"));

  ple::testing::write_file(folder.path() / "chat_template.jinja", std::string(header + 1, ' '));
  const auto checkpoint = Checkpoint::open(folder.path(), {.limits = {.json = {.bytes = header}}});
  CHECK(has(refused([&] { checkpoint.chat_template(); }), "chat_template.jinja: has "));
  ple::testing::write_file(folder.path() / "tokenizer.json", std::string(header + 1, ' '));
  CHECK(has(refused([&] { open_tokenizer(checkpoint); }), "tokenizer.json: has "));
}

TEST_CASE("a configuration takes no memory before the tensors bear it out") {
  const auto costs = [](const std::filesystem::path& path, const std::string& expected) {
    const std::size_t before = ple::testing::allocated_bytes();
    std::string message = "no error";
    try {
      Model::load(Checkpoint::open(path));
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::shape);
      message = error.what();
    }
    CAPTURE(message);
    CHECK(has(message, expected));
    return ple::testing::allocated_bytes() - before;
  };
  constexpr std::size_t most = std::size_t{32} << 20, width = std::size_t{1} << 20, layers = 4096;
  Folder folder;
  folder.config["hidden_size"] = width;
  folder.config["num_hidden_layers"] = layers;
  folder.config.erase("layer_types");
  folder.write();
  CHECK(costs(folder.path(), "embed_tokens.weight: shape is [20, 8], expected [20, 1048576]") < most);
  const std::size_t before = ple::testing::allocated_bytes();
  CHECK_THROWS_AS(inspect(folder.path().string()), Error);
  CHECK(ple::testing::allocated_bytes() - before < most);

  // All that is not in a layer is as it should be; the first layer's norms are not, and no other's are made.
  Folder deep;
  deep.config["num_hidden_layers"] = layers;
  deep.config["hidden_size_per_layer_input"] = 0;
  deep.config["hidden_size"] = std::size_t{1} << 14;
  deep.config.erase("layer_types");
  auto& header = deep.header;
  for (const char* name : {"model.embed_tokens.weight", "model.norm.weight"}) {
    auto& shape = header[name]["shape"];
    shape.back() = std::size_t{1} << 14;
    std::size_t bytes = 4;
    for (const auto& n : shape) bytes *= n.get<std::size_t>();
    header[name]["data_offsets"] = {deep.data.size(), deep.data.size() + bytes};
    deep.data.append(bytes, '\0');
  }
  header["of_no_use"] = {{"dtype", "F32"}, {"shape", {20 * 8}}, {"data_offsets", {0, 20 * 8 * 4}}};
  const std::size_t norm = folder.header["model.norm.weight"]["data_offsets"][0].get<std::size_t>();
  header["of_no_use_either"] = {{"dtype", "F32"}, {"shape", {8}}, {"data_offsets", {norm, norm + 32}}};
  deep.write();
  CHECK(costs(deep.path(), "layers.0.input_layernorm.weight: shape is [8], expected [16384]") < most);

  Folder good;
  good.write();
  auto gguf = ple::testing::gguf_of(Checkpoint::open(good.path()));
  gguf.remove("gemma4.embedding_length").count("gemma4.embedding_length", width);
  gguf.remove("gemma4.block_count").count("gemma4.block_count", layers);
  for (const char* key : {"gemma4.attention.sliding_window_pattern", "gemma4.attention.head_count_kv"})
    gguf.remove(key);
  gguf.numbers("gemma4.attention.sliding_window_pattern", ple::testing::GgufWriter::boolean,
               std::vector<std::uint8_t>(layers, 1));
  gguf.count("gemma4.attention.head_count_kv", 1);
  gguf.write(good.path() / "wide.gguf");
  CHECK(costs(good.path() / "wide.gguf", "token_embd.weight: shape is [20, 8], expected [20, 1048576]") < most);
}

TEST_CASE("the largest context, and what its K and V take") {
  Folder folder;
  folder.write();
  const Model model = Model::load(Checkpoint::open(folder.path()));
  InlineExecutor executor;
  const auto with = [&](std::size_t context, std::uint64_t most) {
    return refused([&] {
      Session session(model, {.context = context, .kv_cache_limit = most, .executor = &executor});
      CHECK((most == 0 || session.kv_cache_bytes() <= most));
      if (most > 0) {  // and it is no stricter than it says
        CHECK(has(refused([&] {
                    Session(
                        model,
                        {.context = context, .kv_cache_limit = session.kv_cache_bytes() - 1, .executor = &executor});
                  }),
                  "more than kv_cache_limit"));
      }
    });
  };
  CHECK(with(64, 0) == "no error");
  const std::uint64_t bytes = Session(model, {.context = 64, .executor = &executor}).kv_cache_bytes();
  CHECK(with(64, bytes) == "no error");
  CHECK(with(32, bytes) == "no error");
  CHECK(has(with(64, bytes - 1), "K and V of 64 positions take " + std::to_string(bytes) + " bytes"));
}

}  // namespace ple::limits_test
