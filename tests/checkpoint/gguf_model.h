// SPDX-License-Identifier: Apache-2.0
// A model of a Hugging Face folder, written as llama.cpp's converter would.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "../formats/gguf_writer.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/dtype/dtype.h"
#include "ple/family/gemma4/block.h"

namespace ple::testing {

/// As the table TENSOR_NAMES of the Python package `gguf` has it.
inline std::string llama_cpp_name(Parameter parameter, std::size_t layer) {
  const std::string block = "blk." + std::to_string(layer) + ".";
  switch (parameter) {
    case Parameter::token_embedding: return "token_embd.weight";
    case Parameter::head: return "output.weight";
    case Parameter::final_norm: return "output_norm.weight";
    case Parameter::ple_table: return "per_layer_token_embd.weight";
    case Parameter::ple_context_projection: return "per_layer_model_proj.weight";
    case Parameter::ple_context_norm: return "per_layer_proj_norm.weight";
    case Parameter::input_norm: return block + "attn_norm.weight";
    case Parameter::query: return block + "attn_q.weight";
    case Parameter::key: return block + "attn_k.weight";
    case Parameter::value: return block + "attn_v.weight";
    case Parameter::attention_output: return block + "attn_output.weight";
    case Parameter::query_norm: return block + "attn_q_norm.weight";
    case Parameter::key_norm: return block + "attn_k_norm.weight";
    case Parameter::post_attention_norm: return block + "post_attention_norm.weight";
    case Parameter::pre_feed_forward_norm: return block + "ffn_norm.weight";
    case Parameter::gate: return block + "ffn_gate.weight";
    case Parameter::up: return block + "ffn_up.weight";
    case Parameter::down: return block + "ffn_down.weight";
    case Parameter::post_feed_forward_norm: return block + "post_ffw_norm.weight";
    case Parameter::ple_gate: return block + "inp_gate.weight";
    case Parameter::ple_output: return block + "proj.weight";
    case Parameter::post_ple_norm: return block + "post_norm.weight";
    case Parameter::layer_scalar: return block + "layer_output_scale.weight";
    case Parameter::router: return block + "ffn_gate_inp.weight";
    case Parameter::router_scale: return block + "ffn_gate_inp.scale";
    case Parameter::expert_scale: return block + "ffn_down_exps.scale";
    case Parameter::expert_gate_up: return block + "ffn_gate_up_exps.weight";
    case Parameter::expert_down: return block + "ffn_down_exps.weight";
    case Parameter::pre_experts_norm: return block + "pre_ffw_norm_2.weight";
    case Parameter::post_experts_norm: return block + "post_ffw_norm_2.weight";
    case Parameter::post_dense_norm: return block + "post_ffw_norm_1.weight";
    default: return "";
  }
}

/// Keys and tensors, without a tokenizer (but for the padding token, if wanted). Matrices keep their type; norms are
/// f32 there always.
inline GgufWriter gguf_of(const Checkpoint& checkpoint, bool with_padding_token = true) {
  const Gemma4Config& c = checkpoint.config<Gemma4Config>();
  const std::size_t layers = c.num_layers();
  GgufWriter file;
  file.text("general.architecture", "gemma4");
  const auto count = [&](const std::string& key, std::size_t value) { file.count("gemma4." + key, value); };
  /// One number where all layers have the same, else an array, of the type that the converter gives it.
  const auto per_layer = [&](const std::string& key, auto&& number_of) {
    std::vector<std::int32_t> numbers;
    for (const LayerConfig& layer : c.layers) numbers.push_back(static_cast<std::int32_t>(number_of(layer)));
    if (numbers == std::vector<std::int32_t>(layers, numbers[0])) {
      count(key, static_cast<std::size_t>(numbers[0]));
    } else {
      file.numbers("gemma4." + key, GgufWriter::i32, numbers);
    }
  };
  count("block_count", layers);
  count("context_length", c.max_position_embeddings);
  count("embedding_length", c.hidden_size);
  count("embedding_length_per_layer_input", c.hidden_size_per_layer_input);
  count("attention.head_count", c.num_attention_heads);
  count("attention.shared_kv_layers", c.num_kv_shared_layers);
  count("attention.sliding_window", c.sliding_window);
  per_layer("attention.head_count_kv", [](const LayerConfig& l) { return l.num_key_value_heads; });
  per_layer("feed_forward_length", [](const LayerConfig& l) { return l.intermediate_size; });
  if (c.num_experts > 0) {
    count("expert_count", c.num_experts);
    count("expert_used_count", c.top_k_experts);
    count("expert_feed_forward_length", c.moe_intermediate_size);
  }
  file.number("gemma4.attention.layer_norm_rms_epsilon", static_cast<double>(c.rms_norm_eps));
  if (c.final_logit_softcapping > 0)
    file.number("gemma4.final_logit_softcapping", static_cast<double>(c.final_logit_softcapping));
  file.number("gemma4.rope.freq_base", c.full_rope.theta).number("gemma4.rope.freq_base_swa", c.sliding_rope.theta);
  std::size_t full_head = 0, sliding_head = 0;
  std::vector<std::uint8_t> pattern;
  for (const LayerConfig& layer : c.layers) {
    const bool full = layer.attention == AttentionType::full;
    pattern.push_back(full ? 0 : 1);
    (full ? full_head : sliding_head) = layer.head_dim;
  }
  if (sliding_head == 0) sliding_head = full_head;
  file.numbers("gemma4.attention.sliding_window_pattern", GgufWriter::boolean, pattern);
  for (const char* key : {"attention.key_length", "attention.value_length", "rope.dimension_count"}) {
    count(key, full_head);
    count(key + std::string("_swa"), sliding_head);
  }
  if (with_padding_token) file.count("tokenizer.ggml.padding_token_id", static_cast<std::size_t>(c.pad_token_id));

  const auto turning = static_cast<std::size_t>(c.full_rope.fraction * static_cast<double>(full_head) / 2);
  std::string factors;
  for (std::size_t i = 0; i < full_head / 2; ++i) factors += raw(i < turning ? 1.0f : 1e30f);
  file.tensor("rope_freqs.weight", {full_head / 2}, 0, factors);
  Gemma4<Any, Simd> model(c);
  model.parameters([&]<class V>(Parameter parameter, std::size_t layer, V&) {
    const Tensor tensor = checkpoint.tensor(parameter, layer);
    const std::string bytes(reinterpret_cast<const char*>(tensor.data), tensor.bytes);
    const std::uint32_t type = tensor.dtype == Dtype::f32 ? 0 : tensor.dtype == Dtype::f16 ? 1 : 30;
    if constexpr (std::is_same_v<V, std::vector<float>>) {
      Matrix<Any> row(1, tensor.shape[0]);
      Tensor as_row = tensor;
      as_row.shape = {1, tensor.shape[0]};
      row.load(as_row);
      std::vector<float> values(tensor.shape[0]);
      row.visit([&](const auto& stored) { Scalar::decode(stored.row(0), values.size(), values.data()); });
      file.tensor(llama_cpp_name(parameter, layer), tensor.shape, 0,
                  std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)));
    } else {
      file.tensor(llama_cpp_name(parameter, layer), tensor.shape, type, bytes);
    }
  });
  return file;
}

}  // namespace ple::testing
