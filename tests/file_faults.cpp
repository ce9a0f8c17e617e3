// SPDX-License-Identifier: Apache-2.0
// Replaces mmap and pread by some that fail when they are told to.
#include "file_faults.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

using Kind = ple::testing::NoMappings::Kind;

namespace {

thread_local Kind missing = Kind::none;
thread_local int read_error = 0;

}  // namespace

ple::testing::NoMappings::NoMappings(Kind kind) { missing = kind; }
ple::testing::NoMappings::~NoMappings() { missing = Kind::none; }

ple::testing::FailingReads::FailingReads(int error) { read_error = error; }
ple::testing::FailingReads::~FailingReads() { read_error = 0; }

extern "C" ::ssize_t pread(int descriptor, void* into, std::size_t size, ::off_t offset) {
  if (read_error != 0) {
    errno = read_error;
    return -1;
  }
  static const auto real = reinterpret_cast<decltype(&pread)>(::dlsym(RTLD_NEXT, "pread"));
  return real(descriptor, into, size, offset);
}

// The thread sanitizer maps memory before it can bear a function that is not its own.
#if !defined(__SANITIZE_THREAD__)
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
#endif
