// SPDX-License-Identifier: Apache-2.0
// All harnesses in one program for libFuzzer: FUZZ_TARGET names the one to run.
//   fuzz --list            the targets
//   fuzz --seeds FOLDER    writes the seeds of the target there
// An input that takes more memory than harness.h allows is a find; the time is for libFuzzer's -timeout.
#include <sanitizer/allocator_interface.h>

#include <atomic>
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

// libFuzzer's own limits look at one allocation, or at the process with its corpus and all the sanitizers hold back.
std::atomic<std::size_t> live_bytes{0}, most_live_bytes{~std::size_t{0}};

void on_malloc(const volatile void* /*memory*/, std::size_t size) {
  if ((live_bytes += size) <= most_live_bytes) return;
  most_live_bytes = ~std::size_t{0};
  std::fprintf(stderr, "ERROR: the input has made more than %zu bytes live, the last %zu at once\n",
               ple::fuzz::most_bytes, size);
  std::abort();
}
void on_free(const volatile void* memory) {
  if (memory != nullptr) live_bytes -= __sanitizer_get_allocated_size(const_cast<const void*>(memory));
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const std::string_view option = *argc > 1 ? (*argv)[1] : "";
  if (option == "--list") {
    for (const auto& each : ple::fuzz::targets) std::puts(each.name.data());
    std::exit(0);
  }
  target = find_target();
  if (__sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) == 0) {
    std::fputs("cannot watch allocations\n", stderr);
    std::exit(2);
  }
  if (option == "--seeds" && *argc > 2) {
    std::size_t count = 0;
    for (const std::string& seed : target->seeds())
      std::ofstream(std::filesystem::path((*argv)[2]) / ("seed" + std::to_string(count++)), std::ios::binary) << seed;
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  most_live_bytes = live_bytes + ple::fuzz::most_bytes;
  target->run({reinterpret_cast<const char*>(data), size});
  most_live_bytes = ~std::size_t{0};
  return 0;
}
