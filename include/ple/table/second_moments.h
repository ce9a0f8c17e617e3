// SPDX-License-Identifier: Apache-2.0
// The second moments of a PLE table's depths, X^T X / rows: all that their spectra depend on.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/core/parallel.h"
#include "ple/simd/scalar_gradients.h"
#include "ple/table/ple_table.h"
#include "ple/table/table_scan.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// Of every depth, [p, p], in f64. Takes 8 p^2 bytes a depth, whatever the number of rows.
class SecondMoments {
 public:
  SecondMoments(std::size_t layers, std::size_t width)
      : layers_(layers), width_(width), sums_(layers * width * width, 0.0) {}

  std::size_t layers() const { return layers_; }
  std::size_t width() const { return width_; }
  std::uint64_t rows() const { return rows_; }

  /// Element [i, j] of a depth's X^T X / rows. It is not centred: a table's products see no mean.
  double at(std::size_t depth, std::size_t i, std::size_t j) const {
    const double sum = sums_[(depth * width_ + (std::max)(i, j)) * width_ + (std::min)(i, j)];
    return rows_ == 0 ? 0 : sum / static_cast<double>(rows_);
  }

  /// Adds rows, [rows, layers * p]. The bits depend on how rows are cut into calls, not on the number of threads.
  /// B: a backend with gemm(). Errors: ErrorCode::argument for rows of another length.
  template <class B>
  void add(Executor& executor, Rows rows) {
    if (rows.cols != layers_ * width_) {
      fail(ErrorCode::argument, "SecondMoments: rows of ", rows.cols, " values, expected ", layers_ * width_);
    }
    // Products are symmetric: of each strip of rows of X^T X, only the columns up to the diagonal are computed.
    const std::size_t strips = (width_ + strip - 1) / strip;
    AlignedVector<float> workspace(tasks(executor) * strip * width_);
    parallel_for(executor, layers_ * strips, 1, [&](std::size_t begin, std::size_t end, std::size_t task) {
      for (std::size_t i = begin; i < end; ++i) {
        add_strip<B>(rows, i / strips, i % strips * strip, workspace.data() + task * strip * width_);
      }
    });
    rows_ += rows.rows;
  }

 private:
  // f32 sums of so few rows lose less than a millionth; they are added up in f64.
  static constexpr std::size_t strip = 64, chunk = 128;

  template <class B>
  void add_strip(Rows rows, std::size_t depth, std::size_t first, float* products) {
    const std::size_t count = (std::min)(strip, width_ - first), cols = first + count;
    for (std::size_t r = 0; r < rows.rows; r += chunk) {
      const float* x = rows.row(r) + depth * width_;
      std::fill_n(products, count * cols, 0.0f);
      B::gemm(Strided{x + first, 1, rows.stride}, Strided{x, rows.stride, 1}, count, cols,
              (std::min)(chunk, rows.rows - r), products, cols);
      for (std::size_t i = 0; i < count; ++i) {
        double* sums = sums_.data() + (depth * width_ + first + i) * width_;
        for (std::size_t j = 0; j <= first + i; ++j) sums[j] += static_cast<double>(products[i * cols + j]);
      }
    }
  }

  std::size_t layers_, width_;
  std::uint64_t rows_ = 0;
  std::vector<double> sums_;  // [layers, p, p], up to the diagonal
};

/// Of all rows of a table, as stored. Calls progress(done, total). Errors: those of scan_table; what progress throws.
template <Backend B, class F>
SecondMoments scan_second_moments(const TableSource& source, Executor& executor, F&& progress) {
  SecondMoments moments(source.layout.layers(), source.layout.width());
  scan_table<B>(source, executor, [&](std::uint64_t first, Rows rows) {
    moments.add<B>(executor, rows);
    progress(first + rows.rows, source.rows);
  });
  return moments;
}

/// Of `count` rows, evenly spread: a quick look at a large table. Errors: ErrorCode::argument for 0 or more than it
/// has; those of PleTable.
template <Backend B, class F>
SecondMoments sample_second_moments(const TableSource& source, std::uint64_t count, Executor& executor, F&& progress) {
  if (count == 0 || count > source.rows) {
    fail(ErrorCode::argument, "a sample of ", count, " rows, expected 1 to ", source.rows);
  }
  const std::size_t layers = source.layout.layers(), width = source.layout.width();
  SecondMoments moments(layers, width);
  TableSource rows_only = source;  // its rows are what is asked for, not tokens
  rows_only.vocabulary = nullptr;
  rows_only.folded = false;
  PleTable<Any, B> table(static_cast<std::size_t>(source.rows), layers, width);
  table.load(rows_only, Mapped{});
  constexpr std::size_t most = 256;
  RowSelection selection = table.make_selection(most);
  std::vector<Token> ids;
  Rows values;
  const RowsRequest requests[] = {{&values, most, layers * width}};
  const AlignedVector<float> memory = allocate_rows(requests);
  for (std::uint64_t done = 0; done < count; done += ids.size()) {
    ids.clear();
    for (std::uint64_t i = done; i < (std::min)(count, done + most); ++i) {
      ids.push_back(static_cast<Token>(i * (source.rows / count) + i * (source.rows % count) / count));
    }
    const Rows out = values.slice(0, ids.size());
    table.select(ids, ids.size(), 0, selection);
    table.request(selection);
    table.gather_stored(executor, selection, 0, 0, layers, out);
    moments.add<B>(executor, out);
    progress(done + ids.size(), count);
  }
  return moments;
}

}  // namespace ple::inline PLE_ABI
