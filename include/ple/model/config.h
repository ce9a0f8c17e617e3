// SPDX-License-Identifier: Apache-2.0
// What the configurations of all model families have in common.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"

namespace ple::inline PLE_ABI {

enum class AttentionType : std::uint8_t { sliding, full };

struct RopeConfig {
  double theta = 10000;  ///< base of the wavelengths
  double fraction = 1;   ///< share of the pairs that turn ('partial_rotary_factor'); the others keep their angle
  double factor = 1;     ///< every frequency is divided by it
};

namespace detail {

/// The layer whose K and V layer `l` attends over: itself, or for a shared layer the last non-shared one of its type.
template <class Layer>
std::optional<std::size_t> kv_layer(const std::vector<Layer>& layers, std::size_t first_shared, std::size_t l) {
  if (l < first_shared) return l;
  for (std::size_t i = first_shared; i-- > 0;) {
    if (layers[i].attention == layers[l].attention) return i;
  }
  return std::nullopt;
}

/// Refuses numbers that are out of range; `source` names the file for the message. Errors: ErrorCode::config.
struct ConfigChecks {
  const std::string& source;

  void number(const std::string& field, double value, double least, double most) const {
    if (!(value >= least && value <= most)) {  // not a number is out of range too
      fail(ErrorCode::config, source, ": ", field, " is ", value, ", expected ", least, " to ", most);
    }
  }
  void count(const std::string& field, std::size_t value, std::size_t least, std::size_t most) const {
    if (value < least || value > most) {
      fail(ErrorCode::config, source, ": ", field, " is ", value, ", expected ", least, " to ", most);
    }
  }
  void token(const std::string& field, std::int32_t value, std::size_t limit) const {
    if (value < 0 || static_cast<std::size_t>(value) >= limit) {
      fail(ErrorCode::config, source, ": ", field, " is ", value, ", expected 0 to ", limit - 1);
    }
  }
  void rope(AttentionType type, const RopeConfig& rope) const {
    const std::string name = type == AttentionType::full ? "full_attention" : "sliding_attention";
    number("rope_parameters." + name + ".rope_theta", rope.theta, 1, 1e15);
    number("rope_parameters." + name + ".partial_rotary_factor", rope.fraction, 0, 1);
    number("rope_parameters." + name + ".factor", rope.factor, 1e-6, 1e6);
  }
  /// What layer `at` names: a head's width, and K/V heads that the query heads share evenly.
  void heads(const std::string& at, std::size_t head_dim, std::size_t kv_heads, std::size_t query_heads) const {
    count(at + "head_dim", head_dim, 2, 65536);
    if (head_dim % 2 != 0)
      fail(ErrorCode::config, source, ": ", at, "head_dim is ", head_dim, ", expected an even number");
    count(at + "num_key_value_heads", kv_heads, 1, query_heads);
    if (query_heads % kv_heads != 0) {
      fail(ErrorCode::config, source, ": ", at, "num_key_value_heads is ", kv_heads,
           ", expected a divisor of num_attention_heads, which is ", query_heads);
    }
  }
  [[noreturn]] void no_donor(const std::string& at, std::size_t first_shared) const {
    fail(ErrorCode::config, source, ": ", at,
         "shares the K and V of an earlier layer of its attention type, but none of the ", first_shared,
         " layers before the shared ones has that type");
  }

  static constexpr std::size_t most_tokens = std::size_t{1} << 30, most_width = std::size_t{1} << 20,
                               most_layers = 4096;
};

}  // namespace detail

}  // namespace ple::inline PLE_ABI
