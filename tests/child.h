// SPDX-License-Identifier: Apache-2.0
// What happens in a process that fork() made.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace ple::testing {

/// For doctest::skip: the thread sanitizer ends a process that starts threads after fork() copied one with several.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool no_threads_in_children = true;
#else
inline constexpr bool no_threads_in_children = false;
#endif

/// Nor does the address sanitizer's allocator give a child the locks back that other threads held when it was copied,
/// as the C library's does: where such a thread allocates just then, the child waits for ever.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool no_fork_beside_busy_threads = true;
#else
inline constexpr bool no_fork_beside_busy_threads = no_threads_in_children;
#endif

/// What a process that ended returned; 100 and a signal's number if one ended it; -1 if there is no such process.
inline int status_of(::pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

/// Forks, runs f in the copy and returns what f returns there; 99 for an exception. What takes longer than a minute is
/// ended by SIGALRM. Nothing of the copy runs after f: no destructor of the caller's, no report of doctest's.
template <class F>
int in_child(F&& f) {
  std::fflush(nullptr);
  const ::pid_t child = ::fork();
  if (child != 0) return status_of(child);
  ::alarm(60);
  int result = 99;
  try {
    result = f();
  } catch (...) {
  }
  ::_exit(result);
}

}  // namespace ple::testing
