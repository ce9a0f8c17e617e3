// SPDX-License-Identifier: Apache-2.0
// Replaces mmap by one that fails when it is told to.
#include "mappings.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <cerrno>

using Kind = ple::testing::NoMappings::Kind;

namespace {

thread_local Kind missing = Kind::none;

}  // namespace

ple::testing::NoMappings::NoMappings(Kind kind) { missing = kind; }
ple::testing::NoMappings::~NoMappings() { missing = Kind::none; }

extern "C" void* mmap(void* address, std::size_t size, int protection, int flags, int descriptor,
                      ::off_t offset) noexcept {
  const bool shared = (flags & MAP_TYPE) == MAP_SHARED;
  if (descriptor >= 0 && (missing == Kind::all || (missing == Kind::shared && shared))) {
    errno = ENODEV;
    return MAP_FAILED;
  }
  static const auto real = reinterpret_cast<decltype(&mmap)>(::dlsym(RTLD_NEXT, "mmap"));
  return real(address, size, protection, flags, descriptor, offset);
}
