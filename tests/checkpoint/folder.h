// SPDX-License-Identifier: Apache-2.0
// A small valid model folder in a temporary place, for a test to damage.
#pragma once

#include <unistd.h>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "ple/family/gemma4/block.h"
#include "ple/model/parameter.h"

namespace ple::testing {

using nlohmann::ordered_json;

inline void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// A safetensors file's bytes: header length, header, data.
inline std::string safetensors(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

/// Of the model of a Folder.
struct FolderWidths {
  std::uint64_t hidden = 8, head = 4, global_head = 6, intermediate = 10, per_layer = 3;
};

/// A folder with config.json and model.safetensors of a 2-layer model; `config` and `header` may be changed before
/// write().
class Folder {
 public:
  explicit Folder(FolderWidths w = {})
      : path_(std::filesystem::temp_directory_path() /
              ("ple_test_" + std::to_string(::getpid()) + "_" + std::to_string(count()++))) {
    std::filesystem::create_directories(path_);
    config = {{"model_type", "gemma4_text"},
              {"vocab_size", 20},
              {"vocab_size_per_layer_input", 20},
              {"hidden_size", w.hidden},
              {"num_hidden_layers", 2},
              {"num_attention_heads", 2},
              {"num_key_value_heads", 1},
              {"head_dim", w.head},
              {"global_head_dim", w.global_head},
              {"intermediate_size", w.intermediate},
              {"hidden_size_per_layer_input", w.per_layer},
              {"sliding_window", 4},
              {"max_position_embeddings", 64},
              {"layer_types", {"sliding_attention", "full_attention"}},
              {"eos_token_id", 1}};
    add("embed_tokens.weight", {20, w.hidden});
    add("embed_tokens_per_layer.weight", {20, 2 * w.per_layer});
    add("per_layer_model_projection.weight", {2 * w.per_layer, w.hidden});
    add("per_layer_projection_norm.weight", {w.per_layer});
    add("norm.weight", {w.hidden});
    for (std::uint64_t l = 0; l < 2; ++l) {
      const std::uint64_t head = l == 0 ? w.head : w.global_head;
      const std::string layer = "layers." + std::to_string(l) + ".";
      for (const char* norm : {"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                               "post_feedforward_layernorm", "post_per_layer_input_norm"}) {
        add(layer + norm + ".weight", {w.hidden});
      }
      add(layer + "self_attn.q_proj.weight", {2 * head, w.hidden});
      add(layer + "self_attn.k_proj.weight", {head, w.hidden});
      add(layer + "self_attn.v_proj.weight", {head, w.hidden});
      add(layer + "self_attn.o_proj.weight", {w.hidden, 2 * head});
      add(layer + "self_attn.q_norm.weight", {head});
      add(layer + "self_attn.k_norm.weight", {head});
      add(layer + "mlp.gate_proj.weight", {w.intermediate, w.hidden});
      add(layer + "mlp.up_proj.weight", {w.intermediate, w.hidden});
      add(layer + "mlp.down_proj.weight", {w.hidden, w.intermediate});
      add(layer + "per_layer_input_gate.weight", {w.per_layer, w.hidden});
      add(layer + "per_layer_projection.weight", {w.hidden, w.per_layer});
      add(layer + "layer_scalar", {1});
    }
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path model() const { return path_ / "model.safetensors"; }

  void write() const {
    write_file(path_ / "config.json", config.dump());
    write_file(model(), safetensors(header.dump(), data));
  }

  ordered_json config, header;
  std::string data;

 private:
  static int& count() {
    static int n = 0;
    return n;
  }
  void add(const std::string& name, const std::vector<std::uint64_t>& shape) {
    std::uint64_t n = 4;
    for (const std::uint64_t s : shape) n *= s;
    header["model." + name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {data.size(), data.size() + n}}};
    std::vector<float> values(n / 4, 0.25f);
    data.append(reinterpret_cast<const char*>(values.data()), n);
  }

  std::filesystem::path path_;
};

}  // namespace ple::testing
