// SPDX-License-Identifier: Apache-2.0
// Finds the text model's tensors in a folder's files. Tools that train, wrap or save a model put prefixes, also
// several, before transformers' names: "model.", "model.language_model.", "language_model.model.", nothing at all,
// "base_model.model." (PEFT), "module." (data parallel), "_orig_mod." (torch.compile).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <string_view>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/formats/safetensors_folder.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

/// Which tensors of a multimodal file belong to vision or audio: a tower and its projection to the text model's width.
/// Source: the modules of transformers' Gemma4Model, Gemma4UnifiedModel (as its files name them) and Gemma3nModel.
enum class HfTower : std::uint8_t { none, vision, audio };

inline HfTower hf_tower(std::string_view name) {
  const auto has_module = [&](const auto&... modules) {
    return ((name.starts_with(modules) || name.find("." + std::string(modules)) != name.npos) || ...);
  };
  if (has_module("vision_tower.", "vision_embedder.", "embed_vision.", "multi_modal_projector."))
    return HfTower::vision;
  if (has_module("audio_tower.", "embed_audio.")) return HfTower::audio;
  return HfTower::none;
}

class HfTensorNames {
 public:
  /// A parameter's name, as hf_name() gives it.
  using Naming = std::string (*)(std::string_view prefix, Parameter parameter, std::size_t layer);

  HfTensorNames() = default;

  /// Errors name `folder`: ErrorCode::missing for no text model, malformed for two, not_supported for an adapter that
  /// was not merged into its model.
  HfTensorNames(const TensorFiles& files, const std::string& folder, Naming naming = hf_name) : naming_(naming) {
    refuse_adapters(files);
    prefix_ = find_prefix(files, folder);
    for (const auto& [name, file] : files) {
      const std::string plain = without_wrappers(name);
      const std::size_t head = module_at(plain, "lm_head.");
      if (head != plain.npos && prefix_.starts_with(std::string_view(plain).substr(0, head))) {
        add(plain.substr(head), name, folder);
      } else if (const std::string within = inside(name); !within.empty()) {
        add(within, name, folder);
      }
    }
  }

  /// The prefix of the text model's names, without module wrappers.
  std::string_view prefix() const { return prefix_; }

  /// A tensor's name in the text model ("layers.0.layer_scalar"); empty if it is outside.
  std::string inside(const std::string& name) const {
    const std::string plain = without_wrappers(name);
    const bool text = plain.starts_with(prefix_) && hf_tower(plain) == HfTower::none;
    return text ? plain.substr(prefix_.size()) : "";
  }

  /// A parameter's name in the text model.
  std::string inside(Parameter parameter, std::size_t layer) const { return naming_("", parameter, layer); }

  /// The files' name of the text model's `inside` ("layers.0.layer_scalar", "lm_head.weight"); nullptr if none.
  const std::string* find(std::string_view inside) const {
    const auto found = names_.find(inside);
    return found == names_.end() ? nullptr : &found->second;
  }
  const std::string* find(Parameter parameter, std::size_t layer) const { return find(inside(parameter, layer)); }

  /// The files' name, or the one it should have.
  std::string name(Parameter parameter, std::size_t layer) const {
    const std::string* found = find(parameter, layer);
    return found ? *found : naming_(prefix_, parameter, layer);
  }

  /// Returns whether the head is the token embedding. If the configuration says so, a file's own head is used all the
  /// same, as in transformers if its values differ. One of the two matrices alone serves as both.
  bool tie(bool tie_word_embeddings) {
    const std::string name(role_of(Parameter::head).hf);
    if (!tie_word_embeddings || find(name + "_packed")) return false;  // a head that compressed-tensors quantized
    const auto head = names_.find(name);
    if (head == names_.end()) return true;
    if (find(Parameter::token_embedding, 0)) return false;
    names_.emplace(role_of(Parameter::token_embedding).hf, head->second);
    names_.erase(head);
    return true;
  }

 private:
  using Names = std::map<std::string, std::string, std::less<>>;

  static std::string without_wrappers(std::string name) {
    for (const std::string_view wrapper : {"_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module."}) {
      for (std::size_t at = 0; (at = module_at(name, wrapper)) != name.npos;) name.erase(at, wrapper.size());
    }
    return name;
  }

  /// Where module `module`, with its dot, begins in a name; npos: nowhere.
  static std::size_t module_at(std::string_view name, std::string_view module) {
    std::size_t at = name.find(module);
    while (at != name.npos && at > 0 && name[at - 1] != '.') at = name.find(module, at + 1);
    return at;
  }

  static void refuse_adapters(const TensorFiles& files) {
    for (const auto& [name, file] : files) {
      for (const std::string_view part : {".lora_", ".base_layer.", ".modules_to_save.", ".original_module."}) {
        if (name.find(part) == name.npos || hf_tower(name) != HfTower::none) continue;
        fail(ErrorCode::not_supported, file->raw(name).file, ": ", name,
             ": belongs to an unmerged adapter: merge it into its model (merge_and_unload() of PEFT) and save that");
      }
    }
  }

  /// Only the text model has token embeddings. A file with a head may omit them: then layer 0's first norm tells.
  static std::string find_prefix(const TensorFiles& files, const std::string& folder) {
    for (const std::string_view inside : {"embed_tokens.weight", "layers.0.input_layernorm.weight"}) {
      Names found;  // prefix -> a name that has it
      for (const auto& [name, file] : files) {
        const std::string plain = without_wrappers(name);
        if (!plain.ends_with(inside) || hf_tower(plain) != HfTower::none) continue;
        const std::string prefix = plain.substr(0, plain.size() - inside.size());
        if (prefix.empty() || prefix.ends_with('.')) found.emplace(prefix, name);
      }
      if (found.size() > 1) {
        fail(ErrorCode::malformed, folder, ": ", found.begin()->second, " and ", std::next(found.begin())->second,
             ": both could be the text model's, expected one");
      }
      if (!found.empty()) return found.begin()->first;
    }
    fail(ErrorCode::missing, folder, ": no token embedding: no tensor's name ends in embed_tokens.weight",
         files.empty() ? "" : ", as in model.language_model.embed_tokens.weight; the first is ",
         files.empty() ? "" : files.begin()->first);
  }

  void add(const std::string& inside, const std::string& name, const std::string& folder) {
    const auto [known, added] = names_.emplace(inside, name);
    if (!added) {
      fail(ErrorCode::malformed, folder, ": ", known->second, " and ", name, ": both are the text model's ", inside);
    }
  }

  Naming naming_ = hf_name;
  std::string prefix_;
  Names names_;
};

}  // namespace ple::inline PLE_ABI
