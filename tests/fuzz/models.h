// SPDX-License-Identifier: Apache-2.0
// A small valid model, and what every harness does with one that opens.
#pragma once

#include <string>
#include <vector>

#include "../checkpoint/folder.h"
#include "../checkpoint/gguf_model.h"
#include "harness.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/session.h"

namespace ple::fuzz {

using Model = Gemma4<Any, Scalar>;

/// A folder with config.json and model.safetensors, for a harness to write over.
inline const testing::Folder& valid_folder() {
  static const testing::Folder* const folder = [] {
    auto* made = new testing::Folder;  // lives as long as the process
    made->write();
    return made;
  }();
  return *folder;
}

/// Opens, loads and computes with everything the checkpoint has.
inline void use(const std::filesystem::path& path, const CheckpointOptions& options = {}) {
  const auto checkpoint = Checkpoint::open(path, options);
  may_refuse([&] { checkpoint.chat_template(); });
  may_refuse([&] { checkpoint.recommended_sampling(); });
  const auto model = Model::load(checkpoint);
  InlineExecutor executor;
  Session session(model, {.context = 16, .chunk = 4, .executor = &executor});
  const Token tokens[] = {0, 1, 2, 3, 4, 5};
  session.read(tokens);
  require(session.logits().size() == model.vocab_size(), "a model has other logits than tokens");
}

}  // namespace ple::fuzz
