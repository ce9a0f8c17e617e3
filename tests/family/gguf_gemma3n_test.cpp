// SPDX-License-Identifier: Apache-2.0
// A Gemma 3n model written as llama.cpp's converter writes it.
#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "../formats/gguf_writer.h"
#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/model/parameter_shapes.h"

namespace ple::gguf_gemma3n_test {

using ple::testing::GgufWriter;

namespace {

/// Ten layers, the first four sparse, the last five shared; four streams.
const std::filesystem::path folder = std::filesystem::path(PLE_TEST_DATA) / "golden_gemma3n" / "e2b_like";

/// As the converter calls it; nothing for what it stacks.
std::string llama_cpp_name(Parameter parameter, std::size_t layer) {
  static const std::map<Parameter, std::string> once = {{Parameter::token_embedding, "token_embd"},
                                                        {Parameter::final_norm, "output_norm"},
                                                        {Parameter::ple_table, "per_layer_token_embd"},
                                                        {Parameter::ple_context_projection, "per_layer_model_proj"},
                                                        {Parameter::ple_context_norm, "per_layer_proj_norm"}};
  static const std::map<Parameter, std::string> in_layer = {{Parameter::input_norm, "attn_norm"},
                                                            {Parameter::query, "attn_q"},
                                                            {Parameter::key, "attn_k"},
                                                            {Parameter::value, "attn_v"},
                                                            {Parameter::attention_output, "attn_output"},
                                                            {Parameter::query_norm, "attn_q_norm"},
                                                            {Parameter::key_norm, "attn_k_norm"},
                                                            {Parameter::post_attention_norm, "post_attention_norm"},
                                                            {Parameter::pre_feed_forward_norm, "ffn_norm"},
                                                            {Parameter::gate, "ffn_gate"},
                                                            {Parameter::up, "ffn_up"},
                                                            {Parameter::down, "ffn_down"},
                                                            {Parameter::post_feed_forward_norm, "post_ffw_norm"},
                                                            {Parameter::ple_gate, "inp_gate"},
                                                            {Parameter::ple_output, "proj"},
                                                            {Parameter::post_ple_norm, "post_norm"},
                                                            {Parameter::altup_router, "altup_router"},
                                                            {Parameter::altup_router_norm, "altup_router_norm"},
                                                            {Parameter::altup_prediction, "altup_predict_coef"},
                                                            {Parameter::altup_correction, "altup_correct_coef"},
                                                            {Parameter::altup_output_scale, "altup_correct_scale"},
                                                            {Parameter::laurel_left, "laurel_l"},
                                                            {Parameter::laurel_right, "laurel_r"},
                                                            {Parameter::post_laurel_norm, "laurel_post_norm"}};
  if (const auto found = once.find(parameter); found != once.end()) return found->second + ".weight";
  const auto found = in_layer.find(parameter);
  return found == in_layer.end() ? "" : "blk." + std::to_string(layer) + "." + found->second + ".weight";
}

/// Calls f(parameter, layer) for all that a model of this configuration loads.
template <class F>
void for_each_parameter(const Gemma3nConfig& config, F&& f) {
  for (const ParameterShape& shape : parameter_shapes(config)) {
    if (shape.used) f(shape.parameter, shape.layer);
  }
}

std::string bytes_of_tensor(const Tensor& tensor) { return {reinterpret_cast<const char*>(tensor.data), tensor.bytes}; }

/// All of the folder's model, which is f32.
GgufWriter gguf_of(const Checkpoint& checkpoint) {
  const auto& c = checkpoint.config<Gemma3nConfig>();
  GgufWriter file;
  file.text("general.architecture", "gemma3n");
  const auto count = [&](const std::string& key, std::size_t value) { file.count("gemma3n." + key, value); };
  count("block_count", c.num_layers());
  count("context_length", c.max_position_embeddings);
  count("embedding_length", c.hidden_size);
  count("embedding_length_per_layer_input", c.hidden_size_per_layer_input);
  count("attention.head_count", c.num_attention_heads);
  count("attention.head_count_kv", c.num_key_value_heads);
  count("attention.key_length", c.head_dim);
  count("attention.value_length", c.head_dim);
  count("attention.shared_kv_layers", c.num_kv_shared_layers);
  count("attention.sliding_window", c.sliding_window);
  count("altup.active_idx", c.altup_active_idx);
  count("altup.num_inputs", c.altup_num_inputs);
  file.number("gemma3n.attention.layer_norm_rms_epsilon", static_cast<double>(c.rms_norm_eps));
  file.number("gemma3n.final_logit_softcapping", static_cast<double>(c.final_logit_softcapping));
  file.number("gemma3n.rope.freq_base", c.full_rope.theta);
  std::vector<std::uint8_t> sliding;
  std::vector<std::int32_t> widths;
  std::vector<float> scales;
  for (const Gemma3nLayerConfig& layer : c.layers) {
    sliding.push_back(layer.attention == AttentionType::sliding ? 1 : 0);
    widths.push_back(static_cast<std::int32_t>(layer.intermediate_size));
    // The normal quantiles of 0.9 and 0, as torch gives them.
    REQUIRE((layer.activation_sparsity == 0 || layer.activation_sparsity == 0.9f));
    scales.push_back(layer.activation_sparsity == 0 ? -std::numeric_limits<float>::infinity() : 1.2815515f);
  }
  file.numbers("gemma3n.attention.sliding_window_pattern", GgufWriter::boolean, sliding);
  file.numbers("gemma3n.feed_forward_length", GgufWriter::i32, widths);
  file.numbers("gemma3n.activation_sparsity_scale", GgufWriter::float32, scales);
  std::string stacks[2];
  for_each_parameter(c, [&](Parameter parameter, std::size_t layer) {
    const Tensor tensor = checkpoint.tensor(parameter, layer);
    REQUIRE(tensor.dtype == Dtype::f32);
    if (parameter == Parameter::altup_projection || parameter == Parameter::altup_unembedding) {
      stacks[parameter == Parameter::altup_unembedding] += bytes_of_tensor(tensor);
    } else {
      file.tensor(llama_cpp_name(parameter, layer), tensor.shape, 0, bytes_of_tensor(tensor));
    }
  });
  const std::vector<std::uint64_t> shape{c.altup_num_inputs - 1, c.hidden_size, c.hidden_size};
  file.tensor("altup_proj.weight", shape, 0, stacks[0]).tensor("altup_unembd_proj.weight", shape, 0, stacks[1]);
  return file;
}

}  // namespace

TEST_CASE("Gemma 3n: a GGUF file means what the folder means that it was made from") {
  const auto checkpoint = Checkpoint::open(folder);
  ple::testing::TemporaryFolder temporary;
  gguf_of(checkpoint).write(temporary / "model.gguf");
  const auto file = Checkpoint::open(temporary / "model.gguf");
  const auto &a = checkpoint.config<Gemma3nConfig>(), &b = file.config<Gemma3nConfig>();
  CHECK(b.vocab_size == a.vocab_size);
  CHECK(b.hidden_size == a.hidden_size);
  CHECK(b.num_attention_heads == a.num_attention_heads);
  CHECK(b.num_key_value_heads == a.num_key_value_heads);
  CHECK(b.head_dim == a.head_dim);
  CHECK(b.num_kv_shared_layers == a.num_kv_shared_layers);
  CHECK(b.sliding_window == a.sliding_window);
  CHECK(b.max_position_embeddings == a.max_position_embeddings);
  CHECK(b.vocab_size_per_layer_input == a.vocab_size_per_layer_input);
  CHECK(b.hidden_size_per_layer_input == a.hidden_size_per_layer_input);
  CHECK(b.altup_num_inputs == a.altup_num_inputs);
  CHECK(b.altup_active_idx == a.altup_active_idx);
  CHECK(b.altup_correct_scale == a.altup_correct_scale);
  CHECK(b.laurel_rank == a.laurel_rank);
  CHECK(b.tie_word_embeddings == a.tie_word_embeddings);
  CHECK(b.rms_norm_eps == a.rms_norm_eps);
  CHECK(b.final_logit_softcapping == a.final_logit_softcapping);
  CHECK(b.sliding_rope.theta == a.sliding_rope.theta);
  CHECK(b.full_rope.theta == a.full_rope.theta);
  REQUIRE(b.num_layers() == a.num_layers());
  for (std::size_t l = 0; l < a.num_layers(); ++l) {
    CHECK(b.layers[l].attention == a.layers[l].attention);
    CHECK(b.layers[l].intermediate_size == a.layers[l].intermediate_size);
    CHECK(b.layers[l].activation_sparsity == doctest::Approx(a.layers[l].activation_sparsity).epsilon(1e-6));
    CHECK((b.layers[l].activation_sparsity == 0) == (l >= 4));
  }
  std::size_t different = 0;
  for_each_parameter(a, [&](Parameter parameter, std::size_t layer) {
    const Tensor x = checkpoint.tensor(parameter, layer), y = file.tensor(parameter, layer);
    different += x.shape != y.shape || x.dtype != y.dtype || bytes_of_tensor(x) != bytes_of_tensor(y);
  });
  CHECK(different == 0);
}

TEST_CASE("Gemma 3n: what is wrong with a GGUF file") {
  const auto checkpoint = Checkpoint::open(folder);
  ple::testing::TemporaryFolder temporary;
  const auto message = [&](const std::function<void(GgufWriter&)>& change) -> std::string {
    GgufWriter file = gguf_of(checkpoint);
    change(file);
    file.write(temporary / "wrong.gguf");
    try {
      const auto wrong = Checkpoint::open(temporary / "wrong.gguf");
      for_each_parameter(wrong.config<Gemma3nConfig>(),
                         [&](Parameter parameter, std::size_t layer) { wrong.tensor(parameter, layer); });
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const auto says = [&](const std::string& part, const std::function<void(GgufWriter&)>& change) {
    const std::string found = message(change);
    CAPTURE(found);
    CAPTURE(part);
    CHECK(found.find(part) != std::string::npos);
    CHECK(found.find("wrong.gguf") != std::string::npos);
  };
  says("gemma3n.altup.num_inputs is missing", [](auto& f) { f.remove("gemma3n.altup.num_inputs"); });
  says("expected 3 dimensions, the first of at least 4",
       [](auto& f) { f.remove("gemma3n.altup.num_inputs").count("gemma3n.altup.num_inputs", 5); });
  says("activation_sparsity_scale has 1 entries, expected one for each of the 10 layers", [](auto& f) {
    f.remove("gemma3n.activation_sparsity_scale")
        .numbers("gemma3n.activation_sparsity_scale", GgufWriter::float32, std::vector<float>{1});
  });
  says("layer 0: activation_sparsity_pattern is 1", [](auto& f) {
    f.remove("gemma3n.activation_sparsity_scale")
        .numbers("gemma3n.activation_sparsity_scale", GgufWriter::float32,
                 std::vector<float>(10, std::numeric_limits<float>::infinity()));
  });
  says("gemma3n.expert_count is 8", [](auto& f) { f.count("gemma3n.expert_count", 8); });
}

}  // namespace ple::gguf_gemma3n_test
