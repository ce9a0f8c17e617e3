// SPDX-License-Identifier: Apache-2.0
// One file of a program that is compiled without -march. FIRST, SECOND: the headers that come first; FUNCTION: what the
// file defines; BACKEND: nothing, or a comma and the backend of its model.
#include FIRST

#include SECOND

#include <ple/io/hf_folder.h>
#include <ple/model/gemma4.h>
#include <ple/run/session.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

std::string FUNCTION(const char* path) {
  const ple::HfFolder folder(path);
  const auto model = ple::Gemma4<ple::bf16 BACKEND>::load(folder);
  ple::Session session(model);
  session.read(std::vector<ple::Token>{2, 5, 7});
  std::string bits = decltype(model)::B::name();
  for (const float logit : session.logits().first(32)) {
    std::uint32_t of_logit = 0;
    std::memcpy(&of_logit, &logit, sizeof logit);
    bits += ' ' + std::to_string(of_logit);
  }
  return bits;
}

#ifdef MAIN
#include <cstdio>
std::string named(const char* path);

int main(int, char** argv) {
  const std::string bits = FUNCTION(argv[1]), other = named(argv[1]);
  std::printf("default:        %s\nBestSimd named: %s\n", bits.c_str(), other.c_str());
  return bits != other;
}
#endif
