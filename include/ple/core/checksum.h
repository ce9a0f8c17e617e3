// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// FNV-1a, 64 bits: finds damage, not forgery. Source: draft-eastlake-fnv.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) sum_ = (sum_ ^ static_cast<std::uint8_t>(byte)) * 0x100000001b3u;
  }
  template <class Number>
  requires std::is_arithmetic_v<Number> || std::is_enum_v<Number>
  void add(Number number) { add(std::as_bytes(std::span(&number, 1))); }

  std::uint64_t value() const { return sum_; }

 private:
  std::uint64_t sum_ = 0xcbf29ce484222325u;
};

}  // namespace ple::inline PLE_ABI
