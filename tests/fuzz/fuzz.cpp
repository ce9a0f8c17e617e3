// SPDX-License-Identifier: Apache-2.0
// All harnesses in one program for libFuzzer: FUZZ_TARGET names the one to run.
//   fuzz --list            the targets
//   fuzz --seeds FOLDER    writes the seeds of the target there
#include <cstdio>
#include <cstdlib>

#include "targets.h"

namespace {

const ple::fuzz::Target* find_target() {
  const char* const name = std::getenv("FUZZ_TARGET");
  for (const auto& target : ple::fuzz::targets) {
    if (name != nullptr && target.name == name) return &target;
  }
  std::fprintf(stderr, "FUZZ_TARGET is '%s': fuzz --list shows the targets\n", name ? name : "");
  std::exit(2);
}

const ple::fuzz::Target* target = nullptr;

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const std::string_view option = *argc > 1 ? (*argv)[1] : "";
  if (option == "--list") {
    for (const auto& each : ple::fuzz::targets) std::puts(each.name.data());
    std::exit(0);
  }
  target = find_target();
  if (option == "--seeds" && *argc > 2) {
    std::size_t count = 0;
    for (const std::string& seed : target->seeds())
      std::ofstream(std::filesystem::path((*argv)[2]) / ("seed" + std::to_string(count++)), std::ios::binary) << seed;
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  target->run({reinterpret_cast<const char*>(data), size});
  return 0;
}
