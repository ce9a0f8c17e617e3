// SPDX-License-Identifier: Apache-2.0
#include "ple/formats/gguf.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "../temporary.h"
#include "gguf_writer.h"
#include "ple/formats/gguf_shards.h"

namespace ple::gguf_test {

using ple::testing::gguf_text;
using ple::testing::GgufWriter;
using ple::testing::raw;
using ple::testing::TemporaryFolder;

namespace {

constexpr std::uint32_t f32_id = 0, q8_0_id = 8;

std::string floats(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) bytes += raw(value);
  return bytes;
}

/// A file with a key of every type and three tensors.
GgufWriter tiny() {
  GgufWriter file;
  file.text("general.architecture", "test");
  file.add("a.uint8", GgufWriter::u8, raw<std::uint8_t>(200)).add("a.int8", GgufWriter::i8, raw<std::int8_t>(-5));
  file.add("a.uint16", GgufWriter::u16, raw<std::uint16_t>(60000));
  file.add("a.int16", GgufWriter::i16, raw<std::int16_t>(-6));
  file.count("a.uint32", 4000000000u).add("a.int32", GgufWriter::i32, raw<std::int32_t>(-7));
  file.number("a.float32", 0.5).add("a.float64", GgufWriter::float64, raw(0.25));
  file.add("a.uint64", GgufWriter::u64, raw(std::uint64_t{1} << 40));
  file.add("a.int64", GgufWriter::i64, raw(std::int64_t{8}));
  file.flag("a.true", true).flag("a.false", false);
  file.texts("a.texts", {"", "one", "two words"});
  file.numbers<std::int32_t>("a.numbers", GgufWriter::i32, {3, 1, 2}).numbers<bool>("a.flags", GgufWriter::boolean, {});
  const std::string inner = raw(std::uint32_t{GgufWriter::u8}) + raw(std::uint64_t{2}) + "ab";
  file.array("a.nested", GgufWriter::array_type, 2, inner + inner);
  file.tensor("matrix", {2, 3}, f32_id, floats({1, 2, 3, 4, 5, 6}));
  file.tensor("blocks", {2, 64}, q8_0_id, std::string(4 * 34, 'x'));
  file.tensor("cube", {2, 1, 1, 3}, f32_id, floats({6, 5, 4, 3, 2, 1}));
  return file;
}

struct Failure {
  ErrorCode code;
  std::string message;
};

/// What goes wrong, which must name the file.
template <class F>
Failure failure_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find(".gguf") != std::string::npos);
    return {error.code(), error.what()};
  }
  FAIL("no error");
  return {};
}

void check_message(const Failure& failure, ErrorCode code, const std::vector<std::string>& parts) {
  CAPTURE(failure.message);
  CHECK(failure.code == code);
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(failure.message.find(part) != std::string::npos);
  }
}

void check_refused(const std::string& bytes, ErrorCode code, const std::vector<std::string>& parts) {
  TemporaryFolder folder;
  const auto path = folder.write("wrong.gguf", std::as_bytes(std::span(bytes)));
  check_message(failure_of([&] { GgufFile::open(path); }), code, parts);
}

void check_change(const std::function<void(GgufWriter&)>& change, ErrorCode code,
                  const std::vector<std::string>& parts) {
  GgufWriter file = tiny();
  change(file);
  check_refused(file.bytes(), code, parts);
}

void malformed(const std::function<void(GgufWriter&)>& change, const std::vector<std::string>& parts) {
  check_change(change, ErrorCode::malformed, parts);
}

}  // namespace

