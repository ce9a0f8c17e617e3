// SPDX-License-Identifier: Apache-2.0
#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "../checkpoint/folder.h"
#include "ple/convert/inspect.h"
#include "ple/family/gemma3n/hf.h"

namespace ple::gemma3n_config_test {

using ple::testing::Folder;
using ple::testing::ordered_json;
using ple::testing::safetensors;
using ple::testing::write_file;

namespace {

Gemma3nConfig parse(const ordered_json& json) {
  return gemma3n_config(parse_json(json.dump(), "config.json"), "config.json");
}

/// Three layers, the last of which shares the second's K and V.
ordered_json tiny() {
  return {{"model_type", "gemma3n_text"},
          {"vocab_size", 20},
          {"vocab_size_per_layer_input", 18},
          {"hidden_size", 8},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"head_dim", 4},
          {"intermediate_size", {10, 12, 14}},
          {"hidden_size_per_layer_input", 3},
          {"num_kv_shared_layers", 1},
          {"laurel_rank", 2},
          {"activation_sparsity_pattern", {0.5, 0, 0}},
          {"layer_types", {"sliding_attention", "full_attention", "full_attention"}}};
}

template <class F>
void check_error(F&& f, ErrorCode code, const std::vector<std::string>& parts) {
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

void wrong(const std::string& field, const ordered_json& value, ErrorCode code, std::vector<std::string> parts) {
  CAPTURE(field);
  ordered_json json = tiny();
  json[field] = value;
  parts.push_back("config.json");
  check_error([&] { parse(json); }, code, parts);
}

bool equal(const Gemma3nConfig& a, const Gemma3nConfig& b) {
  if (a.num_layers() != b.num_layers()) return false;
  for (std::size_t l = 0; l < a.num_layers(); ++l) {
    if (a.layers[l].attention != b.layers[l].attention ||
        a.layers[l].intermediate_size != b.layers[l].intermediate_size ||
        a.layers[l].activation_sparsity != b.layers[l].activation_sparsity)
      return false;
  }
  return a.vocab_size == b.vocab_size && a.hidden_size == b.hidden_size && a.head_dim == b.head_dim &&
         a.num_attention_heads == b.num_attention_heads && a.num_key_value_heads == b.num_key_value_heads &&
         a.num_kv_shared_layers == b.num_kv_shared_layers && a.sliding_window == b.sliding_window &&
         a.vocab_size_per_layer_input == b.vocab_size_per_layer_input &&
         a.hidden_size_per_layer_input == b.hidden_size_per_layer_input &&
         a.max_position_embeddings == b.max_position_embeddings && a.altup_num_inputs == b.altup_num_inputs &&
         a.altup_active_idx == b.altup_active_idx && a.altup_coef_clip == b.altup_coef_clip &&
         a.altup_correct_scale == b.altup_correct_scale && a.laurel_rank == b.laurel_rank &&
         a.tie_word_embeddings == b.tie_word_embeddings && a.rms_norm_eps == b.rms_norm_eps &&
         a.final_logit_softcapping == b.final_logit_softcapping && a.full_rope.theta == b.full_rope.theta &&
         a.sliding_rope.theta == b.sliding_rope.theta;
}

}  // namespace

TEST_CASE("Gemma 3n: what a file leaves out is E4B; E2B is said in three fields") {
  CHECK(equal(parse({{"model_type", "gemma3n_text"}}), gemma3n_e4b()));
  CHECK(equal(parse({{"model_type", "gemma3n"},
                     {"text_config",
                      {{"model_type", "gemma3n_text"},
                       {"num_hidden_layers", 30},
                       {"num_kv_shared_layers", 10},
                       {"intermediate_size", std::vector<int>(30, 8192)}}}}),
              gemma3n_e2b()));
  for (const Gemma3nConfig& config : {gemma3n_e2b(), gemma3n_e4b()}) validate(config, "published");
}

TEST_CASE("Gemma 3n: every field is read") {
  ordered_json json = tiny();
  json.update({{"sliding_window", 7},
               {"max_position_embeddings", 99},
               {"altup_num_inputs", 3},
               {"altup_active_idx", 1},
               {"altup_coef_clip", 60.0},
               {"altup_correct_scale", false},
               {"rms_norm_eps", 1e-5},
               {"final_logit_softcapping", 20.0},
               {"tie_word_embeddings", false},
               {"rope_theta", 5000.0},
               {"rope_local_base_freq", 300.0},
               {"rope_scaling", nullptr}});
  const Gemma3nConfig config = parse(json);
  CHECK(config.vocab_size == 20);
  CHECK(config.vocab_size_per_layer_input == 18);
  CHECK(config.hidden_size == 8);
  CHECK(config.hidden_size_per_layer_input == 3);
  CHECK(config.num_attention_heads == 2);
  CHECK(config.num_key_value_heads == 1);
  CHECK(config.head_dim == 4);
  CHECK(config.laurel_rank == 2);
  CHECK(config.sliding_window == 7);
  CHECK(config.max_position_embeddings == 99);
  CHECK(config.altup_num_inputs == 3);
  CHECK(config.altup_active_idx == 1);
  CHECK(config.altup_coef_clip == 60);
  CHECK(!config.altup_correct_scale);
  CHECK(config.rms_norm_eps == 1e-5f);
  CHECK(config.final_logit_softcapping == 20);
  CHECK(!config.tie_word_embeddings);
  CHECK(config.full_rope.theta == 5000);
  CHECK(config.sliding_rope.theta == 300);
  REQUIRE(config.num_layers() == 3);
  CHECK(config.layers[1].intermediate_size == 12);
  CHECK(config.layers[0].activation_sparsity == 0.5f);
  CHECK(config.layers[0].attention == AttentionType::sliding);
  CHECK(config.kv_layer(1) == 1);
  CHECK(config.kv_layer(2) == 1);

  json["rope_parameters"] = {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 7000.0}}}};
  CHECK(parse(json).full_rope.theta == 7000);
  CHECK(parse(json).sliding_rope.theta == 10000);  // the older fields do not count where the newer one is
}

