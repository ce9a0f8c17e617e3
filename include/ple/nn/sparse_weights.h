// SPDX-License-Identifier: Apache-2.0
// Layouts of integer matrices for products that need only some of the rows, or only some of the columns.
#pragma once

#include <cstddef>
#include <memory>

#include "ple/core/arena.h"
#include "ple/core/config.h"
#include "ple/core/parallel.h"
#include "ple/packing/packed_columns.h"
#include "ple/packing/packed_rows.h"
#include "ple/tensor/matrix.h"

namespace ple::inline PLE_ABI {

/// Each row by itself, in about as many bytes as in the file. Copies share values.
class RowPackedWeight {
 public:
  /// Takes the values of an unpacked matrix. Returns false, and does nothing, if its type is not an integer type.
  bool load(const detail::MatrixBase& matrix, Executor& executor, Arena& arena) {
    if (!is_integer_type(matrix.dtype())) return false;
    const Dtype dtype = matrix.dtype();
    rows_.layout = PackedRowLayout(dtype, matrix.cols());
    memory_ = arena.allocate(matrix.rows() * rows_.layout.row_bytes);
    rows_.data = memory_.get();
    parallel_for(executor, matrix.rows(), 1, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t r = begin; r < end; ++r) {
        pack_row(rows_.layout, matrix.data() + r * bytes_of(dtype, matrix.cols()), bytes_of(dtype, values_per_chunk),
                 memory_.get() + r * rows_.layout.row_bytes);
      }
    });
    return true;
  }

  bool loaded() const { return memory_ != nullptr; }
  const PackedRows& rows() const { return rows_; }

 private:
  PackedRows rows_;
  std::shared_ptr<std::byte> memory_;
};

/// Each column by itself. Copies share values. A quant takes 4 or 8 bits: those of 5 or 6 take more than in the file.
class ColumnPackedWeight {
 public:
  /// As RowPackedWeight::load.
  bool load(const detail::MatrixBase& matrix, Executor& executor, Arena& arena) {
    if (!is_integer_type(matrix.dtype())) return false;
    columns_.layout = PackedColumnLayout(matrix.dtype(), matrix.rows(), matrix.cols());
    memory_ = arena.allocate(columns_.layout.bytes());
    columns_.data = memory_.get();
    const std::size_t chunks = (matrix.cols() + values_per_chunk - 1) / values_per_chunk;
    parallel_for(executor, chunks, 1, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t c = begin; c < end; ++c) {
        pack_columns(columns_.layout, c, matrix.data(), bytes_of(matrix.dtype(), matrix.cols()), matrix.rows(),
                     bytes_of(matrix.dtype(), values_per_chunk), memory_.get());
      }
    });
    return true;
  }

  bool loaded() const { return memory_ != nullptr; }
  const PackedColumns& columns() const { return columns_; }

 private:
  PackedColumns columns_;
  std::shared_ptr<std::byte> memory_;
};

}  // namespace ple::inline PLE_ABI
