// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "ple/core/arena.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/simd/decode.h"

namespace ple::inline PLE_ABI {

/// Consecutive positions that are contiguous in the cache.
struct CacheRun {
  std::size_t first = 0, slot = 0, count = 0;  ///< first position, its slot, number of positions
};

/// Keys and values of one layer, [kv_heads, slots, head_dim] each, rounded to `dtype` when written. Position i has slot
/// i % slots: a sliding layer is a ring, a full layer has a slot per position. Memory is taken on first use.
class KvCache {
 public:
  KvCache() = default;

  /// Allocates from the arena. Errors: those of check.
  KvCache(std::size_t kv_heads, std::size_t head_dim, std::size_t slots, Dtype dtype, Arena& arena)
      : head_dim_(head_dim), slots_(slots), dtype_(dtype) {
    check(head_dim, dtype);
    const std::size_t half = kv_heads * slots * row_bytes();
    memory_ = arena.allocate(2 * half);
    keys_ = {memory_.get(), half};
    values_ = {memory_.get() + half, half};
  }
  KvCache(KvCache&&) = default;  // no copies: they would write to the same memory
  KvCache& operator=(KvCache&&) = default;

  /// Errors: ErrorCode::argument for a dtype other than f32, bf16, f16 and q8_0, or heads that are not whole blocks.
  static void check(std::size_t head_dim, Dtype dtype) {
    if (dtype != Dtype::f32 && dtype != Dtype::bf16 && dtype != Dtype::f16 && dtype != Dtype::q8_0) {
      fail(ErrorCode::argument, "kv_cache_dtype is ", name_of(dtype), ", expected f32, bf16, f16 or q8_0");
    }
    if (head_dim % values_per_block(dtype) != 0) {
      fail(ErrorCode::argument, "kv_cache_dtype is ", name_of(dtype), ", in blocks of ", values_per_block(dtype),
           " values, but head_dim is ", head_dim);
    }
  }

  std::size_t slots() const { return slots_; }
  std::size_t bytes() const { return keys_.size() + values_.size(); }

  /// The bytes() of such a cache, without making one. Errors: those of check.
  static std::uint64_t bytes(std::uint64_t kv_heads, std::uint64_t head_dim, std::uint64_t slots, Dtype dtype) {
    check(head_dim, dtype);
    return 2 * kv_heads * slots * bytes_of(dtype, head_dim);
  }

  void write(std::size_t head, std::size_t position, const float* key, const float* value) {
    const std::size_t at = offset(head, position % slots_);
    encode(key, keys_.data() + at);
    encode(value, values_.data() + at);
  }

  /// Calls f with the keys of a run, [count, head_dim], in place as f32, bf16 or f16; q8_0 is decoded to `workspace`.
  template <Backend B, class F>
  void with_keys(std::size_t head, const CacheRun& run, float* workspace, F&& f) const {
    with_rows<B>(keys_.data() + offset(head, run.slot), run.count, workspace, f);
  }
  template <Backend B, class F>
  void with_values(std::size_t head, const CacheRun& run, float* workspace, F&& f) const {
    with_rows<B>(values_.data() + offset(head, run.slot), run.count, workspace, f);
  }

  /// The oldest position still cached after all positions below `written` were written.
  std::size_t oldest(std::size_t written) const { return written - (std::min)(written, slots_); }

  /// Calls f(run) for positions [begin, end), oldest first, cut where the ring wraps and into runs of at most `most`.
  template <class F>
  void for_each_run(std::size_t begin, std::size_t end, std::size_t most, F&& f) const {
    while (begin < end) {
      const std::size_t slot = begin % slots_, count = (std::min)({end - begin, most, slots_ - slot});
      f(CacheRun{begin, slot, count});
      begin += count;
    }
  }

  Dtype dtype() const { return dtype_; }

  /// Calls f(span<std::byte>) with the bytes of positions [first, first + count), whatever their slots. Order: for each
  /// head its keys, oldest first, then its values.
  template <class F>
  void for_each_cached(std::size_t first, std::size_t count, F&& f) {
    for (std::size_t head = 0; offset(head, 0) < keys_.size(); ++head) {
      for (const std::span<std::byte> values : {keys_, values_}) {
        for_each_run(first, first + count, slots_,
                     [&](const CacheRun& run) { f(values.subspan(offset(head, run.slot), run.count * row_bytes())); });
      }
    }
  }

  /// Copies positions [first, first + count) from a cache of the same shape, to the same slots.
  void copy_positions(const KvCache& other, std::size_t first, std::size_t count) {
    for_each_cached(first, count, [&](std::span<std::byte> bytes) {
      std::copy_n(other.memory_.get() + (bytes.data() - memory_.get()), bytes.size(), bytes.data());
    });
  }

 private:
  std::size_t row_bytes() const { return bytes_of(dtype_, head_dim_); }
  std::size_t offset(std::size_t head, std::size_t slot) const { return (head * slots_ + slot) * row_bytes(); }

  template <Backend B, class F>
  void with_rows(const std::byte* rows, std::size_t count, float* workspace, F&& f) const {
    switch (dtype_) {
      case Dtype::f32: return f(reinterpret_cast<const float*>(rows));
      case Dtype::bf16: return f(reinterpret_cast<const bf16*>(rows));
      case Dtype::f16: return f(reinterpret_cast<const f16*>(rows));
      default: break;
    }
    decode<B, q8_0>(dtype_, rows, count * head_dim_, workspace);
    f(static_cast<const float*>(workspace));
  }

  void encode(const float* values, std::byte* row) const {
    switch (dtype_) {
      case Dtype::f32: return encode<f32>(values, row);
      case Dtype::bf16: return encode<bf16>(values, row);
      case Dtype::f16: return encode<f16>(values, row);
      default: return encode<q8_0>(values, row);
    }
  }
  template <EncodableType T>
  void encode(const float* values, std::byte* row) const {
    constexpr std::size_t n = DtypeTraits<T>::values_per_block;
    T* blocks = reinterpret_cast<T*>(row);
    for (std::size_t i = 0; i < head_dim_ / n; ++i) DtypeTraits<T>::encode(values + i * n, blocks[i]);
  }

  std::size_t head_dim_ = 0, slots_ = 0;
  Dtype dtype_ = Dtype::f32;
  std::shared_ptr<std::byte> memory_;
  std::span<std::byte> keys_, values_;
};

}  // namespace ple::inline PLE_ABI
