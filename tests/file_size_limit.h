// SPDX-License-Identifier: Apache-2.0
// A full disk, as far as a test can make one: no file may grow beyond a size.
#pragma once

#include <sys/resource.h>

#include <csignal>
#include <cstddef>

namespace ple::testing {

/// While it lives, writing beyond `bytes` fails with "File too large".
class FileSizeLimit {
 public:
  explicit FileSizeLimit(std::size_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    struct rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  struct rlimit before_ = {};
  void (*handler_)(int) = SIG_DFL;
};

}  // namespace ple::testing
