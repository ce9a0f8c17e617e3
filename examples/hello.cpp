// SPDX-License-Identifier: Apache-2.0
// The README's first program: open a model, ask it something, print the answer as it comes.
#include <ple/dispatch.h>  // first: BestSimd, the best vectors of the CPU it runs on
#include <ple/ple.h>

#include <iostream>
int main(int argc, char** argv) {
  const auto checkpoint = ple::Checkpoint::open(argc > 1 ? argv[1] : "examples/models/storyteller");
  const auto model = ple::Gemma4<ple::Any, ple::BestSimd>::load(checkpoint);
  ple::Chat chat(model, checkpoint);
  for (std::string_view piece : chat.say("Tell me a story about a fox named Pip.")) std::cout << piece << std::flush;
  std::cout << "\n";
}
