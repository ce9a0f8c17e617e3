// SPDX-License-Identifier: Apache-2.0
// Where the rows of a table live. All stores give the same bytes; they differ in memory, speed and faults.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/mapped_file.h"
#include "ple/core/memory.h"
#include "ple/table/row_layout.h"

namespace ple::inline PLE_ABI {

/// What a table has done since it was opened.
struct TableCounters {
  std::uint64_t rows_asked = 0;  ///< distinct rows of each pass or other gather
  std::uint64_t hits = 0;        ///< of them, those already in memory or on their way
  std::uint64_t bytes_read = 0;  ///< by the table itself; what a mapping reads, only the system knows
  std::uint64_t waits = 0;       ///< times a thread had to wait for a read
};

/// Rows by their id. Safe for several threads at once.
class RowStore {
 public:
  virtual ~RowStore() = default;

  /// Most rows that can be pinned together.
  virtual std::size_t most_at_once() const { return (std::numeric_limits<std::size_t>::max)(); }

  /// A hint: these rows, ascending and distinct, will be pinned soon. Never waits, never throws.
  virtual void request(std::span<const RowId> ids) noexcept { static_cast<void>(ids); }

  /// Writes the addresses of these rows, ascending and distinct, to `rows`. They are valid until `unpin`.
  /// Errors: ErrorCode::file, and then none is pinned.
  virtual void pin(std::span<const RowId> ids, std::span<const std::byte*> rows) { hold(ids, rows); }
  virtual void unpin(std::span<const RowId> ids) noexcept { release(ids); }

  /// Old names of the two, under which a store may still define them; they go with the next version.
  virtual void hold(std::span<const RowId> /*ids*/, std::span<const std::byte*> /*rows*/) {
    fail(ErrorCode::not_supported, "RowStore: the store does not define pin()");
  }
  virtual void release(std::span<const RowId> /*ids*/) noexcept {}

  virtual TableCounters counters() const = 0;
};

/// Pins rows for as long as it lives.
class PinnedRows {
 public:
  /// As RowStore::pin.
  PinnedRows(RowStore& store, std::span<const RowId> ids, std::span<const std::byte*> rows) : store_(store), ids_(ids) {
    store_.pin(ids_, rows);
  }
  PinnedRows(const PinnedRows&) = delete;
  PinnedRows& operator=(const PinnedRows&) = delete;
  ~PinnedRows() { store_.unpin(ids_); }

 private:
  RowStore& store_;
  std::span<const RowId> ids_;
};
using HeldRows = PinnedRows;  ///< Old name; goes with the next version.

/// All rows in memory that `owner` keeps.
class MemoryRows final : public RowStore {
 public:
  MemoryRows(const std::byte* rows, std::size_t row_bytes, std::shared_ptr<const void> owner)
      : rows_(rows), row_bytes_(row_bytes), owner_(std::move(owner)) {}

  void pin(std::span<const RowId> ids, std::span<const std::byte*> rows) override {
    for (std::size_t i = 0; i < ids.size(); ++i) rows[i] = rows_ + ids[i] * row_bytes_;
    asked_.fetch_add(ids.size(), std::memory_order_relaxed);
  }
  void hold(std::span<const RowId> ids, std::span<const std::byte*> rows) override { pin(ids, rows); }
  TableCounters counters() const override { return {asked_, asked_, 0, 0}; }

 private:
  const std::byte* rows_;
  std::size_t row_bytes_;
  std::shared_ptr<const void> owner_;
  std::atomic<std::uint64_t> asked_{0};
};

/// All rows in a mapped file. Before it touches a row it asks the system to load it: a file that shrank or cannot be
/// read is then an error, not a crash. With a budget, it pins few rows at a time, and drops the process's pages of the
/// table when they may exceed the budget. These stay in the system's page cache.
class MappedRows final : public RowStore {
 public:
  MappedRows(std::shared_ptr<const MappedFile> map, std::uint64_t offset, std::size_t row_bytes, std::uint64_t rows,
             std::size_t budget)
      : map_(std::move(map)), offset_(offset), row_bytes_(row_bytes), rows_(rows), budget_(budget) {}

  std::size_t most_at_once() const override {
    return budget_ == 0 ? RowStore::most_at_once()
                        : static_cast<std::size_t>(std::max<std::uint64_t>(1, budget_ / most_per_row()));
  }

  void request(std::span<const RowId> ids) noexcept override {
    for (const RowId id : ids) map_->will_need(offset_ + id * row_bytes_, row_bytes_);
  }

  void pin(std::span<const RowId> ids, std::span<const std::byte*> rows) override {
    if (ids.empty()) return;
    map_->check_size();
    make_room(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const std::uint64_t at = offset_ + ids[i] * row_bytes_;
      if (const int error = map_->populate(at, row_bytes_)) {
        fail(ErrorCode::file, map_->file()->name(), ": row ", ids[i],
             " of the PLE table: cannot read: ", os::text_of(error));
      }
      rows[i] = map_->bytes().data() + at;
    }
    asked_.fetch_add(ids.size(), std::memory_order_relaxed);
  }

  void hold(std::span<const RowId> ids, std::span<const std::byte*> rows) override { pin(ids, rows); }
  TableCounters counters() const override { return {asked_, 0, 0, 0}; }

 private:
  // When a page is touched, the system may map all around it that its page cache has in one piece: up to a huge page.
  static constexpr std::uint64_t around = std::uint64_t{2} << 20;
  std::uint64_t most_per_row() const { return (row_bytes_ / around + 2) * around; }

  void make_room(std::size_t count) {
    if (budget_ == 0) return;
    const std::uint64_t most = count * most_per_row();
    if (touched_.fetch_add(most, std::memory_order_relaxed) + most <= budget_) return;
    // Rows of other sessions that are dropped too come back when touched.
    touched_.store(most, std::memory_order_relaxed);
    map_->drop(offset_, rows_ * row_bytes_);
  }

  std::shared_ptr<const MappedFile> map_;
  std::uint64_t offset_;
  std::size_t row_bytes_;
  std::uint64_t rows_;
  std::uint64_t budget_;
  std::atomic<std::uint64_t> asked_{0}, touched_{0};
};

}  // namespace ple::inline PLE_ABI