TEST_CASE("Gemma 3n: a field that is wrong has its error") {
  const auto config = ErrorCode::config, not_supported = ErrorCode::not_supported;
  wrong("model_type", "llama", not_supported, {"model_type", "'llama'", "gemma3n"});
  wrong("hidden_size", "8", config, {"hidden_size", "\"8\""});
  wrong("hidden_size", 0, config, {"hidden_size", "0", "1"});
  wrong("hidden_size_per_layer_input", 0, config, {"hidden_size_per_layer_input", "0", "1"});
  wrong("num_hidden_layers", 0, config, {"num_hidden_layers", "0"});
  wrong("num_hidden_layers", 4, config, {"layer_types", "3", "4"});
  wrong("num_kv_shared_layers", 3, config, {"num_kv_shared_layers", "3"});
  wrong("num_kv_shared_layers", 2, config, {"layer 1", "shares", "1 layers before"});
  wrong("num_key_value_heads", 3, config, {"num_key_value_heads", "3", "2"});
  wrong("head_dim", 5, config, {"head_dim", "5", "even"});
  wrong("intermediate_size", {10, 12}, config, {"intermediate_size", "2", "3"});
  wrong("intermediate_size", {10, -12, 3}, config, {"intermediate_size", "-12"});
  wrong("intermediate_size", 0, config, {"intermediate_size", "0"});
  wrong("intermediate_size", 1.5, config, {"intermediate_size", "1.5"});
  wrong("activation_sparsity_pattern", {0.5, 0}, config, {"activation_sparsity_pattern", "2", "3"});
  wrong("activation_sparsity_pattern", {0.5, 1.0, 0}, config, {"layer 1", "activation_sparsity_pattern", "1"});
  wrong("activation_sparsity_pattern", {0.5, "x", 0}, config, {"activation_sparsity_pattern", "\"x\""});
  wrong("layer_types", {"full_attention", "other", "full_attention"}, config, {"layer_types", "\"other\""});
  wrong("layer_types", {"full_attention", 3, "full_attention"}, config, {"layer_types", "3"});
  wrong("altup_num_inputs", 0, config, {"altup_num_inputs", "0"});
  wrong("altup_active_idx", 4, config, {"altup_active_idx", "4", "3"});
  wrong("laurel_rank", 0, config, {"laurel_rank", "0"});
  wrong("rms_norm_eps", -1.0, config, {"rms_norm_eps", "-1"});
  wrong("rope_theta", 0.0, config, {"rope_theta", "0"});
  wrong("rope_scaling", {{"rope_type", "yarn"}}, not_supported, {"rope_scaling"});
  wrong("rope_parameters", {{"full_attention", {{"rope_type", "yarn"}}}}, not_supported, {"rope_type", "'yarn'"});
  wrong("attention_bias", true, not_supported, {"attention_bias"});
  wrong("hidden_activation", "silu", not_supported, {"hidden_activation", "silu"});
}

