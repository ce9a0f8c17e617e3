// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ple/core/config.h"
#include "ple/text/secret_hash.h"

namespace ple::inline PLE_ABI {

/// A flat hash map from an ordered pair of 32-bit numbers to a small value. One array, no node per entry: merges, of
/// which Gemma has half a million, take 16 bytes a slot. The pair (2^32-1, 2^32-1) cannot be a key.
template <class Value>
class PairMap {
 public:
  void reserve(std::size_t count) {
    std::size_t capacity = slots_.empty() ? 16 : slots_.size();
    while (capacity / 2 < count) capacity *= 2;
    if (capacity > slots_.size()) rehash(capacity);
  }

  /// The value of (a, b), created as Value{} if absent.
  Value& operator()(std::uint32_t a, std::uint32_t b) {
    reserve(size_ + 1);
    Slot& slot = slots_[index_of(key_of(a, b))];
    if (slot.key == empty_key) {
      slot.key = key_of(a, b);
      ++size_;
    }
    return slot.value;
  }

  /// The value of (a, b), or null.
  const Value* find(std::uint32_t a, std::uint32_t b) const {
    if (slots_.empty()) return nullptr;
    const Slot& slot = slots_[index_of(key_of(a, b))];
    return slot.key == empty_key ? nullptr : &slot.value;
  }

  std::size_t size() const { return size_; }

 private:
  static constexpr std::uint64_t empty_key = ~std::uint64_t{0};

  struct Slot {
    std::uint64_t key = empty_key;
    Value value{};
  };

  static std::uint64_t key_of(std::uint32_t a, std::uint32_t b) { return (std::uint64_t{a} << 32) | b; }

  // The slot of `key`, or the empty one where it belongs; at most half of the slots are in use.
  std::size_t index_of(std::uint64_t key) const {
    auto i = static_cast<std::size_t>(hash_(key) >> (std::countl_zero(std::uint64_t{slots_.size()}) + 1));
    while (slots_[i].key != empty_key && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    return i;
  }

  void rehash(std::size_t capacity) {
    std::vector<Slot> old(capacity);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.key != empty_key) slots_[index_of(slot.key)] = slot;
    }
  }

  SecretHash hash_;
  std::vector<Slot> slots_;  // size: a power of two
  std::size_t size_ = 0;
};

}  // namespace ple::inline PLE_ABI
