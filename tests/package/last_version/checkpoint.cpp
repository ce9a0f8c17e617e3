// SPDX-License-Identifier: Apache-2.0
// README's second program, as it stood in version 0.1, and what a program may have written with other old names.
#include <ple/dispatch.h>  // first: BestSimd, the best vectors of the CPU it runs on
#include <ple/ple.h>
//
#include <ple/core/executor.h>
#include <ple/io/checkpoint.h>
#include <ple/io/gguf.h>
#include <ple/io/gguf_export.h>
#include <ple/io/inspect.h>
#include <ple/io/load_model.h>
#include <ple/io/pack_table.h>
#include <ple/io/packed_table.h>
#include <ple/io/safetensors.h>
#include <ple/io/slice_writer.h>
#include <ple/model/gemma3n.h>
#include <ple/model/gemma3n_config.h>
#include <ple/model/gemma4_config.h>
#include <ple/text/gguf_tokenizer_keys.h>

#include <iostream>
#include <string_view>

int main(int, char** argv) {
  const char* path = argv[1];
  const auto checkpoint = ple::Checkpoint::open(path);
  const auto model =
      ple::Gemma4<ple::Any, ple::BestSimd>::load(checkpoint, {.table = ple::Streamed{.budget = 64 << 20}});
  ple::Chat chat(model, checkpoint);
  for (std::string_view piece : chat.say("Tell me a story about a fox named Pip.")) std::cout << piece << std::flush;
  std::cout << "\n";

  const ple::Gemma4LayerConfig layer{.head_dim = 64};
  const ple::StateOptions state{.context = 16, .chunk = 4};
  ple::Session session(model, {.context = 16});
  const ple::Token tokens[] = {2, 5};
  session.will_read(tokens);
  session.read(tokens);
  session.rewind(session.rewindable_from());
  return layer.head_dim == 64 && state.chunk == 4 && ple::strip_thinking("a") == "a" ? 0 : 1;
}
