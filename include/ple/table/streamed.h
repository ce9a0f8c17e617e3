// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "ple/core/config.h"
#include "ple/core/read_queue.h"
#include "ple/table/streamed_rows.h"
#include "ple/table/table_storage.h"

namespace ple::inline PLE_ABI {

/// Rows are read on demand into a cache of fixed size: see StreamedRows.
struct Streamed {
  std::size_t budget = std::size_t{64} << 20;  ///< bytes of rows kept for later
  bool direct = false;                         ///< bypasses the operating system's page cache
  ReadEngine engine = ReadEngine::best;

  std::shared_ptr<RowStore> open(const TableSource& source) const {
    const Tensor& tensor = source.tensor;
    const auto file = direct ? tensor.map->file()->direct() : tensor.map->file();
    file->expect_random_reads();
    return std::make_shared<StreamedRows>(RowFile{file->name(), tensor.offset, source.layout.row_bytes(), direct},
                                          make_read_queue(file, engine), budget);
  }
};

}  // namespace ple::inline PLE_ABI
