// SPDX-License-Identifier: Apache-2.0
// A model in GGUF files: configuration, weights, tokenizer and chat template in one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ple/checkpoint/checkpoint_source.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/family/families.h"
#include "ple/formats/gguf_metadata.h"
#include "ple/formats/gguf_shards.h"
#include "ple/model/parameter.h"
#include "ple/model/sampling_options.h"

namespace ple::inline PLE_ABI {

class GgufCheckpoint final : public CheckpointSource {
 public:
  /// Errors: those of GgufShards::open and read_config.
  explicit GgufCheckpoint(const std::filesystem::path& path) : files_(GgufShards::open(path)) {
    config_ = read_config(files_);
    check_vocabulary();
    read_stop_tokens();
  }

  std::string name() const override { return files_.name(); }
  const ModelConfig& any_config() const { return config_; }
  std::vector<Token> stop_tokens() const override { return stop_tokens_; }

  bool has(Parameter parameter, std::size_t layer = 0) const override {
    return files_.contains(gguf_name(parameter, layer));
  }

  Tensor tensor(Parameter parameter, std::size_t layer = 0) const override {
    const std::string name = gguf_name(parameter, layer);
    if (!files_.contains(name)) {
      if (parameter == Parameter::layer_scalar) return one(name);
      const std::string fused = "blk." + std::to_string(layer) + ".attn_qkv.weight";
      if (parameter == Parameter::query && files_.contains(fused)) {
        fail(ErrorCode::not_supported, files_.name(), ": ", fused, ": expected attn_q, attn_k and attn_v apart");
      }
    }
    // Files of nvfp4 may have a factor beside a matrix, which we do not multiply. Of experts it is a parameter.
    for (const std::string& factor : {name.substr(0, name.rfind('.')) + ".scale", name + ".scale"}) {
      if (!files_.contains(factor) || factor == gguf_name(Parameter::router_scale, layer) ||
          factor == gguf_name(Parameter::expert_scale, layer)) {
        continue;
      }
      fail(ErrorCode::not_supported, files_.name(), ": ", factor, ": expected ", name, " to need no other scale");
    }
    return is_of_stream(parameter) ? matrix_of_stack(files_.tensor(name), layer) : files_.tensor(name);
  }

  /// Of named templates, the converter writes the default as a single one and the others under their names.
  std::optional<std::string> chat_template() const override {
    const GgufMetadata& keys = files_.metadata();
    for (const char* const key : {"tokenizer.chat_template", "tokenizer.chat_template.default"}) {
      if (keys.has(key)) return std::string(keys.text(key));
    }
    if (!keys.has("tokenizer.chat_templates")) return std::nullopt;
    std::string names;
    for (const std::string_view name : keys.texts("tokenizer.chat_templates"))
      names.append(names.empty() ? "" : ", ").append(name);
    fail(ErrorCode::missing, files_.name(), ": none of its chat templates is the default one, they are ", names);
  }

  /// What the converter takes from generation_config.json. It has no do_sample: a temperature, top-k or top-p asks to
  /// sample. As in llama.cpp, temperature <= 0 is greedy; top-k <= 0, top-p >= 1 and min-p <= 0 are off.
  SamplingOptions recommended_sampling() const override {
    const GgufMetadata& keys = files_.metadata();
    const std::string prefix = "general.sampling.";
    const auto number = [&](const char* name, double otherwise, double least, double most) {
      const double value = keys.number(prefix + name, otherwise);
      if (!(value >= least && value <= most)) {
        fail(ErrorCode::config, files_.name(), ": ", prefix, name, " is ", value, ", expected ", least, " to ", most);
      }
      return static_cast<float>(value);
    };
    constexpr double tiny = 1e-30, huge = 1e30;
    SamplingOptions options;
    options.repetition_penalty = number("penalty_repeat", 1, tiny, huge);
    constexpr std::string_view suppressed = "tokenizer.ggml.suppress_tokens";
    if (keys.has(suppressed)) {
      for (const double token : keys.numbers(suppressed)) {
        if (token >= 0 && token < static_cast<double>(vocab_size()))
          options.suppress_tokens.push_back(static_cast<Token>(token));
      }
    }
    if (!keys.has(prefix + "temp") && !keys.has(prefix + "top_k") && !keys.has(prefix + "top_p")) return options;
    options.temperature = (std::max)(0.0f, number("temp", 1, -huge, huge));
    if (keys.number(prefix + "top_k", 0) >= 1) options.top_k = keys.count(prefix + "top_k");
    options.top_p = (std::min)(1.0f, number("top_p", 1, 0, huge));
    options.min_p = (std::max)(0.0f, number("min_p", 0, -huge, 1));
    return options;
  }

