// SPDX-License-Identifier: Apache-2.0
// Unpacks bits into bytes, eight at a time, in plain C++.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// Eight bytes, little-endian; and two or four.
inline std::uint64_t load8(const void* p) {
  std::uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
inline std::uint32_t load4(const void* p) {
  std::uint32_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
inline std::uint16_t load2(const void* p) {
  std::uint16_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}
inline void store8(std::uint64_t word, std::uint8_t* p) { std::memcpy(p, &word, sizeof word); }
inline void store4(std::uint32_t word, std::uint8_t* p) { std::memcpy(p, &word, sizeof word); }
constexpr std::uint64_t all8(std::uint64_t byte) { return byte * 0x0101010101010101u; }

/// 32 quants of 4 bits: the 16 lower halves, then the 16 upper ones.
inline void nibbles(const std::uint8_t* pairs, std::uint8_t* out) {
  for (std::size_t i = 0; i < 16; i += 8) {
    const std::uint64_t word = load8(pairs + i);
    store8(word & all8(15), out + i);
    store8(word >> 4 & all8(15), out + 16 + i);
  }
}

/// Spreads bit i of `bits` to byte i, as 0 or 1.
inline std::uint64_t spread(std::uint8_t bits) {
  const std::uint64_t mine = all8(bits) & 0x8040201008040201u;
  return (mine + 0x00406070787c7e7fu) >> 7 & all8(1);  // the sum carries a set bit to the top of its byte
}

/// Spreads bits 2 i, 2 i + 1 to byte i.
constexpr std::uint64_t spread_pairs(std::uint64_t bits) {
  bits = (bits | bits << 24) & 0x000000ff000000ffu;
  bits = (bits | bits << 12) & 0x000f000f000f000fu;
  return (bits | bits << 6) & 0x0303030303030303u;
}

/// Spreads bits 4 i to 4 i + 3 to byte i.
constexpr std::uint32_t spread_nibbles(std::uint32_t bits) {
  bits = (bits | bits << 8) & 0x00ff00ffu;
  return (bits | bits << 4) & 0x0f0f0f0fu;
}

/// ORs 256 quants of 2 bits, stored as in q2_k and shifted left by `up`, into `out`.
inline void add_two_bits(const std::uint8_t* quads, int up, std::uint8_t* out) {
  for (std::size_t i = 0; i < 256; i += 8) {
    const std::uint64_t two = load8(quads + i / 128 * 32 + i % 32) >> (i % 128 / 32 * 2) & all8(3);
    store8(load8(out + i) | two << up, out + i);
  }
}

}  // namespace detail
}  // namespace ple::inline PLE_ABI
