// SPDX-License-Identifier: Apache-2.0
// A Gemma 3 of a Hugging Face folder, as a GGUF file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "../checkpoint/gguf_model.h"
#include "../formats/gguf_writer.h"
#include "ple/checkpoint/hf_folder.h"
#include "ple/family/gemma3/family.h"
#include "ple/simd/decode.h"
#include "ple/simd/scalar.h"

namespace ple::testing {

/// The folder's model as llama.cpp's converter writes it: it adds 1 to norms, which are f32. A pattern that is not one
/// full layer after five others is a list.
inline GgufWriter gemma3_gguf_of(const std::filesystem::path& folder) {
  const HfFolder checkpoint(folder);
  const auto c = checkpoint.config<Gemma3Config>();
  GgufWriter file;
  file.text("general.architecture", "gemma3");
  const auto count = [&](const char* key, std::size_t value) { file.count(std::string("gemma3.") + key, value); };
  count("block_count", c.num_layers());
  count("context_length", c.max_position_embeddings);
  count("embedding_length", c.hidden_size);
  if (c.hidden_size_per_layer_input > 0) count("embedding_length_per_layer_input", c.hidden_size_per_layer_input);
  count("feed_forward_length", c.layer(0).intermediate_size);
  count("attention.head_count", c.num_attention_heads);
  count("attention.head_count_kv", c.layer(0).num_key_value_heads);
  count("attention.key_length", c.layer(0).head_dim);
  count("attention.value_length", c.layer(0).head_dim);
  count("attention.sliding_window", c.sliding_window);
  file.number("gemma3.attention.layer_norm_rms_epsilon", static_cast<double>(c.rms_norm_eps));
  file.number("gemma3.rope.freq_base", c.full_rope.theta);
  if (c.sliding_rope.theta != 10000) file.number("gemma3.rope.freq_base_swa", c.sliding_rope.theta);
  if (c.final_logit_softcapping != 0)
    file.number("gemma3.final_logit_softcapping", static_cast<double>(c.final_logit_softcapping));
  std::vector<std::uint8_t> sliding;
  bool as_default = true;
  for (std::size_t l = 0; l < c.num_layers(); ++l) {
    sliding.push_back((c.layer(l).attention == AttentionType::full) ? 0 : 1);
    as_default = as_default && (c.layer(l).attention == AttentionType::full) == (l % 6 == 5);
  }
  if (!as_default) file.numbers("gemma3.attention.sliding_window_pattern", GgufWriter::boolean, sliding);
  if (c.full_rope.factor != 1)
    file.text("gemma3.rope.scaling.type", "linear").number("gemma3.rope.scaling.factor", c.full_rope.factor);
  for (const ParameterShape& shape : parameter_shapes(c)) {
    const std::string name = checkpoint.names().name(shape.parameter, shape.layer);
    const Tensor stored = checkpoint.tensor_files().at(name)->tensor(name);
    const std::string in_file = llama_cpp_name(shape.parameter, shape.layer);
    if (stored.shape.size() > 1) {
      const std::uint32_t types[] = {0, 1, 30};  // f32, f16, bf16
      const std::size_t type = stored.dtype == Dtype::f32 ? 0 : stored.dtype == Dtype::f16 ? 1 : 2;
      file.tensor(in_file, stored.shape, types[type], {reinterpret_cast<const char*>(stored.data), stored.bytes});
      continue;
    }
    std::vector<float> values(static_cast<std::size_t>(stored.shape[0]));
    decode<Scalar>(stored.dtype, stored.data, values.size(), values.data());
    for (float& value : values) value += 1;
    file.tensor(in_file, stored.shape, 0,
                {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }
  return file;
}

}  // namespace ple::testing
