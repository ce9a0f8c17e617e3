// SPDX-License-Identifier: Apache-2.0
// Folders of quantized weights: what compressed-tensors packed is what the reference unpacks
// (tests/reference/make_packed_golden.py); what cannot be read says what it is.
#include "ple/checkpoint/packed_weights.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "folder.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/convert/inspect.h"
#include "ple/convert/slice_writer.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/session.h"
#include "ple/simd/decode.h"
#include "ple/simd/scalar.h"

namespace ple::packed_weights_test {

namespace {

using ple::testing::Folder;
using ple::testing::ordered_json;

const std::filesystem::path golden = std::filesystem::path(PLE_TEST_DATA) / "packed";

std::vector<float> values(const Tensor& tensor) {
  std::size_t count = 1;
  for (const std::uint64_t n : tensor.shape) count *= n;
  std::vector<float> all(count);
  decode<Scalar, Any>(tensor.dtype, tensor.data, count, all.data());
  return all;
}

void check_error(const std::function<void()>& f, ErrorCode code, const std::vector<std::string>& parts) {
  try {
    f();
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(error.code() == code);
    for (const std::string& part : parts) {
      CAPTURE(part);
      CHECK(message.find(part) != std::string::npos);
    }
    return;
  }
  FAIL("no error");
}

/// The small folder, in which layer 0's up projection is packed: [10, 8] becomes [10, 32], which only its own tensor
/// knows.
struct Packed : Folder {
  static constexpr const char* name = "model.layers.0.mlp.up_proj.weight";

  Packed() {
    const std::size_t begin = header[name]["data_offsets"][0], end = header[name]["data_offsets"][1];
    header.erase(name);
    header["unused"] = {{"dtype", "U8"}, {"shape", {end - begin}}, {"data_offsets", {begin, end}}};
    add("_packed", "I32", {10, 4}, std::string(10 * 16, '\x98'));  // 0 and 1
    std::string scales;
    for (int i = 0; i < 10; ++i) scales += std::string("\x80\x3f", 2);  // 1 in bf16
    add("_scale", "BF16", {10, 1}, scales);
    const std::int64_t sizes[] = {10, 32};
    add("_shape", "I64", {2}, std::string(reinterpret_cast<const char*>(sizes), sizeof sizes));
  }

