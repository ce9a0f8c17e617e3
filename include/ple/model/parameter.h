// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// Every parameter of a model, by role. parameter_roles has the names in files.
enum class Parameter : std::uint8_t {
  // once per model
  token_embedding,         ///< [vocab_size, d]
  head,                    ///< [vocab_size, d], only if not tied to the token embedding
  final_norm,              ///< [d]
  ple_table,               ///< [vocab_size_per_layer_input, layers * p]
  ple_context_projection,  ///< [layers * p, d]
  ple_context_norm,        ///< [p]
  altup_projection,        ///< [d, d], Gemma 3n: of stream `layer` + 1
  altup_unembedding,       ///< [d, d], Gemma 3n: of stream `layer` + 1
  embedding_projection,    ///< [embedding_dim, d], an encoder's
  // once per layer
  input_norm,              ///< [d]
  query,                   ///< [heads * head_dim, d]
  key,                     ///< [kv_heads * head_dim, d]
  value,                   ///< [kv_heads * head_dim, d]
  attention_output,        ///< [d, heads * head_dim]
  query_norm,              ///< [head_dim]
  key_norm,                ///< [head_dim]
  post_attention_norm,     ///< [d]
  pre_feed_forward_norm,   ///< [d]
  gate,                    ///< [intermediate_size, d]
  up,                      ///< [intermediate_size, d]
  down,                    ///< [d, intermediate_size]
  post_feed_forward_norm,  ///< [d]
  ple_gate,                ///< [p, d]
  ple_output,              ///< [d, p]
  post_ple_norm,           ///< [d]
  layer_scalar,            ///< [1]
  // once per layer, Gemma 3n; n streams
  altup_router,        ///< [n, d]
  altup_router_norm,   ///< [d]
  altup_prediction,    ///< [n * n, n]
  altup_correction,    ///< [n, n]
  altup_output_scale,  ///< [d]
  laurel_left,         ///< [laurel_rank, d]
  laurel_right,        ///< [d, laurel_rank]
  post_laurel_norm,    ///< [d]
  // once per layer, of a mixture of experts
  router,             ///< [experts, d]
  router_scale,       ///< [d]
  expert_scale,       ///< [experts]
  expert_gate_up,     ///< [experts, 2 * width, d]; or the next two
  expert_gate,        ///< [experts, width, d]
  expert_up,          ///< [experts, width, d]
  expert_down,        ///< [experts, d, width]
  pre_experts_norm,   ///< [d]
  post_experts_norm,  ///< [d]
  post_dense_norm,    ///< [d]: of the feed-forward beside the experts
};

/// What a parameter of the text model is for: finer than Google's groups.
enum class ParameterPart : std::uint8_t {
  token_embedding,
  ple_table,
  attention,
  feed_forward,
  experts,   ///< of a mixture: a token needs a few
  ple_step,  ///< adds a row's values to h: gates, projections, their norms
  streams,   ///< AltUp and LAuReL of Gemma 3n
  other,     ///< an untied head, norms, scalars
};

struct ParameterRole {
  Parameter parameter;
  ParameterPart part;
  std::string_view hf;    ///< within a layer, or within the text model if there is only one
  std::string_view gguf;  ///< within a layer, or the whole name if there is only one; empty: no file has it
};

