// SPDX-License-Identifier: Apache-2.0
// Rows read on demand into a cache of fixed size, independent of file mappings and the system's page cache.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/fork_guard.h"
#include "ple/core/io_uring.h"
#include "ple/core/memory.h"
#include "ple/core/read_queue.h"
#include "ple/table/row_slots.h"
#include "ple/table/row_store.h"

namespace ple::inline PLE_ABI {

/// Where the rows are in a file.
struct RowFile {
  std::string name;  ///< for messages
  std::uint64_t offset = 0;
  std::size_t row_bytes = 0;
  bool direct = false;  ///< whether reads must be aligned to InputFile::direct_alignment
};

/// A cache of rows. `budget` bytes keep rows that nobody uses at the moment; the least recently used makes room for a
/// new one. `in_flight` more rows have room while they are read or decoded, so a budget of 0 works: it keeps nothing.
/// Errors of requested reads are dropped: the rows are read again when pinned. After fork(), the child has an empty
/// cache in the same memory, and its own queue: rows must not be pinned across fork().
class StreamedRows final : public RowStore {
 public:
  static constexpr std::size_t in_flight = 64;
  static constexpr std::size_t landing = in_flight;  ///< Old name; goes with the next version.

  StreamedRows(RowFile file, std::unique_ptr<ReadQueue> queue, std::size_t budget)
      : file_(std::move(file)), queue_(std::move(queue)) {
    const std::size_t grain = file_.direct ? InputFile::direct_alignment : alignment;
    slot_bytes_ = (file_.row_bytes + grain - 1) / grain * grain + (file_.direct ? grain : 0);
    const std::size_t kept = budget / slot_bytes_, count = kept + in_flight;
    if (count >= RowSlots::none) {
      fail(ErrorCode::argument, file_.name, ": a budget of ", budget, " bytes for rows of ", file_.row_bytes,
           " bytes has too many rows, expected less than ", RowSlots::none);
    }
    memory_.resize(count * slot_bytes_ + grain);
    use_huge_pages(memory_);
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    base_ = memory_.data() + ((address + grain - 1) / grain * grain - address);
    forget_all(count, kept);
  }
  StreamedRows(const StreamedRows&) = delete;
  StreamedRows& operator=(const StreamedRows&) = delete;
  ~StreamedRows() override {
    if (!guard_.same_process()) {
      abandon_locks();
      return;
    }
    while (in_flight_ > 0) in_flight_ -= queue_->wait(done_);  // reads in flight write to our memory
  }

  std::size_t bytes() const { return slots_.size() * slot_bytes_; }  ///< most bytes that the cache takes
  const char* engine() const { return queue_->name(); }

  std::size_t most_at_once() const override { return (std::min)(slots_.size(), queue_->depth()); }

  void request(std::span<const RowId> ids) noexcept override {
    try {
      renew_after_fork();
    } catch (...) {
      return;  // pin() will report the error
    }
    const std::lock_guard lock(locks_->mutex);
    // Only half of what is kept: rows must not evict each other before they are used.
    const std::size_t most = (std::min)(ids.size(), slots_.kept_most() / 2);
    for (std::size_t i = 0; i < most; ++i) {
      if (const std::uint32_t slot = slots_.find(ids[i]); slot != none) {
        slots_.touch(slot);
        continue;
      }
      if (in_flight_ + batch_.size() >= queue_->depth() || !slots_.can_take()) break;
      ask(ids[i]);
    }
    submit();
  }