  void add(const std::string& part, const std::string& dtype, const std::vector<std::uint64_t>& shape,
           const std::string& bytes) {
    header[name + part] = {
        {"dtype", dtype}, {"shape", shape}, {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data += bytes;
  }
  std::string& bytes_of(const std::string& part, const std::string& bytes) {
    return data.replace(header[name + part]["data_offsets"][0], bytes.size(), bytes);
  }

  Tensor read() const {
    write();
    return HfFolder(path()).tensor(Parameter::up, 0);
  }
};

}  // namespace

TEST_CASE("packed weights are the numbers that the reference unpacks, and its logits but for activations in 8 bits") {
  const HfFolder folder(golden);
  const SafetensorsFile expected = SafetensorsFile::open(golden / "expected.safetensors");
  const Tensor query = folder.tensor(Parameter::query, 0), down = folder.tensor(Parameter::down, 1),
               ple_output = folder.tensor(Parameter::ple_output, 1);
  CHECK(query.dtype == Dtype::q4_0);
  CHECK(down.dtype == Dtype::q4_0);
  CHECK(ple_output.dtype == Dtype::q8_0);
  CHECK(values(query) == values(expected.tensor("layers.0.self_attn.q_proj.weight")));
  CHECK(values(down) == values(expected.tensor("layers.1.mlp.down_proj.weight")));
  CHECK(values(ple_output) == values(expected.tensor("layers.1.per_layer_projection.weight")));

  std::vector<Token> tokens;
  for (const float token : values(expected.tensor("tokens"))) tokens.push_back(static_cast<Token>(token));
  const std::vector<float> logits = values(expected.tensor("logits"));
  for (const WeightStorage weights : {WeightStorage::repacked, WeightStorage::mapped}) {
    const auto model = Gemma4<Any, Simd>::load(Checkpoint::open(golden), {.weights = weights});
    Session session(model, {.context = 32, .threads = 1});
    std::vector<float> found;
    session.evaluate(
        tokens, [&](std::size_t, std::span<const float> row) { found.insert(found.end(), row.begin(), row.end()); });
    REQUIRE(found.size() == logits.size());
    double error = 0, size = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double before_cap = 30 * std::atanh(double(logits[i]) / 30);
      error += std::pow(double(found[i]) - double(logits[i]), 2);
      size += before_cap * before_cap;
    }
    // As in tests/model/quantized_test.cpp: seven products of a layer have activations in 8 bits.
    const double u = 2.5 / 127 / std::sqrt(12.0), relative = std::sqrt(error / size);
    CAPTURE(relative);
    CHECK(relative <= u * std::sqrt(9.0 * 2 + 2));
    CHECK(relative > 0);
  }
}

TEST_CASE("inspect counts packed weights") {
  const Inspection found = inspect(golden.string());
  CHECK(found.rest.empty());
  std::size_t packed = 0;
  for (const StoredParameter& stored : found.text) {
    if (stored.of.parameter == Parameter::ple_output) CHECK(stored.dtype == "int8");
    if (stored.of.parameter != Parameter::up) continue;
    CHECK(stored.dtype == "int4");
    CHECK(stored.bytes == 128 * 32 / 2 + 128 * 4 + 2 * 8);  // integers, scales in f32, the shape
    ++packed;
  }
  CHECK(packed == 2);
}

TEST_CASE("4 and 8 bits, and what else packed weights may be") {
  Packed folder;
  const Tensor four = folder.read();
  CHECK(four.dtype == Dtype::q4_0);
  CHECK(four.shape == std::vector<std::uint64_t>{10, 32});
  std::vector<float> expected(320);
  for (std::size_t i = 0; i < 320; ++i) expected[i] = static_cast<float>(i % 2);
  CHECK(values(four) == expected);

  const auto refused = [](const std::function<void(Packed&)>& change, ErrorCode code, std::vector<std::string> parts) {
    Packed packed;
    change(packed);
    parts.push_back("model.layers.0.mlp.up_proj.weight_");
    check_error([&] { packed.read(); }, code, parts);
  };
  const ErrorCode no = ErrorCode::not_supported, malformed = ErrorCode::malformed;
  refused([](auto& p) { p.add("_zero_point", "I32", {2, 1}, std::string(8, '\0')); }, no, {"_zero_point", "symmetric"});
  refused([](auto& p) { p.add("_g_idx", "I32", {32}, std::string(128, '\0')); }, no, {"_g_idx"});
  refused(
      [](auto& p) {
        p.header[Packed::name + std::string("_packed")]["shape"] = {10, 2, 2};
      },
      ErrorCode::shape, {"[10, 2, 2]", "10 rows"});
  refused([](auto& p) { p.header[Packed::name + std::string("_packed")]["dtype"] = "F32"; }, no,
          {"F32", "expected I32"});
  refused(
      [](auto& p) {
        p.header[Packed::name + std::string("_scale")]["shape"] = {5, 2};
      },
      ErrorCode::shape, {"[5, 2]", "10 rows"});
  const auto sizes = [](std::int64_t rows, std::int64_t cols) {
    return [=](Packed& p) {
      const std::int64_t both[] = {rows, cols};
      p.bytes_of("_shape", std::string(reinterpret_cast<const char*>(both), sizeof both));
    };
  };
  refused(sizes(10, 31), no, {"[10, 31]", "groups"});
  refused(sizes(10, 48), no, {"[10, 48]", "groups"});
  refused(sizes(5, 64), ErrorCode::shape, {"5 rows"});
  for (const std::int64_t size : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1} << 40}) {
    refused(sizes(10, size), ErrorCode::shape, {std::to_string(size), "expected 1 to 2147483648"});
    refused(sizes(size, 32), ErrorCode::shape, {std::to_string(size)});
  }
  refused([](auto& p) { p.bytes_of("_scale", std::string("\x80\x7f", 2)); }, malformed, {"row 0", "inf"});
  refused([](auto& p) { p.bytes_of("_scale", std::string("\xc0\x7f", 2)); }, malformed, {"row 0", "nan"});
  refused([](auto& p) { p.bytes_of("_scale", std::string("\x80\x47", 2)); }, malformed, {"row 0", "65536"});
  for (const char* part : {"_scale", "_shape"}) {
    refused(
        [part](auto& p) {
          p.header["x"] = p.header[Packed::name + std::string(part)];
          p.header.erase(Packed::name + std::string(part));
        },
        ErrorCode::missing, {part});
  }
  Packed active;
  active.config["quantization_config"] = {{"quant_method", "compressed-tensors"},
                                          {"config_groups", {{"a", {{"input_activations", {{"num_bits", 8}}}}}}}};
  check_error([&] { active.read(); }, no, {"config.json", "input_activations"});
}

