// SPDX-License-Identifier: Apache-2.0
// Hashes for tables with untrusted keys.
#pragma once

#include <cstdint>
#include <random>
#include <string_view>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// A hash function drawn at random, so that no file can make all its keys collide. The draw changes only where entries
/// lie. Use the high bits: by them two keys collide as rarely as by chance.
class SecretHash {
 public:
  SecretHash() {
    std::random_device device;
    factor_ = (std::uint64_t{device()} << 32) | device() | 1;
    point_ = device() % (prime / 2);
  }

  /// Multiply-shift (Dietzfelbinger and others 1997).
  std::uint64_t operator()(std::uint64_t number) const { return number * factor_; }

  /// The polynomial whose coefficients are the bytes, at a secret point (Carter and Wegman 1979).
  std::uint64_t operator()(std::string_view text) const {
    std::uint64_t sum = 1;
    for (const char byte : text) {
      const std::uint64_t next = sum * point_ + static_cast<unsigned char>(byte);
      sum = (next & prime) + (next >> 31);  // below 2^32, because the point is below 2^30
    }
    return (*this)(sum);
  }

 private:
  static constexpr std::uint64_t prime = (std::uint64_t{1} << 31) - 1;

  std::uint64_t factor_;
  std::uint64_t point_;
};

}  // namespace ple::inline PLE_ABI
