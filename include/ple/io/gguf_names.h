// SPDX-License-Identifier: Apache-2.0
// What llama.cpp's files call each parameter. The values are those of Hugging Face's files: for architecture gemma4 its
// converter adds nothing to norms and permutes nothing; v_norm has no weight there either.
// Source: MODEL_TENSORS and TENSOR_NAMES of the Python package `gguf`.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

/// The name inside a layer, or the whole name for what exists once.
inline std::string_view gguf_suffix(Parameter parameter) {
  switch (parameter) {
    case Parameter::token_embedding: return "token_embd.weight";
    case Parameter::head: return "output.weight";
    case Parameter::final_norm: return "output_norm.weight";
    case Parameter::ple_table: return "per_layer_token_embd.weight";
    case Parameter::ple_context_projection: return "per_layer_model_proj.weight";
    case Parameter::ple_context_norm: return "per_layer_proj_norm.weight";
    case Parameter::altup_projection: return "altup_proj.weight";  // of all streams, one behind the other
    case Parameter::altup_unembedding: return "altup_unembd_proj.weight";
    case Parameter::input_norm: return "attn_norm.weight";
    case Parameter::query: return "attn_q.weight";
    case Parameter::key: return "attn_k.weight";
    case Parameter::value: return "attn_v.weight";
    case Parameter::attention_output: return "attn_output.weight";
    case Parameter::query_norm: return "attn_q_norm.weight";
    case Parameter::key_norm: return "attn_k_norm.weight";
    case Parameter::post_attention_norm: return "post_attention_norm.weight";
    case Parameter::pre_feed_forward_norm: return "ffn_norm.weight";
    case Parameter::gate: return "ffn_gate.weight";
    case Parameter::up: return "ffn_up.weight";
    case Parameter::down: return "ffn_down.weight";
    case Parameter::post_feed_forward_norm: return "post_ffw_norm.weight";
    case Parameter::ple_gate: return "inp_gate.weight";
    case Parameter::ple_output: return "proj.weight";
    case Parameter::post_ple_norm: return "post_norm.weight";
    case Parameter::layer_scalar: return "layer_output_scale.weight";
    case Parameter::altup_router: return "altup_router.weight";
    case Parameter::altup_router_norm: return "altup_router_norm.weight";
    case Parameter::altup_prediction: return "altup_predict_coef.weight";
    case Parameter::altup_correction: return "altup_correct_coef.weight";
    case Parameter::altup_output_scale: return "altup_correct_scale.weight";
    case Parameter::laurel_left: return "laurel_l.weight";
    case Parameter::laurel_right: return "laurel_r.weight";
    case Parameter::post_laurel_norm: return "laurel_post_norm.weight";
  }
  return "";
}

/// Not a parameter: what the frequencies of the full layers' pairs are divided by, [head_dim / 2].
inline constexpr std::string_view gguf_rope_factors = "rope_freqs.weight";

/// The full name.
inline std::string gguf_name(Parameter parameter, std::size_t layer) {
  std::string name;
  if (parameter >= Parameter::input_norm) name = "blk." + std::to_string(layer) + ".";
  return name += gguf_suffix(parameter);
}

}  // namespace ple::inline PLE_ABI
