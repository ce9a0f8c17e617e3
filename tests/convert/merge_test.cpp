// SPDX-License-Identifier: Apache-2.0
// A model with its adapters merged computes what it does with them at run time. That PEFT merges to the same is checked
// by tests/reference/check_adapters_out.py.
#include "ple/convert/merge_adapter.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/checkpoint/peft_adapter.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/session.h"

namespace ple::merge_test {

namespace {

using Model = Gemma4<Any, Simd>;

const std::filesystem::path data = PLE_TEST_DATA, golden = data / "golden", adapters = data / "golden_adapters";

std::shared_ptr<const Adapter> open(const std::string& name) {
  return std::make_shared<const Adapter>(open_peft_adapter(adapters / name));
}

std::vector<float> logits_of(const std::filesystem::path& folder, const std::vector<SessionAdapter>& some = {}) {
  const Model model = Model::load(Checkpoint::open(folder));
  Session session(model, {.context = 64, .adapters = some});
  std::vector<float> all;
  std::vector<Token> tokens;
  for (Token token = 1; token < 40; ++token) tokens.push_back(token * 5);
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

/// Of the range of `b`.
float distance(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  const auto [least, most] = std::minmax_element(b.begin(), b.end());
  float far = 0;
  for (std::size_t i = 0; i < a.size(); ++i) far = std::isnan(a[i]) ? INFINITY : std::max(far, std::abs(a[i] - b[i]));
  return far / (*most - *least);
}

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// An adapter with LoRA of rank 3 and rows, of made-up values, for the model in a folder.
Adapter made_up(const std::filesystem::path& folder, float size = 0.1f) {
  const HfFolder model(folder);
  std::vector<Adapter::Part> parts;
  const auto fill = [&](AlignedVector<float>& values, std::size_t count) {
    values.resize(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = size * (static_cast<float>(i * 37 % 61) - 30) / 30;
  };
  for (const auto& [parameter, layer] : {std::pair(Parameter::query, 0),
                                         {Parameter::down, 2},
                                         {Parameter::ple_gate, 1},
                                         {Parameter::ple_context_projection, 0}}) {
    const auto shape = model.tensor(parameter, static_cast<std::size_t>(layer)).shape;
    Adapter::Part part{parameter, static_cast<std::size_t>(layer), "part", shape[1], shape[0], 3, {}, {}};
    fill(part.a, 3 * part.in);
    fill(part.b, 3 * part.out);
    parts.push_back(std::move(part));
  }
  TrainedRows rows{.ids = {3, 17, 99}, .width = static_cast<std::size_t>(model.tensor(Parameter::ple_table).shape[1])};
  fill(rows.values, 3 * rows.width);
  return {"made up", std::move(parts), std::move(rows)};
}

/// A golden model in a folder to change.
void copy_model(const std::string& name, const std::filesystem::path& to) {
  std::filesystem::create_directory(to);
  for (const char* file : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(golden / name / file, to / file);
  }
}

void check_refused(const std::filesystem::path& model, const std::vector<SessionAdapter>& some, ErrorCode code,
                   const std::string& why) {
  CAPTURE(why);
  const testing::TemporaryFolder folder;
  std::string message = "no error";
  try {
    merge_adapters(model, some, folder / "out");
  } catch (const Error& error) {
    CHECK(error.code() == code);
    message = error.what();
  }
  CAPTURE(message);
  CHECK(message.find(why) != message.npos);
  CHECK(folder.names().empty());
}

}  // namespace

TEST_CASE("a merged model computes what the model does with the adapters") {
  const auto linear = open("e2b_all_linear"), rows = open("e2b_lora_rows"), only_rows = open("e2b_rows");
  for (const std::vector<SessionAdapter>& some : {std::vector<SessionAdapter>{{linear}},
                                                  {{rows}},
                                                  {{only_rows, 0.5f}},
                                                  {{linear, -0.5f}, {rows, 2}, {only_rows}}}) {
    const testing::TemporaryFolder folder;
    merge_adapters(golden / "e2b_like", some, folder / "out");
    const auto merged = logits_of(folder / "out"), expected = logits_of(golden / "e2b_like", some);
    CHECK(distance(merged, expected) < 1e-5f);
    CHECK(distance(logits_of(golden / "e2b_like"), expected) > 0.01f);
  }
}

TEST_CASE("sums are rounded once to the type of the tensor; what no adapter changes is copied") {
  for (const char* name : {"e2b_like_bf16", "e2b_like_f16"}) {
    CAPTURE(std::string(name));
    const auto adapter = std::make_shared<const Adapter>(made_up(golden / name));
    const testing::TemporaryFolder folder;
    const MergedAdapters merged =
        merge_adapters(golden / name, std::vector<SessionAdapter>{{adapter, 2}}, folder / "out");
    CHECK(merged.matrices == adapter->parts().size());
    CHECK(merged.rows == 3);
    CHECK(contents(folder / "out" / "config.json") == contents(golden / name / "config.json"));
    const auto before = SafetensorsFile::open(golden / name / "model.safetensors"),
               after = SafetensorsFile::open(folder / "out" / "model.safetensors");
    REQUIRE(before.names() == after.names());
    const HfFolder model(golden / name);
    std::size_t changed = 0;
    for (const std::string& tensor : before.names()) {
      const Tensor old = before.raw(tensor), now = after.raw(tensor);
      CHECK(before.dtype(tensor) == after.dtype(tensor));
      REQUIRE(old.bytes == now.bytes);
      changed += std::memcmp(old.data, now.data, old.bytes) != 0;
    }
    CHECK(changed == merged.matrices + 1);
    const auto decoded = [](const Tensor& tensor) {
      std::vector<float> values(tensor.bytes / bytes_of(tensor.dtype, 1));
      decode<Scalar, Any>(tensor.dtype, tensor.data, values.size(), values.data());
      return values;
    };
    bool good = true;
    for (const Adapter::Part& part : adapter->parts()) {
      const std::string tensor = model.names().name(part.parameter, part.layer);
      const auto w = decoded(before.tensor(tensor)), y = decoded(after.tensor(tensor));
      for (std::size_t o = 0; o < part.out; ++o) {
        for (std::size_t i = 0; i < part.in; ++i) {
          double sum = double(w[o * part.in + i]);
          for (std::size_t r = 0; r < part.rank; ++r)
            sum += 2 * double(part.b[r * part.out + o]) * double(part.a[r * part.in + i]);
          const double unit = before.dtype(tensor) == "BF16" ? 0x1p-8 : 0x1p-11;
          good &= std::abs(double(y[o * part.in + i]) - sum) <= unit * (std::abs(sum) + 1e-4) * 1.01;
        }
      }
    }
    // Twice the way from the stored rows to the new ones.
    const std::string table = model.names().name(Parameter::ple_table, 0);
    const auto w = decoded(before.tensor(table)), y = decoded(after.tensor(table));
    const std::size_t width = adapter->rows().width;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const float* trained = adapter->rows().find(i / width);
      const double sum = trained ? 2 * double(trained[i % width]) - double(w[i]) : double(w[i]);
      good &= std::abs(double(y[i]) - sum) <= (trained ? 0x1p-8 * (std::abs(sum) + 1e-4) : 0);
    }
    CHECK(good);
  }
}

TEST_CASE("what cannot be merged is refused before anything is written, and the message says what to do") {
  const auto adapter = open("e2b_second"), rows = open("e2b_rows");
  const testing::TemporaryFolder folder;
  std::ofstream(folder / "model.gguf") << "GGUF";
  check_refused(folder / "model.gguf", {{adapter}}, ErrorCode::not_supported,
                "is a file, expected a Hugging Face folder: merge into the model that a GGUF file was made of");
  check_refused(golden / "e2b_like", {{nullptr}}, ErrorCode::argument, "without an adapter");
  check_refused(golden / "e2b_like", {{adapter, NAN}}, ErrorCode::argument, "the scale is nan");
  check_refused(golden / "dense_31b_like", {{adapter}}, ErrorCode::shape, "is for a matrix of [");
  check_refused(golden / "dense_31b_like", {{rows}}, ErrorCode::missing, "has no model.embed_tokens_per_layer.weight");
  check_refused(golden / "nested", {{rows}}, ErrorCode::shape, "rows of 80 values, the last of them 202; ");

  // A tensor of a type that is no float, and one that is not there.
  copy_model("e2b_like_bf16", folder / "integers");
  std::string bytes = contents(folder / "integers" / "model.safetensors");
  const std::size_t name = bytes.find("layers.0.self_attn.q_proj.weight"), type = bytes.find("\"BF16\"", name);
  REQUIRE(type < name + 100);
  bytes.replace(type, 6, "\"I16\" ");
  std::ofstream(folder / "integers" / "model.safetensors", std::ios::binary) << bytes;
  check_refused(folder / "integers", {{adapter}}, ErrorCode::not_supported,
                "q_proj.weight: is of type I16, which small changes would not survive");
  copy_model("e2b_like_bf16", folder / "without");
  bytes = contents(folder / "without" / "model.safetensors");
  const std::string weight = "layers.0.self_attn.q_proj.weight\":{";
  bytes.replace(bytes.find(weight), weight.size(), "layers.0.self_attn.q_proj.weigh_\":{");
  std::ofstream(folder / "without" / "model.safetensors", std::ios::binary) << bytes;
  check_refused(folder / "without", {{adapter}}, ErrorCode::missing, "has no model.layers.0.self_attn.q_proj.weight");

  // A sum that the type does not have.
  const auto large = std::make_shared<const Adapter>(made_up(golden / "e2b_like_f16", 1e4f));
  check_refused(golden / "e2b_like_f16", {{large}}, ErrorCode::not_supported, "which f16 cannot hold");
}

}  // namespace ple::merge_test
