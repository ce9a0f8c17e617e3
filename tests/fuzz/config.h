// SPDX-License-Identifier: Apache-2.0
// config.json, generation_config.json and tokenizer_config.json of a folder, zero bytes between them.
// The first is read as that of an encoder, too.
#pragma once

#include "harness.h"
#include "models.h"

namespace ple::fuzz {

inline void config(std::string_view data) {
  static const testing::TemporaryFolder* const folder = [] {
    auto* made = new testing::TemporaryFolder;
    std::filesystem::copy_file(valid_folder().model(), *made / "model.safetensors");
    return made;
  }();
  may_refuse([&] {
    const auto parts = split(data, 3);
    const char* const names[] = {"config.json", "generation_config.json", "tokenizer_config.json"};
    for (std::size_t i = 0; i < 3; ++i) write_input(*folder, names[i], i < parts.size() ? parts[i] : "{}");
    use(*folder / ".");
  });
  may_refuse([&] {
    const auto parts = split(data, 3);
    embedding_gemma2_config(parse_json(parts[0], "config.json"), "config.json");
  });
}

inline std::vector<std::string> config_seeds() {
  const std::string text = valid_folder().config.dump();
  const std::string nested =
      R"({"model_type":"gemma4","eos_token_id":[1,2],"text_config":)" + text.substr(0, text.size() - 1) +
      R"(,"rms_norm_eps":1e-06,"final_logit_softcapping":30.0,"tie_word_embeddings":true,"num_kv_shared_layers":0,)"
      R"("use_double_wide_mlp":false,"attention_k_eq_v":false,"enable_moe_block":false,"hidden_activation":"gelu_pytorch_tanh",)"
      R"("rope_parameters":{"sliding_attention":{"rope_type":"default","rope_theta":10000.0},"full_attention":)"
      R"({"rope_type":"proportional","partial_rotary_factor":0.25,"rope_theta":1000000.0}},"pad_token_id":0,"bos_token_id":2}})";
  const std::string generation = R"({"do_sample":true,"temperature":1.0,"top_k":64,"top_p":0.95,"eos_token_id":[1]})";
  const std::string tokenizer = R"({"chat_template":"<|turn><turn|>"})";
  const std::string encoder =
      R"({"model_type":"embedding_gemma2","image_token_id":7,"text_config":{"model_type":"embedding_gemma2_text",)"
      R"("num_hidden_layers":2,"layer_types":["sliding_attention","full_attention"],"sliding_window":5,"head_dim":8,)"
      R"("per_layer_config":{"1":{"head_dim":16,"num_key_value_heads":1}},"embedding_dim":24}})";
  return {text, nested + '\0' + generation + '\0' + tokenizer, encoder};
}

}  // namespace ple::fuzz
