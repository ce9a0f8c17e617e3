// SPDX-License-Identifier: Apache-2.0
// Some rows and columns of a matrix, without reading the others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/memory.h"
#include "ple/dtype/dtype.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// `count` rows or columns from `begin` on.
struct IndexRange {
  std::uint64_t begin = 0, count = 0;
};

/// Copies bytes from `begin` on: from the tensor's file, if any, to touch no mapped page. Errors: ErrorCode::file.
inline void read_tensor(const Tensor& tensor, std::uint64_t begin, std::span<std::byte> into) {
  if (tensor.map) return tensor.map->file()->read_all(tensor.offset + begin, into, tensor.name);
  std::memcpy(into.data(), tensor.data + begin, into.size());
}

class TensorPart {
 public:
  /// Runs ascend and lie in the matrix, one or more each. Errors: ErrorCode::shape for columns not in whole blocks.
  TensorPart(Tensor whole, const std::vector<IndexRange>& rows, const std::vector<IndexRange>& columns)
      : whole_(std::move(whole)), rows_(joined(rows)), columns_(joined(columns)) {
    const std::size_t block = values_per_block(whole_.dtype);
    for (const IndexRange& run : columns_) {
      if (run.begin % block == 0 && run.count % block == 0) continue;
      fail(ErrorCode::shape, whole_.file, ": ", whole_.name, ": ", run.count, " columns from ", run.begin,
           " on are wanted in ", name_of(whole_.dtype), ", expected multiples of ", block);
    }
  }

  const Tensor& whole() const { return whole_; }
  std::vector<std::uint64_t> shape() const { return {total(rows_), total(columns_)}; }
  std::uint64_t bytes() const { return total(rows_) * bytes_in_row(total(columns_)); }

  /// Calls f(begin, size) for each range of the whole tensor's bytes that the part consists of, in order.
  template <class F>
  void for_each_range(F&& f) const {
    const std::uint64_t row = bytes_in_row(whole_.shape[1]);
    for (const IndexRange& rows : rows_) {
      if (total(columns_) == whole_.shape[1]) {
        f(rows.begin * row, rows.count * row);
        continue;
      }
      for (std::uint64_t r = rows.begin; r < rows.begin + rows.count; ++r) {
        for (const IndexRange& run : columns_) f(r * row + bytes_in_row(run.begin), bytes_in_row(run.count));
      }
    }
  }

  /// In place if it is contiguous there, else a copy in memory. Errors: ErrorCode::file.
  Tensor tensor() const {
    Tensor part = whole_;
    part.shape = shape();
    part.bytes = static_cast<std::size_t>(bytes());
    if (rows_.size() == 1 && total(columns_) == whole_.shape[1]) {
      const std::uint64_t begin = rows_[0].begin * bytes_in_row(whole_.shape[1]);
      part.data += begin;
      part.offset += begin;
      return part;
    }
    auto values = std::make_shared<AlignedVector<std::byte>>(part.bytes);
    std::size_t at = 0;
    for_each_range([&](std::uint64_t begin, std::uint64_t size) {
      read_tensor(whole_, begin, std::span(*values).subspan(at, static_cast<std::size_t>(size)));
      at += static_cast<std::size_t>(size);
    });
    part.data = values->data();
    part.owner = std::move(values);
    part.map = nullptr;
    part.offset = 0;
    return part;
  }

 private:
  static std::uint64_t total(const std::vector<IndexRange>& runs) {
    std::uint64_t count = 0;
    for (const IndexRange& run : runs) count += run.count;
    return count;
  }

  /// Merges adjacent runs.
  static std::vector<IndexRange> joined(const std::vector<IndexRange>& runs) {
    std::vector<IndexRange> fewer;
    for (const IndexRange& run : runs) {
      if (!fewer.empty() && fewer.back().begin + fewer.back().count == run.begin) {
        fewer.back().count += run.count;
      } else {
        fewer.push_back(run);
      }
    }
    return fewer;
  }

  std::uint64_t bytes_in_row(std::uint64_t values) const {
    return bytes_of(whole_.dtype, static_cast<std::size_t>(values));
  }

  Tensor whole_;
  std::vector<IndexRange> rows_, columns_;
};

}  // namespace ple::inline PLE_ABI