TEST_CASE("keys and tensors of versions 2 and 3, at several alignments") {
  for (const std::uint32_t version : {2u, 3u}) {
    for (const std::uint64_t alignment : {8u, 32u, 4096u}) {
      CAPTURE(version);
      CAPTURE(alignment);
      GgufWriter writer = tiny();
      writer.version = version;
      writer.alignment = alignment;
      TemporaryFolder folder;
      writer.write(folder / "small.gguf");
      const GgufFile file = GgufFile::open(folder / "small.gguf");
      const GgufMetadata& keys = file.metadata();
      CHECK(keys.text("general.architecture") == "test");
      CHECK(keys.count("a.uint8") == 200);
      CHECK(keys.number("a.int8") == -5);
      CHECK(keys.count("a.uint16") == 60000);
      CHECK(keys.number("a.int16") == -6);
      CHECK(keys.count("a.uint32", {}, 4294967295u) == 4000000000u);
      CHECK(keys.number("a.int32") == -7);
      CHECK(keys.number("a.float32") == 0.5);
      CHECK(keys.number("a.float64") == 0.25);
      CHECK(keys.count("a.uint64", {}, std::numeric_limits<std::size_t>::max()) == std::uint64_t{1} << 40);
      CHECK(keys.count("a.int64") == 8);
      CHECK(keys.boolean("a.true"));
      CHECK(!keys.boolean("a.false"));
      CHECK(keys.texts("a.texts") == std::vector<std::string_view>{"", "one", "two words"});
      CHECK(keys.counts("a.numbers") == std::vector<std::size_t>{3, 1, 2});
      CHECK(keys.numbers("a.numbers") == std::vector<double>{3, 1, 2});
      CHECK(keys.booleans("a.flags").empty());
      CHECK(GgufMetadata::brief(*keys.find("a.nested")) == "an array of 2 array");
      CHECK(keys.per_layer("a.numbers", 3) == std::vector<std::size_t>{3, 1, 2});
      CHECK(keys.per_layer("a.int64", 2) == std::vector<std::size_t>{8, 8});
      CHECK(keys.per_layer("no.such", 2, 9) == std::vector<std::size_t>{9, 9});
      CHECK(keys.text("no.such", "otherwise") == "otherwise");
      CHECK(keys.count("no.such", 3) == 3);
      CHECK(keys.number("no.such", 0.5) == 0.5);
      CHECK(keys.boolean("no.such", true));

      const Tensor matrix = file.tensor("matrix");
      CHECK(matrix.shape == std::vector<std::uint64_t>{2, 3});
      CHECK(matrix.dtype == Dtype::f32);
      CHECK(reinterpret_cast<std::uintptr_t>(matrix.data) % alignment == 0);
      CHECK(std::string(reinterpret_cast<const char*>(matrix.data), matrix.bytes) == floats({1, 2, 3, 4, 5, 6}));
      CHECK(matrix.map->bytes().data() + matrix.offset == matrix.data);
      CHECK(file.tensor("blocks").dtype == Dtype::q8_0);
      CHECK(file.tensor("blocks").bytes == 4 * 34);
      CHECK(file.tensor("cube").shape == std::vector<std::uint64_t>{2, 1, 1, 3});
      const std::vector<TensorInfo> list = file.list();
      REQUIRE(list.size() == 3);
      CHECK(list[0].name == "blocks");
      CHECK(list[0].dtype == "Q8_0");
      CHECK(list[0].shape == std::vector<std::uint64_t>{2, 64});
      CHECK(list[0].offset == file.tensor("blocks").offset);
      CHECK(file.shape("blocks") == list[0].shape);
      CHECK(file.contains("cube"));
      CHECK(!file.contains("sphere"));
    }
  }
}

TEST_CASE("a file without tensors may end with its header") {
  GgufWriter writer = tiny();
  writer.tensors.clear();
  TemporaryFolder folder;
  writer.write(folder / "vocabulary.gguf");
  CHECK(GgufFile::open(folder / "vocabulary.gguf").list().empty());
}

TEST_CASE("ple and the format agree on the blocks of the types that both know") {
  std::size_t known = 0;
  for (const GgmlType& type : ggml_types) {
    CAPTURE(type.name);
    CHECK(ggml_type(type.id) == &type);
    const auto dtype = dtype_of_name(type.name);
    if (!dtype) continue;
    ++known;
    CHECK(values_per_block(*dtype) == type.values);
    CHECK(bytes_of(*dtype, type.values) == type.bytes);
  }
  // All but the numbers that are no weights, the two types that only activations have, and q1_0.
  CHECK(known == std::size(ggml_types) - 5 - 2 - 1);
  CHECK(known == all_dtypes.size());
  CHECK(ggml_type(4) == nullptr);
}

