// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// The product of sizes from a file or a caller; nothing if the factors other than 0 overflow 64 bits. Every number of
/// values or bytes is computed from a shape with this, before anything is read or allocated.
constexpr std::optional<std::uint64_t> checked_product(std::span<const std::uint64_t> factors) {
  std::uint64_t product = 1;
  bool has_zero = false;
  for (const std::uint64_t factor : factors) {
    has_zero = has_zero || factor == 0;
    if (factor == 0) continue;
    if (product > (std::numeric_limits<std::uint64_t>::max)() / factor) return std::nullopt;
    product *= factor;
  }
  return has_zero ? 0 : product;
}
constexpr std::optional<std::uint64_t> checked_product(std::initializer_list<std::uint64_t> factors) {
  return checked_product(std::span(factors.begin(), factors.size()));
}

}  // namespace ple::inline PLE_ABI
