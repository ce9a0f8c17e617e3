// SPDX-License-Identifier: Apache-2.0
#include "ple/formats/gguf_writer.h"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "../temporary.h"
#include "ple/formats/gguf.h"

namespace ple::gguf_writer_test {

using ple::testing::TemporaryFolder;

TEST_CASE("keys and tensors come back as they were written") {
  const TemporaryFolder folder;
  GgufKeys keys;
  keys.text("a.text", "some text").text("a.empty", "").count("a.count", 4000000000).number("a.number", 0.5);
  keys.flag("a.flag", true).flags("a.flags", {true, false, true});
  keys.integers("a.integers", std::vector<std::int32_t>{1, -2, 3}).numbers("a.numbers", std::vector<float>{0.25f, -1});
  GgufKeys more;
  more.texts("a.texts", std::vector<std::string_view>{"x", "", "yz"});
  keys.add(more);
  CHECK(keys.size() == 9);
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::byte blocks[2 * 18] = {std::byte{1}, std::byte{2}};
  {
    GgufFileWriter file(folder / "x.gguf", keys,
                        {{"matrix", {2, 3}, Dtype::f32}, {"blocks", {1, 64}, Dtype::q4_0}, {"one", {1}, Dtype::f32}});
    file.write(std::as_bytes(std::span(values)).first(4));  // in pieces
    file.write(std::as_bytes(std::span(values)).subspan(4));
    file.write(blocks);
    file.write(std::as_bytes(std::span(values)).first(4));
    CHECK_FALSE(std::filesystem::exists(folder / "x.gguf"));
    file.finish({});
  }
  CHECK(folder.names() == std::vector<std::string>{"x.gguf"});
  const GgufFile file = GgufFile::open(folder / "x.gguf");
  const GgufMetadata& found = file.metadata();
  CHECK(found.all().size() == 9);
  CHECK(found.text("a.text") == "some text");
  CHECK(found.text("a.empty").empty());
  CHECK(found.count("a.count", std::nullopt, std::size_t{1} << 32) == 4000000000);
  CHECK(found.number("a.number") == 0.5);
  CHECK(found.boolean("a.flag"));
  CHECK(found.booleans("a.flags") == std::vector<bool>{true, false, true});
  CHECK(found.numbers("a.integers") == std::vector<double>{1, -2, 3});
  CHECK(found.numbers("a.numbers") == std::vector<double>{0.25, -1});
  CHECK(found.texts("a.texts") == std::vector<std::string_view>{"x", "", "yz"});
  const Tensor matrix = file.tensor("matrix");
  CHECK(matrix.shape == std::vector<std::uint64_t>{2, 3});
  CHECK(std::memcmp(matrix.data, values.data(), 24) == 0);
  CHECK(file.tensor("blocks").dtype == Dtype::q4_0);
  CHECK(std::memcmp(file.tensor("blocks").data, blocks, sizeof blocks) == 0);
  CHECK(*reinterpret_cast<const float*>(file.tensor("one").data) == 1);
}

TEST_CASE("every number type has its number in the format") {
  for (const Dtype type : all_dtypes) {
    const GgmlType& found = ggml_type(type);
    CHECK(found.name == name_of(type));
    CHECK(found.values == values_per_block(type));
    CHECK(found.bytes == bytes_of(type, found.values));
  }
}

TEST_CASE("a file that its writer does not complete is none") {
  const TemporaryFolder folder;
  const std::vector<std::byte> bytes(24);
  const auto message = [](auto&& f) {
    try {
      f();
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::argument);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  {
    GgufFileWriter file(folder / "x.gguf", {}, {{"a", {6}, Dtype::f32}});
    CHECK(message([&] { file.finish({}); }) == "GGUF: a has 0 bytes, expected 24");
    file.write(std::span(bytes).first(20));
    CHECK(message([&] { file.write(bytes); }) == "GGUF: 24 bytes for a, which has 4 left");
    file.write(std::span(bytes).first(4));
    CHECK(message([&] { file.write(bytes); }) == "GGUF: 24 bytes for no tensor, which has 0 left");
  }
  CHECK_FALSE(std::filesystem::exists(folder / "x.gguf"));
  CHECK(folder.names().empty());
  GgufKeys keys, same;
  keys.flag("k", true);
  same.text("k", "");
  CHECK(message([&] { same.count("c", std::uint64_t{1} << 32); }) ==
        "GGUF: c is 4294967296, expected at most 4294967295");
  CHECK(message([&] { keys.count("k", 1); }) == "GGUF: the key k is given twice");
  CHECK(message([&] { keys.add(same); }) == "GGUF: the key k is given twice");
}

}  // namespace ple::gguf_writer_test