TEST_CASE("every truncation of a file is refused") {
  const std::string bytes = tiny().bytes();
  TemporaryFolder folder;
  // The last tensor's padding may be missing; what it takes may not.
  const std::size_t padding = (32 - 6 * sizeof(float) % 32) % 32;
  for (std::size_t size = 0; size < bytes.size() - padding; ++size) {
    const auto path = folder.write("cut.gguf", std::as_bytes(std::span(bytes).first(size)));
    CAPTURE(size);
    CHECK(failure_of([&] { GgufFile::open(path); }).code == ErrorCode::malformed);
  }
  const auto path = folder.write("cut.gguf", std::as_bytes(std::span(bytes).first(bytes.size() - padding)));
  CHECK(GgufFile::open(path).list().size() == 3);
}

TEST_CASE("a file with any byte of its header changed is read or refused") {
  const std::string right = tiny().bytes();
  TemporaryFolder folder;
  std::size_t opened = 0, refused = 0;
  for (std::size_t i = 0; i < right.size(); ++i) {
    for (const unsigned flip : {0x01u, 0x80u, 0xFFu}) {
      std::string bytes = right;
      bytes[i] = static_cast<char>(static_cast<unsigned char>(bytes[i]) ^ flip);
      const auto path = folder.write("changed.gguf", std::as_bytes(std::span(bytes)));
      try {
        const GgufFile file = GgufFile::open(path);
        for (const auto& [key, value] : file.metadata().all()) {
          GgufMetadata::brief(value);
          if (value.is_array() && value.element == GgufType::text) file.metadata().texts(key);
        }
        for (const TensorInfo& info : file.list()) {
          if (info.dtype != "F32") continue;
          const Tensor tensor = file.tensor(info.name);
          CHECK(std::string(reinterpret_cast<const char*>(tensor.data), tensor.bytes).size() == info.bytes);
        }
        ++opened;
      } catch (const Error&) {
        ++refused;
      }
    }
  }
  CHECK(opened > 100);
  CHECK(refused > 100);
}

TEST_CASE("a start that is not GGUF's, or that of a version we do not read") {
  malformed([](auto& f) { f.magic = "GGML"; }, {"are not 'GGUF'"});
  const auto version = [](std::uint32_t number, const std::string& part) {
    check_change([&](auto& f) { f.version = number; }, ErrorCode::not_supported, {"version of the format is " + part});
  };
  version(1, "1, expected 2 or 3");
  version(4, "4, expected 2 or 3");
  version(0, "0, expected 2 or 3");
  version(0x03000000, "3 in a big-endian file");
}

TEST_CASE("counts that the file cannot hold are refused before anything is allocated") {
  for (const std::uint64_t count : {std::uint64_t{1} << 20, std::numeric_limits<std::uint64_t>::max()}) {
    const std::string n = std::to_string(count);
    malformed([&](auto& f) { f.tensor_count = count; }, {"the tensors", n, "bytes follow"});
    malformed([&](auto& f) { f.key_count = count; }, {"the keys", n, "bytes follow"});
    malformed([&](auto& f) { f.array("k", GgufWriter::float64, count, ""); }, {"k: ", n, "bytes follow"});
    malformed([&](auto& f) { f.array("k", GgufWriter::text_type, count, ""); }, {"k: ", n, "bytes follow"});
    malformed([&](auto& f) { f.add("k", GgufWriter::text_type, raw(count)); }, {"k: ", n, "the file has"});
    malformed([&](auto& f) { f.array("k", GgufWriter::text_type, 1, raw(count)); }, {"k: ", n, "the file has"});
    malformed([&](auto& f) { f.keys.push_back(raw(count)); }, {"key 17", n});
  }
  malformed([](auto& f) { f.tensor_count = 4; }, {"tensor 3"});
}

