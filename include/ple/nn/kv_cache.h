// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "ple/core/memory.h"

namespace ple {

/// A run of cached positions that lie one behind the other in memory.
struct CacheRun {
  std::size_t slot = 0, count = 0;
};

/// Keys and values of one layer, [kv_heads, slots, head_dim] each, in f32. Position i lies in slot i % slots: a sliding
/// layer keeps a ring, a full layer has a slot for every position of the context. Memory is taken as it is first used.
class KvCache {
 public:
  KvCache() = default;
  KvCache(std::size_t kv_heads, std::size_t head_dim, std::size_t slots)
      : head_dim_(head_dim), slots_(slots), keys_(kv_heads * slots * head_dim), values_(kv_heads * slots * head_dim) {}

  std::size_t slots() const { return slots_; }
  std::size_t bytes() const { return (keys_.size() + values_.size()) * sizeof(float); }

  /// What bytes() of such a cache is, without making one.
  static std::uint64_t bytes(std::uint64_t kv_heads, std::uint64_t head_dim, std::uint64_t slots) {
    return 2 * kv_heads * head_dim * slots * sizeof(float);
  }

  const float* key(std::size_t head, std::size_t slot) const {
    return keys_.data() + (head * slots_ + slot) * head_dim_;
  }
  const float* value(std::size_t head, std::size_t slot) const {
    return values_.data() + (head * slots_ + slot) * head_dim_;
  }

  void write(std::size_t head, std::size_t position, const float* key, const float* value) {
    const std::size_t at = (head * slots_ + position % slots_) * head_dim_;
    std::copy_n(key, head_dim_, keys_.data() + at);
    std::copy_n(value, head_dim_, values_.data() + at);
  }

  /// The type that values are kept in.
  static constexpr std::string_view type() { return "f32"; }

  /// Positions [first, first + count) as bytes, whatever slots they lie in: calls f(span<std::byte>) with runs of them,
  /// keys of a head oldest first, then its values, head by head.
  template <class F>
  void for_each_cached(std::size_t first, std::size_t count, F&& f) {
    const auto [older, newer] = runs(first, count);
    for (std::size_t head = 0; head * slots_ * head_dim_ < keys_.size(); ++head) {
      for (auto* values : {&keys_, &values_}) {
        for (const CacheRun& run : {older, newer}) {
          f(std::as_writable_bytes(
              std::span(*values).subspan((head * slots_ + run.slot) * head_dim_, run.count * head_dim_)));
        }
      }
    }
  }

  /// Where positions [first, first + count) lie, oldest first: the second run is empty unless the ring wraps between
  /// them.
  struct Runs {
    CacheRun older, newer;
  };
  Runs runs(std::size_t first, std::size_t count) const {
    const std::size_t slot = first % slots_, before_end = std::min(count, slots_ - slot);
    return {{slot, before_end}, {0, count - before_end}};
  }

 private:
  std::size_t head_dim_ = 0, slots_ = 0;
  AlignedVector<float> keys_, values_;
};

}  // namespace ple
