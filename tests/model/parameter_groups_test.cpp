// SPDX-License-Identifier: Apache-2.0
// Exact counts are those of transformers' modules (torch's meta device, release 5.23); published numbers are Google's.
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <string>

#include "ple/checkpoint/checkpoint.h"
#include "ple/checkpoint/load_model.h"
#include "ple/convert/inspect.h"
#include "ple/model/kv_caches.h"
#include "ple/model/parameter_groups.h"
#include "random_model.h"

namespace ple::parameter_groups_test {

namespace {

ParameterGroups groups_of(const auto& config) { return parameter_groups(parameter_shapes(config)); }

/// As a published number with two decimals: in units of 10 million.
std::uint64_t in_10_million(std::uint64_t count) { return (count + 5'000'000) / 10'000'000; }

}  // namespace

TEST_CASE("Gemma 4: the reference's counts, and the technical report's effective parameters") {
  const ParameterGroups e2b = groups_of(gemma4_e2b()), e4b = groups_of(gemma4_e4b()), dense = groups_of(gemma4_31b());
  // The reference has layer_scalar, one a layer, as a buffer: named_parameters() is that much less.
  CHECK(e2b.total() == 4'628'569'344 + 35);
  CHECK(e2b.token_embedding == 402'653'184);
  CHECK(e2b.ple == 2'348'810'240);
  CHECK(e2b.other_text == 1'877'105'920 + 35);
  CHECK(e2b.effective_documentation() == e2b.other_text);
  CHECK(e4b.total() == 7'463'013'376 + 42);
  CHECK(e4b.ple == 2'818'572'288);
  CHECK(dense.total() == 30'697'345'280 + 60);
  CHECK(dense.ple == 0);

  CHECK(e2b.einsums == 1'869'742'080);
  CHECK(e4b.einsums == 3'936'092'160);
  CHECK(in_10_million(e2b.einsums) == 187);             // 1,870 M
  CHECK(in_10_million(e4b.einsums) == 394);             // 3,940 M
  CHECK(in_10_million(e2b.effective_report()) == 227);  // 2.27 B
  CHECK(in_10_million(e4b.effective_report()) == 461);  // 4.61 B
  CHECK(in_10_million(e2b.ple) == 235);                 // 2.35 B
  CHECK(in_10_million(e4b.ple) == 282);                 // 2.82 B
  CHECK(in_10_million(e2b.embeddings()) == 275);        // 2.8 B on the model's page
  // All of the text but its tables is neither of the report's numbers.
  CHECK(in_10_million(e2b.other_text) == 188);
  CHECK(in_10_million(e4b.other_text) == 397);
}

TEST_CASE("Gemma 4 12B and 26B-A4B: the reference's counts, and what one token needs of the experts") {
  const ParameterGroups dense = groups_of(gemma4_12b()), mixture = groups_of(gemma4_26b_a4b());
  CHECK(dense.total() == 11'907'350'272 + 48);
  CHECK(dense.experts == 0);
  CHECK(dense.active() == dense.total());
  CHECK(mixture.total() == 25'233'141'760 + 30);
  CHECK(mixture.token_embedding == 738'197'504);
  CHECK(mixture.experts == std::uint64_t{30} * 128 * 3 * 704 * 2816);
  CHECK(mixture.experts_per_token == mixture.experts / 128 * 8);
  CHECK(mixture.active() == mixture.total() - mixture.experts / 128 * 120);
  CHECK(mixture.active() / 100'000'000 == 38);  // 'A4B'
}

TEST_CASE("Gemma 3n: the reference's counts and the K and V that only the files have make the published numbers") {
  const ParameterGroups e2b = groups_of(gemma3n_e2b()), e4b = groups_of(gemma3n_e4b());
  const std::uint64_t kv_of_a_layer = 2 * 512 * 2048 + 256;  // K, V and K's norm
  CHECK(e2b.other_text == 1'884'521'568 + 10 * kv_of_a_layer);
  CHECK(e4b.other_text == 3'949'030'128 + 15 * kv_of_a_layer);
  CHECK(e2b.token_embedding == 537'395'200);
  CHECK(e2b.ple == 2'013'265'920);
  CHECK(e4b.ple == 2'348'810'240);
  CHECK(in_10_million(e2b.effective_documentation()) == 191);  // 1.91 B
  CHECK(in_10_million(e4b.effective_documentation()) == 398);  // 3.98 B
  std::uint64_t unused = 0;
  for (const ParameterShape& shape : parameter_shapes(gemma3n_e2b())) unused += shape.used ? 0 : shape.count();
  CHECK(unused == 10 * kv_of_a_layer);
}

TEST_CASE("the list of a configuration's parameters is the decoder's own walk") {
  Gemma4Config untied = gemma4_e2b();
  untied.tie_word_embeddings = false;
  Gemma4Config apart = gemma4_26b_a4b();
  apart.fused_expert_gate_up = false;
  for (const Gemma4Config& config :
       {gemma4_e2b(), gemma4_e4b(), gemma4_12b(), gemma4_26b_a4b(), gemma4_31b(), untied, apart}) {
    Gemma4<Any, Scalar> model(config);
    const auto list = parameter_shapes(config), walk = parameter_shapes_of(model);
    REQUIRE(list.size() == walk.size());
    for (std::size_t i = 0; i < list.size(); ++i) {
      CAPTURE(i);
      CHECK(list[i].parameter == walk[i].parameter);
      CHECK(list[i].layer == walk[i].layer);
      CHECK(list[i].shape == walk[i].shape);
    }
  }
}

TEST_CASE("vision and audio are part of the total where they are known") {
  ParameterGroups groups{.token_embedding = 1, .other_text = 2, .einsums = 2, .ple = 4};
  CHECK(groups.total() == 7);
  CHECK(groups.text() == 3);
  CHECK(groups.embeddings() == 5);
  groups.vision = 8;
  groups.audio = 16;
  CHECK(groups.total() == 31);
}

TEST_CASE("shapes from a configuration are those of the files: the shipped model, and all that the reference saved") {
  std::vector<std::filesystem::path> folders{std::filesystem::path(PLE_MODEL_DIR) / "storyteller"};
  for (const char* family : {"golden", "golden_gemma4_large", "golden_gemma3n", "golden_gemma3"}) {
    for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(PLE_TEST_DATA) / family)) {
      if (entry.is_directory()) folders.push_back(entry.path());
    }
  }
  CHECK(folders.size() > 30);
  for (const auto& folder : folders) {
    CAPTURE(folder.string());
    const Inspection found = inspect(folder.string());  // refuses another shape than the configuration gives
    REQUIRE(found.has_files);
    const bool gemma3n = std::holds_alternative<Gemma3nConfig>(found.config),
               gemma3 = std::holds_alternative<Gemma3Config>(found.config);
    std::uint64_t walked = 0, stored = 0, unused = 0;
    const auto checkpoint = Checkpoint::open(folder);
    std::visit(
        [&]<class Config>(const Config&) {
          auto model = Family<Config>::template Model<Any, testing::ChosenBackend>::load(checkpoint);
          for (const ParameterShape& shape : parameter_shapes_of(model)) walked += shape.count();
        },
        found.config);
    for (const StoredParameter& parameter : found.text) {
      stored += parameter.bytes;
      if (!parameter.of.used) unused += parameter.of.count();
    }
    walked += unused;
    CHECK(found.groups.text() + found.groups.ple == walked);
    CHECK(found.rest.empty());
    CHECK((unused > 0) == (gemma3n && (folder.filename() == "published_style" || folder.filename() == "two_streams")));
    const std::string name = folder.filename().string();
    const bool sees = gemma3n  ? name == "published_style"
                      : gemma3 ? name == "published_style" || name == "4b_like"
                               : name == "nested" || name == "head_beside_tied_text" || name == "12b_like_nested";
    CHECK(found.groups.vision.has_value() == sees);
    CHECK(found.groups.audio.has_value() == ((gemma3n && name == "published_style") || name == "12b_like_nested"));
    // All of one type, so bytes and counts agree; the files' other bytes are headers and vision.
    const std::uint64_t width = found.text[0].dtype == "F32" ? 4 : 2;
    CHECK(stored == walked * width);
  }
}

TEST_CASE("the caches' sizes are those of a state") {
  const auto model = ple::testing::random_model<Gemma4<f32, Simd>>(ple::testing::small_config());
  for (const StateOptions& options :
       {StateOptions{100, 7, 1}, StateOptions{6, 4, 1, Dtype::bf16}, StateOptions{256, 1, 2, Dtype::f16}}) {
    std::uint64_t bytes = 0;
    for (std::size_t l = 0; l < model.config.num_layers(); ++l) bytes += kv_cache_bytes(model.config, l, options);
    CHECK(bytes == model.make_state(options)->kv_cache_bytes());
  }
  // Of Gemma 3n: a full layer has a slot for every position, a sliding one a window and a chunk less one.
  const Gemma3nConfig config = gemma3n_e2b();
  CHECK(kv_cache_bytes(config, 4, {4096, 128, 1}) == std::uint64_t{2} * 2 * 256 * 4096 * 4);
  CHECK(kv_cache_bytes(config, 4, {4096, 128, 1, Dtype::q8_0}) == std::uint64_t{2} * 2 * (256 / 32 * 34) * 4096);
  CHECK(kv_cache_bytes(config, 3, {4096, 128, 1}) == std::uint64_t{2} * 2 * 256 * (512 + 127) * 4);
  CHECK(kv_cache_bytes(config, 20, {4096, 128, 1}) == 0);  // the first that shares
}

}  // namespace ple::parameter_groups_test
