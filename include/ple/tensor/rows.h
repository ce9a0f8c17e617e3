// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <limits>
#include <new>
#include <span>

#include "ple/core/checked_product.h"
#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/core/os.h"

namespace ple::inline PLE_ABI {

/// Borrowed rows of f32: activations. Row r starts at data + r * stride.
struct Rows {
  float* data = nullptr;
  std::size_t rows = 0, cols = 0, stride = 0;

  float* row(std::size_t r) const { return data + r * stride; }
  /// `count` rows from row `first` on.
  Rows slice(std::size_t first, std::size_t count) const { return {data + first * stride, count, cols, stride}; }
  /// The same rows, `count` columns from column `first` on.
  Rows columns(std::size_t first, std::size_t count) const { return {data + first, rows, count, stride}; }
};

/// Rows to allocate: [count, cols].
struct RowsRequest {
  Rows* rows;
  std::size_t count, cols;
};

/// Allocates all requests at once and points them into the memory. Rows start on cache lines. Errors: std::bad_alloc.
inline AlignedVector<float> allocate_rows(std::span<const RowsRequest> requests) {
  constexpr std::size_t line = alignment / sizeof(float);
  constexpr std::size_t most = (std::numeric_limits<std::ptrdiff_t>::max)() / sizeof(float);
  const auto stride = [](const RowsRequest& request) { return (request.cols + line - 1) / line * line; };
  std::size_t total = 0;
  for (const RowsRequest& request : requests) {
    const auto values = checked_product({request.count, stride(request)});
    if (request.cols > most || !values || *values > most - total) throw std::bad_array_new_length();
    total += static_cast<std::size_t>(*values);
  }
  AlignedVector<float> memory(total);
  use_huge_pages(std::as_writable_bytes(std::span(memory)));
  float* next = memory.data();
  for (const RowsRequest& request : requests) {
    *request.rows = {next, request.count, request.cols, stride(request)};
    next += request.count * stride(request);
  }
  return memory;
}

/// The same, with a cache line between rows. Products that read several rows at once are faster so: rows of whole
/// pages, which many widths make, would compete for the same few sets of the caches.
inline AlignedVector<float> allocate_spaced_rows(std::span<RowsRequest> requests) {
  constexpr std::size_t line = alignment / sizeof(float);
  for (RowsRequest& request : requests) request.cols += request.cols > 0 ? line : 0;
  AlignedVector<float> memory = allocate_rows(requests);
  for (const RowsRequest& request : requests) request.rows->cols -= request.cols > 0 ? line : 0;
  return memory;
}

}  // namespace ple::inline PLE_ABI
