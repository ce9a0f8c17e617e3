// SPDX-License-Identifier: Apache-2.0
// adapter_config.json, a line break, and adapter_model.safetensors.
#pragma once

#include "harness.h"
#include "models.h"
#include "ple/checkpoint/peft_adapter.h"

namespace ple::fuzz {

inline void peft_adapter(std::string_view data) {
  static const testing::TemporaryFolder folder;
  const std::size_t end = (std::min)(data.find('\n'), data.size());
  may_refuse([&] {
    write_input(folder, "adapter_config.json", data.substr(0, end));
    write_input(folder, "adapter_model.safetensors", data.substr((std::min)(end + 1, data.size())));
    const Adapter adapter = open_peft_adapter(folder / "");
    const TrainedRows& rows = adapter.rows();
    touch(rows.values.data(), rows.ids.size() * rows.width * sizeof(float));
    for (const RowId id : rows.ids) require(rows.find(id) != nullptr, "a trained row is not found");
    for (const Adapter::Part& part : adapter.parts()) {
      touch(reinterpret_cast<const std::byte*>(part.a.data()), part.rank * part.in * sizeof(float));
      touch(reinterpret_cast<const std::byte*>(part.b.data()), part.rank * part.out * sizeof(float));
    }
  });
}

inline std::vector<std::string> peft_adapter_seeds() {
  const std::string name = R"("base_model.model.model.layers.0.self_attn.q_proj.lora_)";
  const std::string tensors =
      testing::safetensors("{" + name + R"(A.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)" + name +
                               R"(B.weight":{"dtype":"BF16","shape":[4,1],"data_offsets":[8,16]}})",
                           std::string(16, 'x'));
  const std::string module = R"("base_model.model.model.embed_tokens_per_layer.)";
  const auto rows = [&](const std::string& adapter) {
    return testing::safetensors(
        "{" + module + adapter + R"(trainable_tokens_delta":{"dtype":"F16","shape":[3,4],"data_offsets":[0,24]}})",
        std::string(24, 'x'));
  };
  return {
      R"({"peft_type":"LORA","trainable_token_indices":{"embed_tokens_per_layer":[7,3,5]}})"
      "\n" +
          rows("token_adapter."),
      R"({"peft_type":"TRAINABLE_TOKENS","token_indices":[7,3,5],"target_modules":["embed_tokens_per_layer"]})"
      "\n" +
          rows(""),
      R"({"peft_type":"LORA","r":1,"lora_alpha":2})"
      "\n" +
          tensors,
      R"({"peft_type":"LORA","r":2,"rank_pattern":{"q_proj":1},"alpha_pattern":{"^model.layers.0":3},"use_rslora":true})"
      "\n" +
          tensors};
}

}  // namespace ple::fuzz
