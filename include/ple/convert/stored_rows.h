// SPDX-License-Identifier: Apache-2.0
// A tensor of any size in another number type, a few rows at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/core/parallel.h"
#include "ple/dtype/dtype.h"
#include "ple/simd/decode.h"
#include "ple/simd/scalar.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// Sums over a tensor's values and over the errors of storing them.
struct StoredSums {
  double squares = 0;         ///< of the values
  double squared_errors = 0;  ///< of stored value minus value
};

namespace detail {

class StoredRows {
 public:
  StoredRows(const Tensor& from, Dtype to, Executor& executor)
      : from_(from),
        to_(to),
        cols_(static_cast<std::size_t>(from.shape.back())),
        rows_(rows_of(from)),
        executor_(executor),
        chunk_(std::clamp<std::size_t>(chunk_values / cols_, 1, rows_)),
        row_bytes_(bytes_of(to, cols_)),
        encoded_(chunk_ * row_bytes_),
        scratch_(tasks(executor) * 2 * cols_),
        aligned_(tasks(executor) * bytes_of(from.dtype, cols_)),
        sums_(chunk_) {}

  std::size_t rows() const { return rows_; }

  /// A chunk of rows from `begin` on. Errors: ErrorCode::dtype for values that the type cannot hold; file if it shrank.
  std::span<const std::byte> next(std::size_t begin, StoredSums& total) {
    if (from_.map) from_.map->check_size();
    const std::size_t count = (std::min)(chunk_, rows_ - begin);
    parallel_for(executor_, count, 1, [&](std::size_t first, std::size_t last, std::size_t part) {
      for (std::size_t r = first; r < last; ++r) sums_[r] = store(begin + r, r, part);
    });
    // In the rows' order, so that the sums do not depend on the number of threads.
    for (std::size_t r = 0; r < count; ++r) {
      if (!std::isfinite(sums_[r].squared_errors)) {
        fail(ErrorCode::dtype, from_.file, ": ", from_.name, ": row ", begin + r,
             " has values that are not finite, or are not once stored as ", name_of(to_));
      }
      total.squares += sums_[r].squares;
      total.squared_errors += sums_[r].squared_errors;
    }
    const std::size_t from_row = bytes_of(from_.dtype, cols_);
    if (from_.map) from_.map->drop(from_.offset + begin * from_row, count * from_row);
    return std::as_bytes(std::span(encoded_)).first(count * row_bytes_);
  }

 private:
  /// All but the last dimension.
  static std::size_t rows_of(const Tensor& tensor) {
    std::size_t rows = 1;
    for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) rows *= static_cast<std::size_t>(tensor.shape[i]);
    return rows;
  }

  static constexpr std::size_t chunk_values = std::size_t{1} << 21;

  StoredSums store(std::size_t row, std::size_t in_chunk, std::size_t part) {
    const std::size_t size = bytes_of(from_.dtype, cols_);
    const std::byte* from = from_.data + row * size;
    std::byte* to = encoded_.data() + in_chunk * row_bytes_;
    float *values = scratch_.data() + part * 2 * cols_, *stored = values + cols_;
    if (reinterpret_cast<std::uintptr_t>(from) % alignment_of(from_.dtype) != 0) {  // a table may be unaligned
      std::byte* aligned = aligned_.data() + part * size;
      std::memcpy(aligned, from, size);
      from = aligned;
    }
    decode<Scalar>(from_.dtype, from, cols_, values);
    if (to_ == from_.dtype) {
      std::memcpy(to, from, size);
    } else {
      with_dtype(to_, [&]<class T>() {
        if constexpr (EncodableType<T>) {
          constexpr std::size_t n = DtypeTraits<T>::values_per_block;
          T* blocks = reinterpret_cast<T*>(to);
          for (std::size_t b = 0; b < cols_ / n; ++b) DtypeTraits<T>::encode(values + b * n, blocks[b]);
        }
      });
    }
    decode<Scalar>(to_, to, cols_, stored);
    StoredSums sums;
    for (std::size_t i = 0; i < cols_; ++i) {
      const double value = static_cast<double>(values[i]), error = static_cast<double>(stored[i]) - value;
      sums.squares += value * value;
      sums.squared_errors += error * error;
    }
    return sums;
  }

  const Tensor& from_;
  Dtype to_;
  std::size_t cols_, rows_;
  Executor& executor_;
  std::size_t chunk_, row_bytes_;
  AlignedVector<std::byte> encoded_;
  AlignedVector<float> scratch_;  // for each part: a row's values, then what was stored of them
  AlignedVector<std::byte> aligned_;
  std::vector<StoredSums> sums_;
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