TEST_CASE("keys that the format forbids") {
  malformed([](auto& f) { f.count("a.true", 1); }, {"a.true: the key appears twice"});
  malformed([](auto& f) { f.add("k", 13, ""); }, {"k: the type of its value is 13, expected 0 to 12"});
  malformed([](auto& f) { f.array("k", 99, 0, ""); }, {"k: the type of its value is 99"});
  malformed([](auto& f) { f.add("k", GgufWriter::boolean, "\x02"); }, {"k: a bool is 2, expected 0 or 1"});
  malformed([](auto& f) { f.array("k", GgufWriter::boolean, 2, std::string("\x01\x03")); }, {"k: a bool is 3"});
  malformed([](auto& f) { f.count("", 1); }, {"key 17: its name has 0 bytes"});
  malformed([](auto& f) { f.count(std::string(70000, 'k'), 1); }, {"its name has 70000 bytes, expected 1 to 65535"});
  const auto nest = [](int depth) {
    std::string value = raw(std::uint32_t{GgufWriter::u8}) + raw(std::uint64_t{0});
    for (int i = 1; i < depth; ++i) value = raw(std::uint32_t{GgufWriter::array_type}) + raw(std::uint64_t{1}) + value;
    return value;
  };
  malformed([&](auto& f) { f.add("k", GgufWriter::array_type, nest(5)); }, {"k: arrays are nested deeper than 4"});
  malformed([&](auto& f) { f.add("k", GgufWriter::array_type, nest(5000)); }, {"k: arrays are nested deeper than 4"});
  TemporaryFolder folder;
  GgufWriter deep = tiny();
  deep.add("k", GgufWriter::array_type, nest(4)).write(folder / "deep.gguf");
  CHECK(GgufFile::open(folder / "deep.gguf").metadata().has("k"));
}

TEST_CASE("an alignment that is none") {
  for (const std::uint64_t alignment : {0u, 1u, 4u, 24u, 131072u}) {
    malformed([&](auto& f) { f.alignment = alignment; },
              {"general.alignment: is " + std::to_string(alignment) + ", expected a power of two from 8 to 65536"});
  }
  check_change([](auto& f) { f.text("general.alignment", "32"); }, ErrorCode::config, {"general.alignment is '32'"});
}

TEST_CASE("tensors that the format forbids") {
  const std::uint64_t big = std::uint64_t{1} << 32;
  const auto tensor = [](GgufWriter& f, std::vector<std::uint64_t> dimensions, std::uint32_t type = f32_id) {
    f.tensors.push_back({"t", std::move(dimensions), type, ""});
  };
  malformed([](auto& f) { f.tensors[2].name = "matrix"; }, {"matrix: there are two tensors"});
  malformed([](auto& f) { f.tensors[1].name = ""; }, {"tensor 1: its name has 0 bytes"});
  malformed([&](auto& f) { tensor(f, {1, 1, 1, 1, 1}); }, {"t: has 5 dimensions, expected at most 4"});
  malformed([&](auto& f) { tensor(f, {big, big}); }, {"t: shape [4294967296, 4294967296] has 2^63 values or more"});
  malformed([&](auto& f) { tensor(f, {0, big, big}); }, {"t: shape [4294967296, 4294967296, 0] has 2^63 values"});
  malformed([&](auto& f) { tensor(f, {big / 2, big / 2}); }, {"of F32 takes 2^63 bytes or more"});
  malformed([&](auto& f) { tensor(f, {48, 2}, q8_0_id); }, {"t: rows of 48 values, expected a multiple of 32", "Q8_0"});
  for (const GgmlType& type : ggml_types) {
    if (type.values == 1) continue;
    CAPTURE(type.name);
    malformed(
        [&](auto& f) {
          tensor(f, {3 * type.values / 2, 2}, type.id);
        },
        {"t: rows of " + std::to_string(3 * type.values / 2) + " values, expected a multiple of " +
         std::to_string(type.values)});
  }
  malformed([&](auto& f) { tensor(f, {1}); }, {"t: its 4 bytes begin at byte", "truncated"});
  for (const std::uint32_t type : {4u, 5u, 31u, 1000u}) {
    check_change([&](auto& f) { tensor(f, {1}, type); }, ErrorCode::dtype,
                 {"t: its type is " + std::to_string(type) + ", which is unknown"});
  }
  malformed([](auto& f) { f.tensors[1].offset = 33; }, {"blocks: its data begin at byte 33", "a multiple of 32"});
  malformed([](auto& f) { f.tensors[1].offset = 0; }, {"blocks: its data begin", "inside those of matrix"});
  malformed([](auto& f) { f.tensors[2].offset = 160; }, {"cube: its data begin", "inside those of blocks"});
  for (const std::uint64_t offset : {std::uint64_t{224}, std::numeric_limits<std::uint64_t>::max() - 31}) {
    malformed([&](auto& f) { f.tensors[2].offset = offset; },
              {"cube: its 24 bytes begin at byte", std::to_string(offset)});
  }
}