  void pin(std::span<const RowId> ids, std::span<const std::byte*> rows) override {
    renew_after_fork();
    std::unique_lock lock(locks_->mutex);
    bool waited = false;
    while (!has_room(ids)) {
      waited = true;
      wait(lock);
    }
    counters_.rows_asked += ids.size();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::uint32_t slot = slots_.find(ids[i]);
      if (slot == none) continue;
      ++counters_.hits;
      slots_.pin(slot);
      rows[i] = memory_of(slot);
    }
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (slots_.find(ids[i]) != none) continue;
      const std::uint32_t slot = ask(ids[i]);
      slots_.pin(slot);
      rows[i] = memory_of(slot);
    }
    submit();
    const auto state_of = [&](std::size_t i) { return slots_[slot_at(rows[i])].state; };
    try {
      for (std::size_t i = 0; i < ids.size(); ++i) {
        while (state_of(i) == State::reading) {
          waited = true;
          wait(lock);
        }
      }
    } catch (...) {
      let_go(rows.first(ids.size()));
      throw;
    }
    counters_.waits += waited;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (state_of(i) == State::failed) give_up(ids, rows, i);
    }
    for (std::size_t i = 0; i < ids.size(); ++i) rows[i] += slots_[slot_at(rows[i])].begin;
  }

  void unpin(std::span<const RowId> ids) noexcept override {
    if (!guard_.same_process()) return;  // this process has pinned nothing
    const std::lock_guard lock(locks_->mutex);
    for (const RowId id : ids) {
      const std::uint32_t slot = slots_.find(id);
      if (slot != none && slots_[slot].pins > 0) slots_.unpin(slot);
    }
    if (waiting_ > 0) locks_->changed.notify_all();
  }

  void hold(std::span<const RowId> ids, std::span<const std::byte*> rows) override { pin(ids, rows); }
  void release(std::span<const RowId> ids) noexcept override { unpin(ids); }

  TableCounters counters() const override {
    if (!guard_.same_process()) return counters_;
    const std::lock_guard lock(locks_->mutex);
    return counters_;
  }

 private:
  static constexpr std::uint32_t none = RowSlots::none;
  static constexpr int most_tries = 8;
  using State = RowSlot::State;

  /// Separate: after fork() the parent's locks can be neither used nor destroyed, since threads may hold them.
  struct Locks {
    std::mutex mutex;
    std::condition_variable changed;
  };
  void abandon_locks() { static_cast<void>(locks_.release()); }

  void renew_after_fork() {
    if (guard_.same_process()) return;
    guard_.renew([this] {
      auto queue = queue_->again();
      auto locks = std::make_unique<Locks>();
      abandon_locks();
      locks_ = std::move(locks);
      queue_ = std::move(queue);
      forget_all(slots_.size(), slots_.kept_most());
    });
  }

  /// Nothing is kept, pinned or in flight.
  void forget_all(std::size_t slots, std::size_t kept_most) {
    slots_.reset(slots, kept_most);
    in_flight_ = waiting_ = 0;
    collecting_ = false;
    batch_.clear();
    batch_.reserve(queue_->depth());
  }

  std::byte* memory_of(std::uint32_t slot) { return base_ + slot * slot_bytes_; }
  std::uint32_t slot_at(const std::byte* row) const {
    return static_cast<std::uint32_t>((row - base_) / static_cast<std::ptrdiff_t>(slot_bytes_));
  }

  /// Whether all of `ids` can be pinned now.
  bool has_room(std::span<const RowId> ids) const {
    const auto missing = slots_.missing(ids);
    return missing && in_flight_ + *missing <= queue_->depth();
  }

  /// Takes a slot for a row. The next submit() reads it.
  std::uint32_t ask(RowId id) {
    const std::uint32_t slot = slots_.take(id);
    add_to_batch(slot);
    return slot;
  }

  void add_to_batch(std::uint32_t slot) {
    RowSlot& s = slots_[slot];
    const std::uint64_t at = file_.offset + s.id * file_.row_bytes;
    std::uint64_t begin = at + s.bytes, end = at + file_.row_bytes;
    if (file_.direct) {
      begin = at / InputFile::direct_alignment * InputFile::direct_alignment;
      end = (end + InputFile::direct_alignment - 1) / InputFile::direct_alignment * InputFile::direct_alignment;
      s.begin = static_cast<std::size_t>(at - begin);
      s.bytes = 0;
    }
    batch_.push_back({begin, {memory_of(slot) + s.bytes, static_cast<std::size_t>(end - begin)}, slot});
  }

  void submit() {
    if (batch_.empty()) return;
    in_flight_ += batch_.size();
    queue_->submit(batch_);
    batch_.clear();
  }

  /// Waits for a read or an unpin. One thread waits for reads, the others wait for that thread.
  void wait(std::unique_lock<std::mutex>& lock) {
    if (collecting_ || in_flight_ == 0) {
      ++waiting_;
      locks_->changed.wait(lock);
      --waiting_;
      return;
    }
    collecting_ = true;
    lock.unlock();
    std::size_t count = 0;
    try {
      count = queue_->wait(done_);
    } catch (...) {
      lock.lock();
      collecting_ = false;
      locks_->changed.notify_all();
      throw;
    }
    lock.lock();
    collecting_ = false;
    in_flight_ -= count;
    for (std::size_t i = 0; i < count; ++i) arrived(static_cast<std::uint32_t>(done_[i].tag), done_[i].result);
    submit();  // reads that must be repeated
    if (waiting_ > 0) locks_->changed.notify_all();
  }

  void arrived(std::uint32_t slot, ReadResult result) {
    RowSlot& s = slots_[slot];
    s.bytes += result.bytes;
    counters_.bytes_read += result.bytes;
    // The kernel cancels the reads of a thread that ends, and may be out of memory for a moment.
    const bool again = result.error == ECANCELED || result.error == EAGAIN || result.error == EINTR;
    if (result.error == 0 && s.bytes >= s.begin + file_.row_bytes) {
      slots_.arrived(slot);
    } else if ((again && ++s.tries < most_tries) || (result.error == 0 && result.bytes > 0 && !file_.direct)) {
      add_to_batch(slot);
    } else {
      slots_.failed(slot, result.error);
    }
  }

  void let_go(std::span<const std::byte*> rows) {
    for (const std::byte* row : rows) slots_.unpin(slot_at(row));
    if (waiting_ > 0) locks_->changed.notify_all();
  }

  [[noreturn]] void give_up(std::span<const RowId> ids, std::span<const std::byte*> rows, std::size_t failed) {
    const RowSlot bad = slots_[slot_at(rows[failed])];
    let_go(rows.first(ids.size()));
    const std::uint64_t at = file_.offset + bad.id * file_.row_bytes;
    if (bad.error != 0) {
      fail(ErrorCode::file, file_.name, ": row ", bad.id, " of the PLE table: cannot read ", file_.row_bytes,
           " bytes at byte ", at, ": ", read_error_text(bad.error));
    }
    const std::uint64_t end = at - std::min<std::uint64_t>(bad.begin, at) + bad.bytes;
    fail(ErrorCode::file, file_.name, ": row ", bad.id, " of the PLE table: the file ends at byte ", end, ", expected ",
         at + file_.row_bytes, ": did it shrink while it was open?");
  }

  RowFile file_;
  std::unique_ptr<ReadQueue> queue_;
  std::size_t slot_bytes_ = 0, in_flight_ = 0, waiting_ = 0;
  AlignedVector<std::byte> memory_;
  std::byte* base_ = nullptr;
  RowSlots slots_;
  std::vector<ReadRequest> batch_;
  ReadDone done_[64];
  bool collecting_ = false;
  ForkGuard guard_;
  std::unique_ptr<Locks> locks_ = std::make_unique<Locks>();
  TableCounters counters_;
};

}  // namespace ple::inline PLE_ABI
