// SPDX-License-Identifier: Apache-2.0
// A file of a program of many: uses ple in the usual way, and compiles none of it. FUNCTION: what it defines; MAIN: it
// is the first, which does not know the model's family.
#include <ple/models.h>

#include <string>

std::string FUNCTION(const char* path) {
  const auto checkpoint = ple::Checkpoint::open(path);
#ifdef MAIN
  const auto model = ple::load_model(checkpoint);
  ple::Chat chat(*model, checkpoint);
#else
  const auto model = ple::Gemma4<>::load(checkpoint);
  ple::Chat chat(model, checkpoint);
#endif
  std::string story;
  for (const std::string_view piece : chat.say("Tell me a story about a fox named Pip.")) story += piece;
  return story;
}

#ifdef MAIN
#include <iostream>
std::string second(const char* path);

int main(int, char** argv) {
  const std::string story = FUNCTION(argv[1]);
  std::cout << story << "\n";
  return second(argv[1]) != story;
}
#endif
