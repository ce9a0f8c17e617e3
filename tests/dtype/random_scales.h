// SPDX-License-Identifier: Apache-2.0
// Blocks of random bits need scales that are finite.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <random>

#include "ple/dtype/dtype.h"

namespace ple::testing {

/// Gives a block scales of about 0.01: of random size, or random bits that mean it.
template <class T, class Generator>
void set_scales(T& block, Generator& generator) {
  std::normal_distribution<float> normal(0, 1);
  const auto tiny = [&] { return to_f16(0.01f * normal(generator)); };
  if constexpr (requires { block.scale; }) block.scale = tiny();
  if constexpr (requires { block.min_scale; }) block.min_scale = tiny();
  if constexpr (requires { block.minimum; }) block.minimum = tiny();
  if constexpr (std::same_as<T, iq1_m>) {
    const std::uint16_t bits = tiny().bits;
    for (std::size_t i = 0; i < 4; ++i) {
      std::uint8_t& byte = block.scales[2 * i + 1];
      byte = static_cast<std::uint8_t>((byte & 15) | (bits >> (4 * i) & 15) << 4);
    }
  }
  if constexpr (std::same_as<T, mxfp4>) block.exponent = static_cast<std::uint8_t>(117 + generator() % 5);
  if constexpr (std::same_as<T, nvfp4>) {  // up to 2^-6; the top bit means nothing
    for (std::uint8_t& scale : block.scales) scale &= 0x97;
  }
}

}  // namespace ple::testing
