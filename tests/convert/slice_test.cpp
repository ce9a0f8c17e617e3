// SPDX-License-Identifier: Apache-2.0
// MatFormer slices: what is loaded from the whole model's files is what is written as a folder; nothing else is read.
// That both are what transformers makes of a slice is checked by tests/reference/check_slice.py.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/convert/pack_table.h"
#include "ple/convert/slice_writer.h"
#include "ple/family/gemma3n/block.h"
#include "ple/model/parameter_groups.h"
#include "ple/run/session.h"
#include "ple/table/streamed.h"

namespace ple::slice_test {

namespace {

using Model = Gemma3n<Any, Simd>;

const std::filesystem::path data = std::filesystem::path(PLE_TEST_DATA) / "golden_gemma3n";

/// Of models with ten layers, whose fifth and tenth are full; the last five share K and V of layers 3 and 4.
const MatformerOptions slices[] = {{.intermediate_size = {40}, .skip_layers = {5, 6, 7}},
                                   {.intermediate_size = {}, .skip_layers = {9, 1, 0}},
                                   {.intermediate_size = {9, 10, 11, 12, 13, 14, 15, 16, 17, 18}, .skip_layers = {}}};

std::vector<float> logits_of(const std::filesystem::path& path, const CheckpointOptions& options = {},
                             const TableStorage& storage = Mapped{}) {
  const Model model = Model::load(Checkpoint::open(path, options), {.table = storage});
  std::vector<Token> tokens;
  for (Token token = 0; token < 60; ++token) tokens.push_back(token * 37 % static_cast<Token>(model.vocab_size()));
  Session session(model, {.context = 64, .chunk = 7, .threads = 1});
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A Gemma 3n folder in f32 with one file and no nested text model, without the tensors of skipped layers, and with
/// NaN wherever the slice does not look.
void write_poisoned(const std::filesystem::path& from, const MatformerOptions& options,
                    const std::filesystem::path& to) {
  const auto folder = std::make_shared<const HfFolder>(from);
  const SlicedSource slice(folder, folder->any_config(), options, "");
  const auto& config = slice.slice().config;
  const auto file = SafetensorsFile::open(from / "model.safetensors");
  struct Rewritten {
    TensorInfo info;
    std::vector<float> values;
  };
  std::map<std::string, Rewritten> tensors;
  for (TensorInfo& info : file.list()) tensors[info.name].info = info;
  std::set<std::string> needed;
  for (const ParameterShape& shape : parameter_shapes(config)) {
    if (!shape.used) continue;
    const bool of_layer = is_of_layer(shape.parameter);
    const std::string name =
        hf_name("model.", shape.parameter, of_layer ? slice.slice().layers[shape.layer] : shape.layer);
    needed.insert(name);
    const Tensor whole = file.tensor(name);
    std::vector<float>& values = tensors.at(name).values;
    values.assign(whole.bytes / sizeof(float), std::numeric_limits<float>::quiet_NaN());
    const auto copy = [&](std::uint64_t begin, std::uint64_t size) {
      std::memcpy(reinterpret_cast<std::byte*>(values.data()) + begin, whole.data + begin, size);
    };
    if (SlicedSource::is_cut(shape.parameter)) {
      slice.part(shape.parameter, shape.layer).for_each_range(copy);
    } else {
      copy(0, whole.bytes);
    }
  }
  SafetensorsHeader header;
  std::string bytes;
  for (const std::string& name : needed) {
    const auto& [info, values] = tensors.at(name);
    header.tensor(name, info.dtype, info.shape, info.bytes);
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  }
  std::filesystem::create_directories(to);
  std::ofstream(to / "model.safetensors", std::ios::binary) << header.bytes() << bytes;
  std::filesystem::copy_file(from / "config.json", to / "config.json");
}

}  // namespace

TEST_CASE("a slice gives the same bits from the whole model's files and from the folder that is written of it") {
  for (const char* name : {"e4b_like", "e2b_like_bf16"}) {  // several files; one in bf16
    const std::vector<float> whole = logits_of(data / name);
    for (MatformerOptions options : slices) {
      CAPTURE(name);
      testing::TemporaryFolder temporary;
      const MatformerSlice slice = write_slice(data / name, options, temporary / "slice");
      const std::vector<float> direct = logits_of(data / name, {.slice = options});
      CHECK(same(direct, logits_of(temporary / "slice")));
      CHECK_FALSE(same(direct, whole));
      CHECK(slice.layers.size() == 10 - options.skip_layers.size());
      for (const TableStorage& storage :
           {TableStorage(Resident{}), TableStorage(Streamed{.budget = 0}), TableStorage(Mapped{.budget = 10'000})})
        CHECK(same(logits_of(data / name, {.slice = options}, storage), direct));
    }
  }
}

TEST_CASE("a slice of a model inside one that sees and hears keeps the rest of it, and names") {
  testing::TemporaryFolder temporary;
  const MatformerOptions options{.intermediate_size = {31}, .skip_layers = {3}};
  write_slice(data / "published_style", options, temporary / "slice");
  CHECK(same(logits_of(data / "published_style", {.slice = options}), logits_of(temporary / "slice")));
  const auto file = SafetensorsFile::open(temporary / "slice/model.safetensors");
  CHECK(file.contains("model.vision_tower.stem.weight"));
  CHECK(file.contains("model.language_model.layers.2.self_attn.k_proj.weight"));  // unused, as in the whole model
  CHECK_FALSE(file.contains("model.language_model.layers.3.self_attn.q_proj.weight"));
  const Json json = read_json_file(temporary / "slice/config.json");
  REQUIRE(json.find("text_config") != nullptr);
  CHECK(json.find("text_config")->find("num_hidden_layers")->natural() == 3);
  CHECK(json.find("text_config")->find("layer_types")->items().size() == 3);
  CHECK(json.find("architectures")->items()[0].text() == "Gemma3nForConditionalGeneration");
}

TEST_CASE("nothing that a slice leaves out is read") {
  for (const MatformerOptions& options : slices) {
    testing::TemporaryFolder temporary;
    write_poisoned(data / "e2b_like", options, temporary / "poisoned");
    const CheckpointOptions sliced{.slice = options};
    CHECK(same(logits_of(temporary / "poisoned", sliced), logits_of(data / "e2b_like", sliced)));
    write_slice(temporary / "poisoned", options, temporary / "slice");
    CHECK(same(logits_of(temporary / "slice"), logits_of(data / "e2b_like", sliced)));
  }
}

TEST_CASE("a slice takes its layers from a table that was packed for the whole model") {
  testing::TemporaryFolder temporary;
  const Model whole = Model::load(Checkpoint::open(data / "e2b_like"));
  InlineExecutor executor;
  for (const bool fold : {false, true}) {
    pack_table(whole, {.dtypes = std::vector<std::optional<Dtype>>(10, Dtype::f32), .fold = fold}, temporary / "table",
               executor);
    for (const MatformerOptions& options : slices) {
      CHECK(same(logits_of(data / "e2b_like", {.table = temporary / "table", .slice = options}),
                 logits_of(data / "e2b_like", {.slice = options})));
    }
  }
  // its bases, too
  PackOptions ranked{.dtypes = std::vector<std::optional<Dtype>>(10, Dtype::f32), .bases = RowBases(10)};
  const std::size_t p = whole.table.width();
  for (std::size_t l = 0; l < 9; ++l) {  // the last layer has none
    AlignedVector<float> basis((l % p + 1) * p);
    for (std::size_t i = 0; i < basis.size(); ++i) basis[i] = static_cast<float>((i * 7 + l) % 11) - 5;
    ranked.bases[l] = std::make_shared<const AlignedVector<float>>(std::move(basis));
  }
  pack_table(whole, ranked, temporary / "ranked", executor);
  const auto rows = [&](const Model& model) {
    const std::vector<Token> tokens = {3, 1, 4};
    RowSelection selection = model.table.make_selection(tokens.size());
    model.table.select(tokens, tokens.size(), 0, selection);
    std::vector<float> out(tokens.size() * model.table.cols());
    model.table.gather_stored(executor, selection, 0, 0, model.blocks.size(),
                              {out.data(), tokens.size(), model.table.cols(), model.table.cols()});
    return out;
  };
  const auto all = rows(Model::load(Checkpoint::open(data / "e2b_like", {.table = temporary / "ranked"})));
  for (const auto& [options, kept] : {std::pair{slices[0], std::vector<std::size_t>{0, 1, 2, 3, 4, 8, 9}},
                                      {slices[1], std::vector<std::size_t>{2, 3, 4, 5, 6, 7, 8}}}) {
    std::vector<float> expected;
    for (std::size_t t = 0; t < 3; ++t) {
      for (const std::size_t l : kept) {
        const auto from = all.begin() + static_cast<std::ptrdiff_t>((t * 10 + l) * p);
        expected.insert(expected.end(), from, from + static_cast<std::ptrdiff_t>(p));
      }
    }
    CHECK(
        same(rows(Model::load(Checkpoint::open(data / "e2b_like", {.table = temporary / "ranked", .slice = options}))),
             expected));
  }
  // and one that was packed for the slice as it is
  const Model slice = Model::load(Checkpoint::open(data / "e2b_like", {.slice = slices[0]}));
  pack_table(slice, {.dtypes = std::vector<std::optional<Dtype>>(7, Dtype::f32)}, temporary / "small", executor);
  CHECK(same(logits_of(data / "e2b_like", {.table = temporary / "small", .slice = slices[0]}),
             logits_of(data / "e2b_like", {.slice = slices[0]})));
}

TEST_CASE("E4B's slice e2b is E2B, in every shape and in the published number of parameters") {
  const Gemma3nConfig e2b = matformer_slice(gemma3n_e4b(), published_slice("e2b"), "E4B").config;
  const auto slice = parameter_shapes(e2b), published = parameter_shapes(gemma3n_e2b());
  REQUIRE(slice.size() == published.size());
  for (std::size_t i = 0; i < slice.size(); ++i) {
    REQUIRE(slice[i].parameter == published[i].parameter);
    REQUIRE(slice[i].layer == published[i].layer);
    REQUIRE(slice[i].shape == published[i].shape);
    REQUIRE(slice[i].used == published[i].used);
  }
  for (std::size_t l = 0; l < e2b.num_layers(); ++l) {
    CHECK(e2b.layers[l].attention == gemma3n_e2b().layers[l].attention);
    CHECK(e2b.layers[l].activation_sparsity == gemma3n_e2b().layers[l].activation_sparsity);
    CHECK(e2b.kv_layer(l) == gemma3n_e2b().kv_layer(l));
  }
  // As MatFormer Lab prints them.
  CHECK(parameter_groups(slice).total() == 4'456'156'768);
  CHECK(parameter_groups(slice).effective_documentation() == 1'905'495'648);
  // The names of the others are their effective parameters, which the data set rounds in its own way.
  for (const auto& [name, billions] : {std::pair{"e1.96b", 1.96}, {"e2.54b", 2.54}}) {
    const auto shapes = parameter_shapes(matformer_slice(gemma3n_e4b(), published_slice(name), "E4B").config);
    const double effective = static_cast<double>(parameter_groups(shapes).effective_documentation());
    CHECK(std::abs(effective * 1e-9 - billions) < 0.021);
  }
}

TEST_CASE("a part of a matrix: where it lies if it is one piece, else copied; whole blocks only") {
  float values[6][5];
  for (int r = 0; r < 6; ++r) {
    for (int c = 0; c < 5; ++c) values[r][c] = static_cast<float>(10 * r + c);
  }
  const Tensor whole{"file",        "matrix", Dtype::f32, {6, 5}, reinterpret_cast<const std::byte*>(values),
                     sizeof values, nullptr};
  const auto numbers = [](const Tensor& tensor) {
    std::vector<float> all(tensor.bytes / sizeof(float));
    std::memcpy(all.data(), tensor.data, tensor.bytes);
    return all;
  };
  const Tensor rows = TensorPart(whole, {{2, 1}, {3, 1}}, {{0, 5}}).tensor();
  CHECK(rows.data == whole.data + 2 * 5 * sizeof(float));
  CHECK(rows.shape == std::vector<std::uint64_t>{2, 5});
  const Tensor apart = TensorPart(whole, {{0, 1}, {4, 1}}, {{0, 5}}).tensor();
  CHECK(numbers(apart) == std::vector<float>{0, 1, 2, 3, 4, 40, 41, 42, 43, 44});
  const Tensor both = TensorPart(whole, {{1, 2}}, {{0, 1}, {3, 2}}).tensor();
  CHECK(both.shape == std::vector<std::uint64_t>{2, 3});
  CHECK(numbers(both) == std::vector<float>{10, 13, 14, 20, 23, 24});

  q8_0 blocks[2][3] = {};
  blocks[1][1].values[7] = 99;
  const Tensor quantised{"file",        "blocks", Dtype::q8_0, {2, 96}, reinterpret_cast<const std::byte*>(blocks),
                         sizeof blocks, nullptr};
  const Tensor narrow = TensorPart(quantised, {{0, 2}}, {{0, 64}}).tensor();
  CHECK(narrow.bytes == 4 * sizeof(q8_0));
  CHECK(reinterpret_cast<const q8_0*>(narrow.data)[3].values[7] == 99);
  CHECK(message([&] {
          TensorPart(quantised, {{0, 2}}, {{0, 40}});
        }) == "file: blocks: 40 columns from 0 on are wanted in q8_0, expected multiples of 32");
}

TEST_CASE("slices that a model does not have") {
  const auto of = [](const MatformerOptions& options) {
    return message([&] { Checkpoint::open(data / "e4b_like", {.slice = options}); });
  };
  CHECK(
      says(of({.intermediate_size = {65}}), "e4b_like: slice: intermediate_size is 65 for layer 1, expected 1 to 64"));
  CHECK(says(of({.intermediate_size = {0}}), "intermediate_size is 0 for layer 0, expected 1 to 96"));
  CHECK(says(of({.intermediate_size = {8, 8, 8}}),
             "intermediate_size has 3 entries, expected 1 or one for each of the 10 layers that are left"));
  CHECK(says(of({.skip_layers = {10}}), "layer 10 is to be skipped, expected 0 to 9"));
  CHECK(says(of({.skip_layers = {7, 7}}), "layer 7 is to be skipped twice"));
  CHECK(says(of({.skip_layers = {3}}), "layer 3 is to be skipped, but layer 5, which is kept, shares its K and V"));
  CHECK(says(of({.skip_layers = {4, 5, 6, 7, 8}}), "layer 4 is to be skipped, but layer 9, which is kept"));
  CHECK(of({.skip_layers = {4, 9}}) == "");
  CHECK(says(of({.skip_layers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}}), "all 10 layers are to be skipped"));
  CHECK(says(of(published_slice("e2b")), "layer 20 is to be skipped, expected 0 to 9"));
  CHECK(says(message([] { published_slice("e3b"); }), "'e3b' is no published slice"));
  CHECK(says(message([] {
               Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller", {.slice = {.skip_layers = {0}}});
             }),
             "storyteller: is a Gemma 4 model, expected Gemma 3n"));
  testing::TemporaryFolder temporary;
  CHECK(says(message([&] { write_slice(data / "e4b_like", slices[0], data / "e4b_like"); }),
             "e4b_like: is not empty, expected a new or an empty folder"));
  const auto cancelled = [&] {
    write_slice(data / "e4b_like", slices[0], temporary / "slice",
                [](const char*, std::uint64_t done, std::uint64_t total) { return done < total / 2; });
  };
  CHECK(says(message(cancelled), "writing was cancelled"));
  CHECK(temporary.names().empty());  // as it was
  // An empty folder that was there stays, one that somebody else fills is left alone.
  std::filesystem::create_directory(temporary / "slice");
  CHECK(says(message(cancelled), "writing was cancelled"));
  CHECK(temporary.names() == std::vector<std::string>{"slice"});
  CHECK(std::filesystem::is_empty(temporary / "slice"));
  std::string second;
  write_slice(data / "e4b_like", slices[0], temporary / "slice", [&](const char*, std::uint64_t, std::uint64_t) {
    if (second.empty()) second = message([&] { write_slice(data / "e4b_like", slices[1], temporary / "slice"); });
    return true;
  });
  CHECK(says(second, "slice: is not empty, expected a new or an empty folder"));
  CHECK_NOTHROW(Checkpoint::open(temporary / "slice"));
  CHECK_FALSE(std::filesystem::exists(temporary / "slice/ple.partial"));
}

}  // namespace ple::slice_test
