// SPDX-License-Identifier: Apache-2.0
// Writes a Gemma 4 as a GGUF file, each matrix in its own number type. Source: llama.cpp's converter and loader.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ple/checkpoint/checkpoint.h"
#include "ple/convert/stored_rows.h"
#include "ple/core/checked_writer.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/family/gguf_keys.h"
#include "ple/formats/gguf_writer.h"
#include "ple/model/parameter_groups.h"
#include "ple/model/parameter_shapes.h"

namespace ple::inline PLE_ABI {

/// The number type of each kind of matrix. Norms and other vectors are always f32.
struct GgufTypes {
  Dtype attention = Dtype::q4_0;
  Dtype feed_forward = Dtype::q4_0;
  Dtype token_embedding = Dtype::q6_k;  ///< and of a separate head
  Dtype ple_table = Dtype::q6_k;
  Dtype ple_projections = Dtype::q8_0;  ///< 1 % of the size, and sensitive: fewer than 8 bits cost much
  Dtype fallback = Dtype::q8_0;         ///< if rows are not whole blocks of the type wanted; bf16 if not of this either
};

/// A tensor of the new file.
struct GgufPlanEntry {
  std::optional<Parameter> parameter = std::nullopt;  ///< nothing for a tensor that is only copied
  std::size_t layer = 0;                              ///< 0 for what exists once
  GgufTensor tensor;                                  ///< its dtype may be changed before the file is written
  Dtype wanted = Dtype::f32;  ///< GgufTypes' choice; the tensor's differs if rows are not whole blocks of this
  std::size_t together = 1;   ///< adjacent values that must be whole blocks: a row; in a PLE table a layer's part of it
};

namespace detail {

inline Dtype wanted_type(const GgufTypes& types, Parameter parameter) {
  switch (part_of(parameter)) {
    case ParameterPart::attention: return types.attention;
    case ParameterPart::feed_forward:
    case ParameterPart::experts: return types.feed_forward;
    case ParameterPart::ple_table: return types.ple_table;
    case ParameterPart::ple_step: return types.ple_projections;
    case ParameterPart::token_embedding:
    case ParameterPart::streams:
    case ParameterPart::other: break;
  }
  return types.token_embedding;
}

/// Factors of a full layer's RoPE pairs: 1 for those that turn, as nn/rope.h counts them, 1e30 for the others.
inline std::vector<float> gguf_rope_factor_values(const RopeConfig& rope, std::size_t head_dim) {
  std::vector<float> factors(head_dim / 2, 1e30f);
  std::fill_n(factors.begin(), static_cast<std::size_t>(rope.fraction * static_cast<double>(head_dim) / 2), 1.0f);
  return factors;
}

/// Head widths and the pattern of attention types. A file gives each width once for all layers of a type.
struct GgufHeads {
  std::size_t full = 0, sliding = 0;
  std::vector<bool> is_sliding;

