// SPDX-License-Identifier: Apache-2.0
// GGUF keys and shapes that mean the same in every family.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/formats/gguf_shards.h"
#include "ple/model/config.h"
#include "ple/model/parameter.h"

namespace ple::inline PLE_ABI {

/// Rows of a required matrix.
inline std::size_t gguf_rows(const GgufShards& file, Parameter parameter) {
  const std::string name = gguf_name(parameter, 0);
  const std::vector<std::uint64_t>& shape = file.shape(name);
  if (shape.size() != 2)
    fail(ErrorCode::shape, file.name(), ": ", name, ": shape is ", shape_text(shape), ", expected 2 dimensions");
  return static_cast<std::size_t>(shape[0]);
}

/// Refuses models of other families, and features that are not supported yet. Errors: ErrorCode::not_supported.
template <class Config>
void expect_gguf_model(const GgufShards& file) {
  const GgufMetadata& keys = file.metadata();
  const std::string expected = Config::model_type, prefix = expected + ".";
  const auto refuse = [&](const std::string& key, const std::string& wanted) {
    fail(ErrorCode::not_supported, keys.file(), ": ", key, " is ", GgufMetadata::brief(*keys.find(key)), ", expected ",
         wanted);
  };
  const std::string architecture = "general.architecture";
  const std::string_view found = keys.text(architecture);
  if (found != expected) refuse(architecture, "'" + expected + "'");
  if constexpr (!requires(const Config& config) { config.num_experts; }) {
    if (keys.count(prefix + "expert_count", 0) > 0) refuse(prefix + "expert_count", "0: such models have no experts");
  }
}

/// Refuses scaled positions. `prefix` is the architecture's, with its dot. Errors: ErrorCode::not_supported.
inline void refuse_gguf_rope_scaling(const GgufMetadata& keys, const std::string& prefix) {
  for (const char* name : {"rope.scaling.factor", "rope.scaling.factor_swa"}) {
    const double factor = keys.number(prefix + name, 1);
    if (factor == 0 || factor == 1) continue;
    fail(ErrorCode::not_supported, keys.file(), ": ", prefix, name, " is ",
         GgufMetadata::brief(*keys.find(prefix + name)), ", expected 1: scaled positions are not supported");
  }
}

/// Refuses a file in which all layers share another's K and V. Errors: ErrorCode::config.
inline void check_gguf_layers(const GgufMetadata& keys, const std::string& prefix, std::size_t layers,
                              std::size_t shared) {
  if (shared < layers) return;
  fail(ErrorCode::config, keys.file(), ": ", prefix, "attention.shared_kv_layers is ", shared, ", expected less than ",
       prefix, "block_count, which is ", layers);
}

/// Not a parameter: divisors of the full layers' RoPE frequencies, one for each pair, [head_dim / 2].
inline constexpr std::string_view gguf_rope_factors = "rope_freqs.weight";

namespace detail {

/// turning / pairs, or a little more: the model truncates its product with `pairs`, which may round to below `turning`.
inline double gguf_share(std::size_t turning, std::size_t pairs) {
  const double share = static_cast<double>(turning) / static_cast<double>(pairs);
  const double product = share * static_cast<double>(2 * pairs) / 2;
  return static_cast<std::size_t>(product) < turning ? std::nextafter(share, 2.0) : share;
}

}  // namespace detail

/// The share of the full layers' pairs that rotate: their divisor is 1. The others' is so large that they stand still.
inline RopeConfig gguf_full_rope(const GgufShards& file, double theta, std::size_t head_dim) {
  const Tensor tensor = file.tensor(gguf_rope_factors);
  const std::size_t pairs = head_dim / 2;
  if (tensor.dtype != Dtype::f32 || tensor.shape != std::vector<std::uint64_t>{pairs}) {
    fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": is ", name_of(tensor.dtype), " of shape ",
         shape_text(tensor.shape), ", expected f32 of shape ", shape_text({pairs}),
         ", half the width of a full layer's head");
  }
  const std::span<const float> factors(reinterpret_cast<const float*>(tensor.data), pairs);
  std::size_t turning = 0;
  while (turning < pairs && factors[turning] == 1) ++turning;
  for (std::size_t i = turning; i < pairs; ++i) {
    if (factors[i] < 1e20f || !std::isfinite(factors[i])) {
      fail(ErrorCode::not_supported, tensor.file, ": ", tensor.name, ": entry ", i, " is ", factors[i], " after ",
           turning, " of 1, expected 1 for the pairs that turn, then 1e30");
    }
  }
  return {theta, detail::gguf_share(turning, pairs), 1};
}

}  // namespace ple::inline PLE_ABI