TEST_CASE("a key that is not what is asked for, a tensor that is not there or of a type not computed with") {
  GgufWriter writer = tiny();
  writer.number("a.nan", std::numeric_limits<double>::quiet_NaN());
  writer.tensor("strange", {1, 128}, 41, std::string(18, 'x'));
  TemporaryFolder folder;
  writer.write(folder / "small.gguf");
  const GgufFile file = GgufFile::open(folder / "small.gguf");
  const GgufMetadata& k = file.metadata();
  const auto config = [](auto&& f, const std::string& part) {
    check_message(failure_of(f), ErrorCode::config, {part});
  };
  config([&] { k.text("a.uint8"); }, "a.uint8 is 200 (uint8), expected a text");
  config([&] { k.count("a.int8"); }, "a.int8 is -5");
  config([&] { k.count("a.float32"); }, "a.float32 is 0.5 (float32), expected a whole number");
  config([&] { k.count("a.uint8", {}, 199); }, "a.uint8 is 200 (uint8), expected a whole number from 0 to 199");
  config([&] { k.number("a.true"); }, "a.true is true, expected a finite number");
  config([&] { k.number("a.nan"); }, "a.nan is ");
  config([&] { k.boolean("a.uint8"); }, "expected true or false");
  config([&] { k.texts("a.numbers"); }, "a.numbers is an array of 3 int32, expected an array of texts");
  config([&] { k.numbers("a.texts"); }, "expected an array of numbers");
  config([&] { k.counts("a.uint8"); }, "expected an array of whole numbers");
  config([&] { k.counts("a.numbers", 2); }, "a.numbers: entry 0 is 3 (int32), expected a whole number from 0 to 2");
  config([&] { k.booleans("a.numbers"); }, "expected an array of true and false");
  config([&] { k.per_layer("a.numbers", 4); }, "a.numbers has 3 entries, expected one for each of the 4 layers");
  for (const auto& ask : std::vector<std::function<void()>>{[&] { k.text("no.such"); }, [&] { k.count("no.such"); },
                                                            [&] { k.number("no.such"); }, [&] { k.boolean("no.such"); },
                                                            [&] { k.texts("no.such"); }, [&] { k.numbers("no.such"); },
                                                            [&] { k.per_layer("no.such", 1); }}) {
    check_message(failure_of(ask), ErrorCode::missing, {"no.such is missing"});
  }
  check_message(failure_of([&] { file.tensor("sphere"); }), ErrorCode::missing, {"sphere: no such tensor"});
  check_message(failure_of([&] { file.tensor("strange"); }), ErrorCode::dtype, {"strange: dtype is Q1_0"});
  CHECK(file.list().size() == 4);
}

namespace {

/// Part `part` (from 1) of `count`, with one tensor of its own.
GgufWriter shard(std::size_t part, std::size_t count) {
  GgufWriter file;
  if (part == 1) file.text("general.architecture", "test");
  file.add("split.no", GgufWriter::u16, raw(static_cast<std::uint16_t>(part - 1)));
  file.add("split.count", GgufWriter::u16, raw(static_cast<std::uint16_t>(count)));
  file.add("split.tensors.count", GgufWriter::i32, raw(static_cast<std::int32_t>(count)));
  file.tensor("t" + std::to_string(part), {1}, f32_id, floats({static_cast<float>(part)}));
  return file;
}

std::string shard_name(std::size_t part, std::size_t count) {
  return "model-0000" + std::to_string(part) + "-of-0000" + std::to_string(count) + ".gguf";
}

void write_shards(const TemporaryFolder& folder, std::size_t count) {
  for (std::size_t part = 1; part <= count; ++part) shard(part, count).write(folder / shard_name(part, count));
}

}  // namespace

