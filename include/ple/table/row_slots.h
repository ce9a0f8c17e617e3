// SPDX-License-Identifier: Apache-2.0
// Which slot of a cache has which row, and which slot is reused next.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/table/row_store.h"

namespace ple::inline PLE_ABI {

/// Room for a row, and the state of the read that fills it.
struct RowSlot {
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  enum class State : std::uint8_t { free, reading, ready, failed };

  RowId id = 0;
  State state = State::free;
  std::uint32_t pins = 0;
  std::uint32_t same_bucket = none;           // next slot of the hash bucket
  std::uint32_t before = none, after = none;  // links: order of use; `after` also in the free list
  std::size_t begin = 0;                      // where the row begins in the slot
  std::size_t bytes = 0;                      // read so far
  int tries = 0;
  int error = 0;  // 0: the file ended too early
};

/// A slot is free, being read, pinned or kept. Nobody uses a kept row at the moment. At most `kept_most` are kept; the
/// least recently used goes first.
class RowSlots {
 public:
  using State = RowSlot::State;
  static constexpr std::uint32_t none = RowSlot::none;

  /// Makes `count` slots, all free.
  void reset(std::size_t count, std::size_t kept_most) {
    kept_most_ = kept_most;
    slots_.assign(count, RowSlot{});
    buckets_.assign(std::bit_ceil(2 * count), none);
    free_ = oldest_ = newest_ = none;
    kept_ = 0;
    for (std::size_t i = count; i-- > 0;) put_free(static_cast<std::uint32_t>(i));
  }

  std::size_t size() const { return slots_.size(); }
  std::size_t kept_most() const { return kept_most_; }
  RowSlot& operator[](std::uint32_t slot) { return slots_[slot]; }
  const RowSlot& operator[](std::uint32_t slot) const { return slots_[slot]; }

  /// The slot that has the row, or none.
  std::uint32_t find(RowId id) const {
    std::uint32_t slot = buckets_[bucket_of(id)];
    while (slot != none && slots_[slot].id != id) slot = slots_[slot].same_bucket;
    return slot;
  }

  bool can_take() const { return free_ != none || kept_ > 0; }
  /// Takes a slot for a row that has none; the caller must read the row.
  std::uint32_t take(RowId id) {
    if (free_ == none) evict();
    const std::uint32_t slot = std::exchange(free_, slots_[free_].after);
    slots_[slot] = {};
    slots_[slot].id = id;
    slots_[slot].state = State::reading;
    slots_[slot].same_bucket = std::exchange(buckets_[bucket_of(id)], slot);
    return slot;
  }

  void arrived(std::uint32_t slot) {
    slots_[slot].state = State::ready;
    if (slots_[slot].pins == 0) keep(slot);
  }
  /// The read failed: find() no longer finds the row.
  void failed(std::uint32_t slot, int error) {
    slots_[slot].state = State::failed;
    slots_[slot].error = error;
    remove_from_index(slot);
    if (slots_[slot].pins == 0) put_free(slot);
  }

  /// Makes a kept row the most recently used one.
  void touch(std::uint32_t slot) {
    if (!in_kept(slot)) return;
    unlink(slot);
    link(slot);
  }
  void pin(std::uint32_t slot) {
    if (in_kept(slot)) unlink(slot);
    ++slots_[slot].pins;
  }
  void unpin(std::uint32_t slot) {
    if (--slots_[slot].pins > 0) return;
    if (slots_[slot].state == State::ready) keep(slot);
    if (slots_[slot].state == State::failed) put_free(slot);
  }

  /// How many of the rows have no slot. Nothing if there is no room for these while the others are pinned.
  std::optional<std::size_t> missing(std::span<const RowId> ids) const {
    std::size_t missing = 0, available = kept_;
    for (const RowId id : ids) {
      const std::uint32_t slot = find(id);
      missing += slot == none;
      available -= slot != none && in_kept(slot);
    }
    for (std::uint32_t slot = free_; slot != none && available < missing; slot = slots_[slot].after) ++available;
    return available >= missing ? std::optional(missing) : std::nullopt;
  }

 private:
  std::size_t bucket_of(RowId id) const {
    return static_cast<std::size_t>((id * 0x9e3779b97f4a7c15u) >> 32) & (buckets_.size() - 1);
  }
  void remove_from_index(std::uint32_t slot) {
    std::uint32_t* link = &buckets_[bucket_of(slots_[slot].id)];
    while (*link != slot) link = &slots_[*link].same_bucket;
    *link = slots_[slot].same_bucket;
  }
  void put_free(std::uint32_t slot) {
    slots_[slot].state = State::free;
    slots_[slot].after = std::exchange(free_, slot);
  }
  bool in_kept(std::uint32_t slot) const { return slots_[slot].state == State::ready && slots_[slot].pins == 0; }
  void link(std::uint32_t slot) {
    slots_[slot].before = newest_;
    slots_[slot].after = none;
    (newest_ == none ? oldest_ : slots_[newest_].after) = slot;
    newest_ = slot;
    ++kept_;
  }
  void unlink(std::uint32_t slot) {
    const RowSlot& s = slots_[slot];
    (s.before == none ? oldest_ : slots_[s.before].after) = s.after;
    (s.after == none ? newest_ : slots_[s.after].before) = s.before;
    --kept_;
  }
  void keep(std::uint32_t slot) {
    link(slot);
    if (kept_ > kept_most_) evict();
  }
  void evict() {
    const std::uint32_t slot = oldest_;
    unlink(slot);
    remove_from_index(slot);
    put_free(slot);
  }

  std::vector<RowSlot> slots_;
  std::vector<std::uint32_t> buckets_;
  std::uint32_t free_ = none, oldest_ = none, newest_ = none;
  std::size_t kept_ = 0, kept_most_ = 0;
};

}  // namespace ple::inline PLE_ABI