TEST_CASE("Gemma 3n: a folder is inspected by its headers; K and V of shared layers may be missing") {
  Folder folder;
  folder.config = tiny();
  folder.header = ordered_json::object();
  folder.data.clear();
  const auto add = [&](const std::string& name, const std::vector<std::uint64_t>& shape) {
    std::uint64_t n = 2;
    for (const std::uint64_t size : shape) n *= size;
    const std::size_t begin = folder.data.size();
    folder.data.append(n, '\0');
    folder.header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {begin, begin + n}}};
  };
  const auto shapes = parameter_shapes(parse(tiny()));
  std::uint64_t all = 0, unused = 0;
  for (const ParameterShape& of : shapes) {
    all += of.count();
    if (!of.used) unused += of.count();
    if (of.used) add(hf_name("model.language_model.", of.parameter, of.layer), of.shape);
  }
  add("model.vision_tower.timm_model.conv_stem.conv.weight", {3, 5});
  add("model.embed_vision.embedding.weight", {2, 2});
  add("model.audio_tower.conformer.0.norm.weight", {7});
  add("model.other.weight", {3});
  folder.write();
  Inspection found = inspect(folder.path().string());
  CHECK(unused > 0);
  CHECK(found.groups.text() + found.groups.ple == all - unused);
  CHECK(found.groups.vision == 19);
  CHECK(found.groups.audio == 7);
  CHECK(found.groups.total() == all - unused + 26);
  REQUIRE(found.rest.size() == 1);
  CHECK(found.rest[0].name == "model.other.weight");

  for (const ParameterShape& of : shapes) {
    if (!of.used) add(hf_name("model.language_model.", of.parameter, of.layer), of.shape);
  }
  folder.write();
  found = inspect(folder.path().string());
  CHECK(found.groups.text() + found.groups.ple == all);

  const std::string router = "model.language_model.layers.1.altup.modality_router.weight";
  folder.header[router]["shape"] = {8, 4};
  folder.write();
  check_error([&] { inspect(folder.path().string()); }, ErrorCode::shape, {router, "[8, 4]", "[4, 8]"});
  ordered_json entry = folder.header[router];
  folder.header.erase(router);
  folder.header["another"] = entry;
  folder.write();
  check_error([&] { inspect(folder.path().string()); }, ErrorCode::missing, {router});

  std::filesystem::remove(folder.model());
  found = inspect(folder.path().string());
  CHECK(!found.has_files);
  CHECK(found.groups.total() == all);
  std::filesystem::remove(folder.path() / "config.json");
  check_error([&] { inspect(folder.path().string()); }, ErrorCode::missing, {"config.json"});
  check_error([&] { inspect("no-such-model"); }, ErrorCode::file, {"no-such-model", "gemma4-e2b"});
}

TEST_CASE("AltUp's projections are named by their stream, all else of Gemma 3n by its layer") {
  CHECK(hf_name("model.", Parameter::altup_projection, 2) == "model.altup_projections.2.weight");
  CHECK(hf_name("model.", Parameter::altup_unembedding, 0) == "model.altup_unembed_projections.0.weight");
  CHECK(hf_name("model.", Parameter::laurel_left, 7) == "model.layers.7.laurel.linear_left.weight");
  CHECK(hf_name("model.", Parameter::altup_output_scale, 7) == "model.layers.7.altup.correct_output_scale");
}

}  // namespace ple::gemma3n_config_test