  std::filesystem::path tokenizer_file() const override { return files_.path(); }
  std::vector<std::filesystem::path> files() const override { return files_.paths(); }

 private:
  /// Matrix i of [matrices, rows, cols].
  static Tensor matrix_of_stack(Tensor tensor, std::size_t i) {
    if (tensor.shape.size() != 3 || i >= tensor.shape[0]) {
      fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": shape is ", shape_text(tensor.shape),
           ", expected 3 dimensions, the first of at least ", i + 1);
    }
    tensor.bytes /= tensor.shape[0];
    tensor.data += i * tensor.bytes;
    tensor.offset += i * tensor.bytes;
    tensor.shape.erase(tensor.shape.begin());
    return tensor;
  }

  /// A file may omit a layer's scalar where it is 1.
  Tensor one(const std::string& name) const {
    const auto value = std::make_shared<const float>(1.0f);
    return {files_.name(), name, Dtype::f32, {1}, reinterpret_cast<const std::byte*>(value.get()),
            sizeof(float), value};
  }

  void check_vocabulary() const {
    const GgufValue* tokens = files_.metadata().find("tokenizer.ggml.tokens");
    if (tokens == nullptr || (tokens->is_array() && tokens->count == vocab_size())) return;
    files_.metadata().wrong("tokenizer.ggml.tokens", *tokens,
                            "an array of " + std::to_string(vocab_size()) + " text, one for each row of " +
                                gguf_name(Parameter::token_embedding, 0));
  }

  /// The converter writes one token that ends a text, Ollama a list. The tokens that end a chat turn or wait for a
  /// tool's answer are known by name, whatever the keys say.
  void read_stop_tokens() {
    const GgufMetadata& keys = files_.metadata();
    const auto add = [&](std::size_t token) {
      const auto id = static_cast<Token>(token);
      if (std::find(stop_tokens_.begin(), stop_tokens_.end(), id) == stop_tokens_.end()) stop_tokens_.push_back(id);
    };
    for (const char* key :
         {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      if (keys.has(key)) add(keys.count(key, std::nullopt, vocab_size() - 1));
    }
    constexpr std::string_view list = "tokenizer.ggml.eos_token_ids";
    if (keys.has(list)) {
      for (const std::size_t token : keys.counts(list, vocab_size() - 1)) add(token);
    }
    if (!keys.has("tokenizer.ggml.tokens")) return;
    const std::vector<std::string_view> tokens = keys.texts("tokenizer.ggml.tokens");
    for (const std::string_view name : {"<eos>", "<turn|>", "<|tool_response>", "<end_of_turn>"}) {
      const auto end = std::find(tokens.begin(), tokens.end(), name);
      if (end != tokens.end()) add(static_cast<std::size_t>(end - tokens.begin()));
    }
  }

  std::size_t vocab_size() const {
    return std::visit([](const auto& c) { return c.vocab_size; }, config_);
  }

  GgufShards files_;
  ModelConfig config_;
  std::vector<Token> stop_tokens_;
};

}  // namespace ple::inline PLE_ABI