  explicit GgufHeads(const Gemma4Config& config) {
    for (const LayerConfig& layer : config.layers) {
      is_sliding.push_back(layer.attention == AttentionType::sliding);
      (is_sliding.back() ? sliding : full) = layer.head_dim;
    }
    if (full == 0) full = sliding;
    if (sliding == 0) sliding = full;
  }
};

}  // namespace detail

/// Every key of a model except its tokenizer's. Errors: ErrorCode::not_supported for what GGUF cannot express.
inline GgufKeys gguf_model_keys(const Checkpoint& checkpoint) {
  const Gemma4Config& config = checkpoint.config<Gemma4Config>();
  const auto refuse = [](const auto&... parts) { fail(ErrorCode::not_supported, "GGUF cannot express ", parts...); };
  if (config.full_rope.factor != 1) refuse("a RoPE factor of ", config.full_rope.factor, " in full layers");
  if (config.sliding_rope.factor != 1) refuse("a RoPE factor of ", config.sliding_rope.factor, " in sliding layers");
  if (config.sliding_rope.fraction != 1)
    refuse("RoPE on a fraction of ", config.sliding_rope.fraction, " of the pairs in sliding layers");

  GgufKeys keys;
  keys.text("general.architecture", "gemma4").text("general.type", "model").count("general.quantization_version", 2);
  const std::string prefix = "gemma4.";
  const auto count = [&](const char* name, std::size_t value) { keys.count(prefix + name, value); };
  const auto number = [&](const char* name, double value) { keys.number(prefix + name, value); };
  /// One number if all layers agree, else one for each.
  const auto per_layer = [&](const char* name, auto&& number_of) {
    std::vector<std::int32_t> numbers;
    for (const LayerConfig& layer : config.layers) numbers.push_back(static_cast<std::int32_t>(number_of(layer)));
    if (std::count(numbers.begin(), numbers.end(), numbers[0]) == static_cast<std::ptrdiff_t>(numbers.size()))
      return count(name, number_of(config.layers[0]));
    keys.integers(prefix + name, numbers);
  };
  count("block_count", config.num_layers());
  count("context_length", config.max_position_embeddings);
  count("embedding_length", config.hidden_size);
  count("embedding_length_per_layer_input", config.hidden_size_per_layer_input);
  per_layer("feed_forward_length", [](const LayerConfig& layer) { return layer.intermediate_size; });
  if (config.num_experts > 0) {
    count("expert_count", config.num_experts);
    count("expert_used_count", config.top_k_experts);
    count("expert_feed_forward_length", config.moe_intermediate_size);
  }
  count("attention.head_count", config.num_attention_heads);
  per_layer("attention.head_count_kv", [](const LayerConfig& layer) { return layer.num_key_value_heads; });
  count("attention.shared_kv_layers", config.num_kv_shared_layers);
  count("attention.sliding_window", config.sliding_window);
  number("attention.layer_norm_rms_epsilon", static_cast<double>(config.rms_norm_eps));
  // Without this key llama.cpp takes 30, so 0, which is none, is written too.
  number("final_logit_softcapping", static_cast<double>(config.final_logit_softcapping));
  const detail::GgufHeads heads(config);
  keys.flags(prefix + "attention.sliding_window_pattern", heads.is_sliding);
  for (const std::string name : {"attention.key_length", "attention.value_length", "rope.dimension_count"}) {
    count(name.c_str(), heads.full);
    count((name + "_swa").c_str(), heads.sliding);
  }
  number("rope.freq_base", config.full_rope.theta);
  number("rope.freq_base_swa", config.sliding_rope.theta);

  keys.count("tokenizer.ggml.padding_token_id", static_cast<std::uint64_t>(config.pad_token_id));
  // All of these end a text in llama.cpp too.
  constexpr const char* stops[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                   "tokenizer.ggml.eom_token_id"};
  const std::vector<Token>& tokens = checkpoint.stop_tokens();
  if (tokens.size() > std::size(stops)) refuse(tokens.size(), " stop tokens, at most ", std::size(stops));
  for (std::size_t i = 0; i < tokens.size(); ++i) keys.count(stops[i], static_cast<std::uint64_t>(tokens[i]));
  if (const auto chat_template = checkpoint.chat_template()) keys.text("tokenizer.chat_template", *chat_template);
  const SamplingOptions sampling = checkpoint.recommended_sampling();
  if (sampling.no_repeat_ngram_size > 0) refuse("no_repeat_ngram_size ", sampling.no_repeat_ngram_size);
  if (sampling.repetition_penalty != 1)
    keys.number("general.sampling.penalty_repeat", static_cast<double>(sampling.repetition_penalty));
  if (!sampling.suppress_tokens.empty()) keys.integers("tokenizer.ggml.suppress_tokens", sampling.suppress_tokens);
  if (sampling.temperature > 0) {
    keys.number("general.sampling.temp", static_cast<double>(sampling.temperature));
    keys.count("general.sampling.top_k", sampling.top_k);
    keys.number("general.sampling.top_p", static_cast<double>(sampling.top_p));
    keys.number("general.sampling.min_p", static_cast<double>(sampling.min_p));
  }
  return keys;
}

/// The file's tensors in order; types may change as write_gguf allows. Errors: Checkpoint::tensor's; ErrorCode::shape.
inline std::vector<GgufPlanEntry> plan_gguf(const Checkpoint& checkpoint, const GgufTypes& types = {}) {
  std::vector<GgufPlanEntry> plan;
  for (const ParameterShape& shape : parameter_shapes(checkpoint.config<Gemma4Config>())) {
    const Tensor tensor = checkpoint.tensor(shape.parameter, shape.layer);
    if (tensor.shape != shape.shape) {
      fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": shape is ", shape_text(tensor.shape), ", expected ",
           shape_text(shape.shape));
    }
    GgufPlanEntry entry{shape.parameter, shape.layer, {gguf_name(shape.parameter, shape.layer), shape.shape}, {}};
    if (shape.parameter == Parameter::router) {
      entry.wanted = entry.tensor.dtype = Dtype::f32;  // as llama.cpp keeps it: small, and it decides
    } else if (shape.shape.size() >= 2) {
      entry.together = shape.parameter == Parameter::ple_table
                           ? checkpoint.config<Gemma4Config>().hidden_size_per_layer_input
                           : static_cast<std::size_t>(shape.shape.back());
      const auto fits = [&](Dtype type) { return entry.together % values_per_block(type) == 0; };
      entry.wanted = detail::wanted_type(types, shape.parameter);
      entry.tensor.dtype = fits(entry.wanted) ? entry.wanted : fits(types.fallback) ? types.fallback : Dtype::bf16;
    }
    plan.push_back(std::move(entry));
  }
  return plan;
}