/// In the order of Parameter. Sources: the modules of transformers' Gemma4TextModel and Gemma3nTextModel; MODEL_TENSORS
/// and TENSOR_NAMES of the Python package `gguf`. Both have the same values: llama.cpp's converter permutes nothing for
/// these families. It adds 1 to Gemma 3's norms, as HfFolder::tensor() does (Family::hf_norm_offset).
inline constexpr ParameterRole parameter_roles[] = {
    {Parameter::token_embedding, ParameterPart::token_embedding, "embed_tokens.weight", "token_embd.weight"},
    {Parameter::head, ParameterPart::other, "lm_head.weight", "output.weight"},
    {Parameter::final_norm, ParameterPart::other, "norm.weight", "output_norm.weight"},
    {Parameter::ple_table, ParameterPart::ple_table, "embed_tokens_per_layer.weight", "per_layer_token_embd.weight"},
    {Parameter::ple_context_projection, ParameterPart::ple_step, "per_layer_model_projection.weight",
     "per_layer_model_proj.weight"},
    {Parameter::ple_context_norm, ParameterPart::ple_step, "per_layer_projection_norm.weight",
     "per_layer_proj_norm.weight"},
    {Parameter::altup_projection, ParameterPart::streams, "altup_projections", "altup_proj.weight"},
    {Parameter::altup_unembedding, ParameterPart::streams, "altup_unembed_projections", "altup_unembd_proj.weight"},
    {Parameter::embedding_projection, ParameterPart::other, "embedding_projection.weight", ""},
    {Parameter::input_norm, ParameterPart::other, "input_layernorm.weight", "attn_norm.weight"},
    {Parameter::query, ParameterPart::attention, "self_attn.q_proj.weight", "attn_q.weight"},
    {Parameter::key, ParameterPart::attention, "self_attn.k_proj.weight", "attn_k.weight"},
    {Parameter::value, ParameterPart::attention, "self_attn.v_proj.weight", "attn_v.weight"},
    {Parameter::attention_output, ParameterPart::attention, "self_attn.o_proj.weight", "attn_output.weight"},
    {Parameter::query_norm, ParameterPart::attention, "self_attn.q_norm.weight", "attn_q_norm.weight"},
    {Parameter::key_norm, ParameterPart::attention, "self_attn.k_norm.weight", "attn_k_norm.weight"},
    {Parameter::post_attention_norm, ParameterPart::other, "post_attention_layernorm.weight",
     "post_attention_norm.weight"},
    {Parameter::pre_feed_forward_norm, ParameterPart::other, "pre_feedforward_layernorm.weight", "ffn_norm.weight"},
    {Parameter::gate, ParameterPart::feed_forward, "mlp.gate_proj.weight", "ffn_gate.weight"},
    {Parameter::up, ParameterPart::feed_forward, "mlp.up_proj.weight", "ffn_up.weight"},
    {Parameter::down, ParameterPart::feed_forward, "mlp.down_proj.weight", "ffn_down.weight"},
    {Parameter::post_feed_forward_norm, ParameterPart::other, "post_feedforward_layernorm.weight",
     "post_ffw_norm.weight"},
    {Parameter::ple_gate, ParameterPart::ple_step, "per_layer_input_gate.weight", "inp_gate.weight"},
    {Parameter::ple_output, ParameterPart::ple_step, "per_layer_projection.weight", "proj.weight"},
    {Parameter::post_ple_norm, ParameterPart::ple_step, "post_per_layer_input_norm.weight", "post_norm.weight"},
    {Parameter::layer_scalar, ParameterPart::other, "layer_scalar", "layer_output_scale.weight"},
    {Parameter::altup_router, ParameterPart::streams, "altup.modality_router.weight", "altup_router.weight"},
    {Parameter::altup_router_norm, ParameterPart::streams, "altup.router_norm.weight", "altup_router_norm.weight"},
    {Parameter::altup_prediction, ParameterPart::streams, "altup.prediction_coefs.weight", "altup_predict_coef.weight"},
    {Parameter::altup_correction, ParameterPart::streams, "altup.correction_coefs.weight", "altup_correct_coef.weight"},
    {Parameter::altup_output_scale, ParameterPart::streams, "altup.correct_output_scale", "altup_correct_scale.weight"},
    {Parameter::laurel_left, ParameterPart::streams, "laurel.linear_left.weight", "laurel_l.weight"},
    {Parameter::laurel_right, ParameterPart::streams, "laurel.linear_right.weight", "laurel_r.weight"},
    {Parameter::post_laurel_norm, ParameterPart::streams, "laurel.post_laurel_norm.weight", "laurel_post_norm.weight"},
    {Parameter::router, ParameterPart::other, "router.proj.weight", "ffn_gate_inp.weight"},
    {Parameter::router_scale, ParameterPart::other, "router.scale", "ffn_gate_inp.scale"},
    {Parameter::expert_scale, ParameterPart::other, "router.per_expert_scale", "ffn_down_exps.scale"},
    {Parameter::expert_gate_up, ParameterPart::experts, "experts.gate_up_proj", "ffn_gate_up_exps.weight"},
    {Parameter::expert_gate, ParameterPart::experts, "experts.gate_proj", "ffn_gate_exps.weight"},
    {Parameter::expert_up, ParameterPart::experts, "experts.up_proj", "ffn_up_exps.weight"},
    {Parameter::expert_down, ParameterPart::experts, "experts.down_proj", "ffn_down_exps.weight"},
    {Parameter::pre_experts_norm, ParameterPart::other, "pre_feedforward_layernorm_2.weight", "pre_ffw_norm_2.weight"},
    {Parameter::post_experts_norm, ParameterPart::other, "post_feedforward_layernorm_2.weight",
     "post_ffw_norm_2.weight"},
    {Parameter::post_dense_norm, ParameterPart::other, "post_feedforward_layernorm_1.weight", "post_ffw_norm_1.weight"},
};
static_assert([] {
  std::size_t row = 0;
  for (const ParameterRole& role : parameter_roles) {
    if (static_cast<std::size_t>(role.parameter) != row++) return false;
  }
  return row == static_cast<std::size_t>(Parameter::post_dense_norm) + 1;
}());

constexpr const ParameterRole& role_of(Parameter parameter) {
  return parameter_roles[static_cast<std::size_t>(parameter)];
}
constexpr ParameterPart part_of(Parameter parameter) { return role_of(parameter).part; }

/// Old names; they go with the next version.
constexpr std::string_view hf_suffix(Parameter parameter) { return role_of(parameter).hf; }
constexpr std::string_view gguf_suffix(Parameter parameter) { return role_of(parameter).gguf; }

constexpr bool is_of_layer(Parameter parameter) { return parameter >= Parameter::input_norm; }
/// Whether every stream but the first has one; `layer` + 1 is then the stream.
constexpr bool is_of_stream(Parameter parameter) {
  return parameter == Parameter::altup_projection || parameter == Parameter::altup_unembedding;
}

/// The full name in a GGUF file, which has all streams in one tensor, one after another.
inline std::string gguf_name(Parameter parameter, std::size_t layer) {
  const std::string_view name = role_of(parameter).gguf;
  return is_of_layer(parameter) ? "blk." + std::to_string(layer) + "." + std::string(name) : std::string(name);
}

/// The full name in a Hugging Face file. `prefix` comes before the text model's names; the head is outside of it.
inline std::string hf_name(std::string_view prefix, Parameter parameter, std::size_t layer) {
  if (parameter == Parameter::head) {
    for (const std::string_view text_model : {"model.language_model.", "model."}) {
      if (!prefix.ends_with(text_model)) continue;
      prefix.remove_suffix(text_model.size());
      break;
    }
  }
  std::string name(prefix);
  if (is_of_layer(parameter)) name += "layers." + std::to_string(layer) + ".";
  name += role_of(parameter).hf;
  return is_of_stream(parameter) ? name + "." + std::to_string(layer) + ".weight" : name;
}

}  // namespace ple::inline PLE_ABI
