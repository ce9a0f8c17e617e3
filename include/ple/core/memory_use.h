// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <limits>
#include <string>

#include "ple/core/config.h"

#if defined(_WIN32)
struct _PROCESS_MEMORY_COUNTERS;
extern "C" {
__declspec(dllimport) void* __stdcall GetCurrentProcess();
__declspec(dllimport) int __stdcall K32GetProcessMemoryInfo(void*, _PROCESS_MEMORY_COUNTERS*, unsigned long);
}
#endif

namespace ple::inline PLE_ABI {

/// Bytes of memory that the process holds. All zero where the system does not say.
struct MemoryUse {
  std::uint64_t resident = 0;   ///< everything in RAM, pages of mapped files included
  std::uint64_t anonymous = 0;  ///< the part of `resident` that no file backs: it cannot be dropped, only swapped
};

#if defined(_WIN32)

/// Windows: resident is the working set; anonymous the private bytes, in RAM or not, but at most the working set.
inline MemoryUse memory_use() {
  struct {  // PROCESS_MEMORY_COUNTERS_EX
    std::uint32_t size, page_faults;
    std::size_t peak_working_set, working_set, pools[4], pagefile, peak_pagefile, own;
  } counters = {};
  counters.size = sizeof counters;
  const int known = ::K32GetProcessMemoryInfo(::GetCurrentProcess(),
                                              reinterpret_cast<_PROCESS_MEMORY_COUNTERS*>(&counters), counters.size);
  if (known == 0) return {};
  return {counters.working_set, (std::min)(counters.own, counters.working_set)};
}

#else

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

#endif

}  // namespace ple::inline PLE_ABI