namespace detail {

/// Checks that an entry whose values are of type `from` can be written, before anything is.
inline void check_entry(const GgufPlanEntry& entry, Dtype from) {
  const Dtype type = entry.tensor.dtype;
  if (!is_encodable(type) && type != from) {
    fail(ErrorCode::not_supported, entry.tensor.name, ": type ", name_of(type),
         " can be read, but not written; expected one of ", names_of_dtypes(true));
  }
  if (entry.tensor.shape.size() == 1 && type != Dtype::f32 && type != entry.wanted)
    fail(ErrorCode::argument, entry.tensor.name, ": type ", name_of(type), ", expected f32 for a vector");
  if (type != from && entry.together % values_per_block(type) != 0) {
    fail(ErrorCode::shape, entry.tensor.name, ": ", entry.together, " values together in ", name_of(type),
         ", expected a multiple of ", values_per_block(type));
  }
}

/// Converts the plan's tensors, which are what remains to be written, and ends the file. tensor_of(entry): its source.
template <class TensorOf>
std::vector<StoredSums> write_tensors(GgufFileWriter& file, std::span<const GgufPlanEntry> plan, TensorOf&& tensor_of,
                                      Executor& executor, const WriteProgress& progress) {
  std::uint64_t done = 0, total = 0;
  for (const GgufPlanEntry& entry : plan) total += entry.tensor.bytes();
  std::vector<StoredSums> sums(plan.size());
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const Tensor tensor = tensor_of(plan[i]);
    StoredRows rows(tensor, plan[i].tensor.dtype, executor);
    for (std::size_t row = 0; row < rows.rows();) {
      const std::span<const std::byte> some = rows.next(row, sums[i]);
      file.write(some);
      row += some.size() / bytes_of(plan[i].tensor.dtype, static_cast<std::size_t>(tensor.shape.back()));
      done += some.size();
      file.report(progress, "bytes written", done, total);
    }
  }
  file.finish(progress);
  return sums;
}

}  // namespace detail

/// Writes the model to `path`, which is replaced only once all was read back. `tokenizer`: the keys of its tokenizer
/// (convert/gguf_tokenizer_keys.h), or none. Takes memory for a few rows. Returns one entry for each of the plan's.
/// Errors: ErrorCode::argument, also if the model is read from `path`; file, shape, dtype; not_supported for a type
/// that cannot be written; cancelled by `progress`.
inline std::vector<StoredSums> write_gguf(const Checkpoint& checkpoint, const GgufKeys& tokenizer,
                                          std::span<const GgufPlanEntry> plan, const std::filesystem::path& path,
                                          Executor& executor, const WriteProgress& progress = {}) {
  if (checkpoint.ple_table())
    fail(ErrorCode::argument, "write_gguf: the checkpoint's table was packed: start from the original");
  for (const GgufPlanEntry& entry : plan) {
    detail::check_entry(entry, checkpoint.tensor(*entry.parameter, entry.layer).dtype);
  }
  const Gemma4Config& config = checkpoint.config<Gemma4Config>();
  GgufKeys keys = gguf_model_keys(checkpoint);
  keys.add(tokenizer);
  if (!keys.has("tokenizer.ggml.model")) {
    // llama.cpp's name for no tokenizer; it then requires the vocabulary's size.
    keys.text("tokenizer.ggml.model", "none").count("gemma4.vocab_size", config.vocab_size);
  }
  std::vector<GgufTensor> tensors;
  const std::vector<float> factors = detail::gguf_rope_factor_values(config.full_rope, detail::GgufHeads(config).full);
  tensors.push_back({std::string(gguf_rope_factors), {factors.size()}, Dtype::f32});
  for (const GgufPlanEntry& entry : plan) tensors.push_back(entry.tensor);
  GgufFileWriter file(path, keys, std::move(tensors), identities_of(checkpoint.files()));
  file.write(std::as_bytes(std::span(factors)));
  return detail::write_tensors(
      file, plan, [&](const GgufPlanEntry& entry) { return checkpoint.tensor(*entry.parameter, entry.layer); },
      executor, progress);
}

}  // namespace ple::inline PLE_ABI