TEST_CASE("a program that names one type of weights hears of the one that takes all") {
  const HfFolder folder(golden);
  check_error([&] { Gemma4<f32, Scalar>::load(folder); }, ErrorCode::dtype,
              {"dtype is q4_0, expected f32", "ple::Any"});
}

TEST_CASE("weights that were quantized in another way say how") {
  const auto with = [](const ordered_json& quantization, const char* dtype, ErrorCode code,
                       std::vector<std::string> parts) {
    Folder folder;
    const std::string name = "model.layers.0.mlp.up_proj.weight";
    if (dtype) {
      folder.header[name] = {{"dtype", dtype}, {"shape", {320}}, {"data_offsets", folder.header[name]["data_offsets"]}};
    } else {
      folder.header["model.layers.0.mlp.up_proj.qweight"] = folder.header[name];
      folder.header.erase(name);
    }
    folder.config["quantization_config"] = quantization;
    folder.write();
    parts.push_back(name);
    check_error([&] { Gemma4<f32, Scalar>::load(HfFolder(folder.path())); }, code, parts);
    if (!dtype) check_error([&] { inspect(folder.path().string()); }, code, parts);
  };
  with({{"quant_method", "gptq"}, {"bits", 4}, {"group_size", 128}}, nullptr, ErrorCode::missing,
       {"quantized by gptq, 4 bits, groups of 128", "GGUF"});
  with({{"quant_method", "awq"}, {"bits", 4}}, nullptr, ErrorCode::missing, {"quantized by awq, 4 bits"});
  with({{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}}, "F8_E4M3", ErrorCode::dtype,
       {"F8_E4M3", "F32, BF16 or F16", "quantized by fp8"});
  with({{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}}, "U8", ErrorCode::dtype,
       {"quantized by bitsandbytes"});
  with({{"group_size", 64}, {"bits", 4}, {"mode", "affine"}}, "U8", ErrorCode::dtype,
       {"is quantized, 4 bits, groups of 64"});
  with({{"quant_method", "compressed-tensors"},
        {"format", "float-quantized"},
        {"config_groups", {{"group_0", {{"weights", {{"num_bits", 8}, {"type", "float"}}}}}}}},
       "F8_E4M3", ErrorCode::dtype, {"compressed-tensors (float-quantized), 8 bits"});
  with(7, "U8", ErrorCode::dtype, {"dtype is U8"});
}

TEST_CASE("a slice of packed weights is refused before anything is written") {
  Folder folder;
  const std::string name = "model.layers.0.mlp.gate_proj.weight";
  folder.header[name + "_packed"] = folder.header[name];
  folder.header.erase(name);
  folder.config["model_type"] = "gemma3n_text";
  folder.config["altup_num_inputs"] = 2;
  folder.config["num_kv_shared_layers"] = 0;
  folder.write();
  const std::filesystem::path to = folder.path() / "slice";
  check_error([&] { write_slice(folder.path(), {.intermediate_size = {4}}, to); }, ErrorCode::not_supported,
              {folder.path().string(), "packed"});
  CHECK(!std::filesystem::exists(to));
}

}  // namespace ple::packed_weights_test