TEST_CASE("a split model is opened by any of its parts") {
  TemporaryFolder folder;
  write_shards(folder, 3);
  for (const std::size_t part : {1u, 2u, 3u}) {
    const GgufShards shards = GgufShards::open(folder / shard_name(part, 3));
    CHECK(shards.count() == 3);
    CHECK(shards.path() == folder / shard_name(1, 3));
    CHECK(shards.metadata().text("general.architecture") == "test");
    CHECK(shards.list().size() == 3);
    for (const std::size_t t : {1u, 2u, 3u}) {
      const Tensor tensor = shards.tensor("t" + std::to_string(t));
      CHECK(*reinterpret_cast<const float*>(tensor.data) == static_cast<float>(t));
      CHECK(tensor.file == (folder / shard_name(t, 3)).string());
    }
    CHECK(!shards.contains("t4"));
    check_message(failure_of([&] { shards.tensor("t4"); }), ErrorCode::missing, {"t4: no such tensor"});
  }
  GgufWriter whole = shard(1, 1);
  whole.write(folder / "any_name.gguf");
  CHECK(GgufShards::open(folder / "any_name.gguf").count() == 1);
}

TEST_CASE("parts that are missing or do not belong together") {
  const auto check = [](const std::function<void(const TemporaryFolder&)>& change, ErrorCode code,
                        const std::vector<std::string>& parts) {
    TemporaryFolder folder;
    write_shards(folder, 3);
    change(folder);
    check_message(failure_of([&] { GgufShards::open(folder / shard_name(1, 3)); }), code, parts);
  };
  const auto second = [](auto&& change) {
    return [change](const TemporaryFolder& folder) {
      GgufWriter file = shard(2, 3);
      change(file);
      file.write(folder / shard_name(2, 3));
    };
  };
  check([](const TemporaryFolder& f) { std::filesystem::remove(f / shard_name(2, 3)); }, ErrorCode::missing,
        {"model-00002-of-00003.gguf: part 2 of the 3 parts", "is missing"});
  check(second([](GgufWriter& f) { f = shard(3, 3); }), ErrorCode::malformed,
        {"00002-of", "split.no is 2, expected 1"});
  check(second([](GgufWriter& f) {
          f.keys[1] = gguf_text("split.count") + raw(std::uint32_t{GgufWriter::u16}) + raw(std::uint16_t{4});
        }),
        ErrorCode::malformed, {"00002-of", "split.count is 4, expected 3"});
  check(second([](GgufWriter& f) {
          f.keys[2] = gguf_text("split.tensors.count") + raw(std::uint32_t{GgufWriter::i32}) + raw(std::int32_t{9});
        }),
        ErrorCode::malformed, {"00002-of", "split.tensors.count is 9, expected 3"});
  check(second([](GgufWriter& f) { f.keys.erase(f.keys.begin()); }), ErrorCode::missing, {"split.no is missing"});
  check(second([](GgufWriter& f) { f.tensors.clear(); }), ErrorCode::malformed,
        {"split.tensors.count is 3, but its 3 parts have 2 tensors"});
  check(second([](GgufWriter& f) { f.tensors[0].name = "t1"; }), ErrorCode::malformed,
        {"00002-of", "t1: is in", "00001-of", "too"});
  TemporaryFolder folder;
  shard(1, 3).write(folder / "renamed.gguf");
  check_message(failure_of([&] { GgufShards::open(folder / "renamed.gguf"); }), ErrorCode::malformed,
                {"should end in '-00001-of-00003.gguf'"});
}

}  // namespace ple::gguf_test
