// SPDX-License-Identifier: Apache-2.0
// Replaces pthread_create by one that fails when it is told to.
#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>

#include <cerrno>

namespace {

thread_local std::size_t until_failure = 0;  // 0: never

}  // namespace

void ple::testing::fail_threads(std::size_t n) { until_failure = n; }

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                              void* argument) {
  if (until_failure == 1) return EAGAIN;
  if (until_failure > 1) --until_failure;
  static const auto real = reinterpret_cast<decltype(&pthread_create)>(::dlsym(RTLD_NEXT, "pthread_create"));
  return real(thread, attributes, start, argument);
}
