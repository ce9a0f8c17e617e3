// SPDX-License-Identifier: Apache-2.0
// A PLE table that cannot be read when a test says so.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include "ple/core/error.h"
#include "ple/table/table_storage.h"

namespace ple::testing {

/// Counts the times that rows are asked for, and fails at one of them.
struct ReadFault {
  std::size_t count = 0, fails_at = 0;  // from 1; 0: never

  /// The n-th time from now on.
  void fail_at(std::size_t n) {
    count = 0;
    fails_at = n;
  }
};

/// Resident, with faults.
struct FailingStorage {
  std::shared_ptr<ReadFault> fault;

  std::shared_ptr<RowStore> open(const TableSource& source) const {
    struct Rows final : RowStore {
      std::shared_ptr<RowStore> rows;
      std::shared_ptr<ReadFault> fault;
      Rows(std::shared_ptr<RowStore> r, std::shared_ptr<ReadFault> f) : rows(std::move(r)), fault(std::move(f)) {}
      void pin(std::span<const RowId> ids, std::span<const std::byte*> addresses) override {
        if (++fault->count == fault->fails_at) fail(ErrorCode::file, "a row cannot be read");
        rows->pin(ids, addresses);
      }
      void unpin(std::span<const RowId> ids) noexcept override { rows->unpin(ids); }
      TableCounters counters() const override { return rows->counters(); }
    };
    return std::make_shared<Rows>(Resident{}.open(source), fault);
  }
};

}  // namespace ple::testing
