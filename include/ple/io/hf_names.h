// SPDX-License-Identifier: Apache-2.0
// What Hugging Face's files call each parameter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

/// The name inside a layer, or inside the text model for what exists once; of AltUp's projections, that of the list.
inline std::string_view hf_suffix(Parameter parameter) {
  switch (parameter) {
    case Parameter::token_embedding: return "embed_tokens.weight";
    case Parameter::head: return "lm_head.weight";
    case Parameter::final_norm: return "norm.weight";
    case Parameter::ple_table: return "embed_tokens_per_layer.weight";
    case Parameter::ple_context_projection: return "per_layer_model_projection.weight";
    case Parameter::ple_context_norm: return "per_layer_projection_norm.weight";
    case Parameter::input_norm: return "input_layernorm.weight";
    case Parameter::query: return "self_attn.q_proj.weight";
    case Parameter::key: return "self_attn.k_proj.weight";
    case Parameter::value: return "self_attn.v_proj.weight";
    case Parameter::attention_output: return "self_attn.o_proj.weight";
    case Parameter::query_norm: return "self_attn.q_norm.weight";
    case Parameter::key_norm: return "self_attn.k_norm.weight";
    case Parameter::post_attention_norm: return "post_attention_layernorm.weight";
    case Parameter::pre_feed_forward_norm: return "pre_feedforward_layernorm.weight";
    case Parameter::gate: return "mlp.gate_proj.weight";
    case Parameter::up: return "mlp.up_proj.weight";
    case Parameter::down: return "mlp.down_proj.weight";
    case Parameter::post_feed_forward_norm: return "post_feedforward_layernorm.weight";
    case Parameter::ple_gate: return "per_layer_input_gate.weight";
    case Parameter::ple_output: return "per_layer_projection.weight";
    case Parameter::post_ple_norm: return "post_per_layer_input_norm.weight";
    case Parameter::layer_scalar: return "layer_scalar";
    case Parameter::altup_projection: return "altup_projections";
    case Parameter::altup_unembedding: return "altup_unembed_projections";
    case Parameter::altup_router: return "altup.modality_router.weight";
    case Parameter::altup_router_norm: return "altup.router_norm.weight";
    case Parameter::altup_prediction: return "altup.prediction_coefs.weight";
    case Parameter::altup_correction: return "altup.correction_coefs.weight";
    case Parameter::altup_output_scale: return "altup.correct_output_scale";
    case Parameter::laurel_left: return "laurel.linear_left.weight";
    case Parameter::laurel_right: return "laurel.linear_right.weight";
    case Parameter::post_laurel_norm: return "laurel.post_laurel_norm.weight";
  }
  return "";
}

/// The full name, in a file where `prefix` stands before the text model's names. The head stands outside the text
/// model.
inline std::string hf_name(std::string_view prefix, Parameter parameter, std::size_t layer) {
  if (parameter == Parameter::head) {
    for (const std::string_view text_model : {"model.language_model.", "model."}) {
      if (!prefix.ends_with(text_model)) continue;
      prefix.remove_suffix(text_model.size());
      break;
    }
    return std::string(prefix).append(hf_suffix(parameter));
  }
  std::string name(prefix);
  if (parameter == Parameter::altup_projection || parameter == Parameter::altup_unembedding) {
    return name.append(hf_suffix(parameter)) + "." + std::to_string(layer) + ".weight";
  }
  if (is_of_layer(parameter)) name += "layers." + std::to_string(layer) + ".";
  return name += hf_suffix(parameter);
}

/// Which of a multimodal file's tensors belong to vision or audio: a tower and its projection into the text model's
/// width. Source: the modules of transformers' Gemma4Model and Gemma3nModel.
enum class HfTower : std::uint8_t { none, vision, audio };

inline HfTower hf_tower(std::string_view name) {
  const auto has_module = [&](const auto&... modules) {
    return ((name.starts_with(modules) || name.find("." + std::string(modules)) != name.npos) || ...);
  };
  if (has_module("vision_tower.", "embed_vision.", "multi_modal_projector.")) return HfTower::vision;
  if (has_module("audio_tower.", "embed_audio.")) return HfTower::audio;
  return HfTower::none;
}

}  // namespace ple::inline PLE_ABI
