// SPDX-License-Identifier: Apache-2.0
// README's first program, as it stood in version 0.1.
#include <ple/io/hf_folder.h>
#include <ple/model/gemma4.h>
#include <ple/run/chat.h>

#include <iostream>
int main(int argc, char** argv) try {
  const ple::HfFolder folder(argc > 1 ? argv[1] : "examples/models/storyteller");
  const auto model = ple::Gemma4<ple::bf16>::load(folder);
  ple::Chat chat(model, folder);
  for (std::string_view piece : chat.say("Tell me a story about a fox named Pip.")) std::cout << piece << std::flush;
  std::cout << "\n";
} catch (const std::exception& error) {  // a ple::Error says which file, what in it, and what was expected
  std::cerr << "error: " << error.what() << "\n";
  return 1;
}
