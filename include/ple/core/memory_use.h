// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

#include "ple/core/config.h"

namespace ple {
inline namespace PLE_ABI {

/// What the process holds in memory, in bytes. All zero where the system does not tell.
struct MemoryUse {
  std::uint64_t resident = 0;   ///< everything in RAM, pages of mapped files included
  std::uint64_t anonymous = 0;  ///< the part of `resident` that no file backs: it cannot be dropped, only swapped
};

/// Linux: VmRSS and RssAnon of /proc/self/status.
inline MemoryUse memory_use() {
  MemoryUse use;
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    std::uint64_t kib = 0;
    if (key == "VmRSS:" && status >> kib) use.resident = kib * 1024;
    if (key == "RssAnon:" && status >> kib) use.anonymous = kib * 1024;
    status.ignore((std::numeric_limits<std::streamsize>::max)(), '\n');
  }
  return use;
}

}  // namespace PLE_ABI
}  // namespace ple
