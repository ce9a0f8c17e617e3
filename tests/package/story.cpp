// SPDX-License-Identifier: Apache-2.0
// One file of a program whose files have different flags. FUNCTION: what it defines; BACKEND: the vectors it uses.
#ifdef WITH_DISPATCH
#include <ple/dispatch.h>
#endif
#include <ple/checkpoint/hf_folder.h>
#include <ple/family/gemma4/block.h>
#include <ple/run/chat.h>

#include <string>

std::string FUNCTION(const char* path) {
  const ple::HfFolder folder(path);
  const auto model = ple::Gemma4<ple::bf16, ple::BACKEND>::load(folder);
  ple::Chat chat(model, folder);
  std::string story;
  for (const std::string_view piece : chat.say("Tell me a story about a fox named Pip.")) story += piece;
  return ple::BACKEND::name() + (": " + story);
}
