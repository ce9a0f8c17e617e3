// SPDX-License-Identifier: Apache-2.0
// Where a PLE table lives. Each choice is a type that opens a table; a program compiles only those it names.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/dtype/dtype.h"
#include "ple/table/row_keys.h"
#include "ple/table/row_layout.h"
#include "ple/table/row_store.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// A table in a file.
struct TableSource {
  Tensor tensor = {};  ///< its bytes: rows of layout.row_bytes(), one after another
  RowLayout layout = {};
  std::uint64_t rows = 0;
  float scale = 1;                       ///< multiplies values when they are used
  bool folded = false;                   ///< rows are complete per-layer inputs of text, not only their identity part
  std::vector<float> pad_identity = {};  ///< folded: the identity part of positions without text
  std::shared_ptr<const VocabularyMap> vocabulary = nullptr;  ///< if only some tokens have rows
  std::vector<Tensor> bases = {};  ///< of the layers with a rank: F32, [rank, p]. load() copies them; empty: no ranks
};

/// A checkpoint's table, [rows, layers * p]. The reference multiplies it by sqrt(p), rounded to the tensor's type.
inline TableSource stored_table(const Tensor& tensor, std::size_t layers) {
  const std::size_t width = static_cast<std::size_t>(tensor.shape[1]) / layers;
  return {.tensor = tensor,
          .layout = RowLayout(layers, width, tensor.dtype),
          .rows = tensor.shape[0],
          .scale = rounded_to(tensor.dtype, std::sqrt(static_cast<float>(width)))};
}

/// The table stays in its file, mapped. The operating system decides how long touched pages stay in memory.
struct Mapped {
  std::size_t budget = 0;  ///< most bytes of such pages that the process keeps; 0: no limit

  std::shared_ptr<RowStore> open(const TableSource& source) const {
    const Tensor& tensor = source.tensor;
    return std::make_shared<MappedRows>(tensor.map, tensor.offset, source.layout.row_bytes(), source.rows, budget);
  }
};

/// The table is read into memory when it is opened.
struct Resident {
  std::shared_ptr<RowStore> open(const TableSource& source) const {
    const Tensor& tensor = source.tensor;
    auto values = std::make_shared<AlignedVector<std::byte>>(tensor.bytes);
    constexpr std::size_t piece = std::size_t{8} << 20;
    for (std::size_t at = 0; at < tensor.bytes; at += piece) {
      const std::span<std::byte> part(values->data() + at, (std::min)(piece, tensor.bytes - at));
      tensor.map->file()->read_all(tensor.offset + at, part, tensor.name);
    }
    const std::byte* data = values->data();
    return std::make_shared<MemoryRows>(data, source.layout.row_bytes(), std::move(values));
  }
};

/// No table: every layer skips its PLE step. To measure what the table costs and does.
struct Pruned {
  std::shared_ptr<RowStore> open(const TableSource& /*source*/) const { return nullptr; }
};

/// One of these, Streamed (ple/table/streamed.h), or a type of the caller's: `open` makes the store of a table in a
/// file. The model never overrides the choice.
class TableStorage {
 public:
  template <class Storage>
  requires requires(const Storage& storage, const TableSource& source) {
    { storage.open(source) } -> std::convertible_to<std::shared_ptr<RowStore>>;
  }
  TableStorage(Storage storage)  // NOLINT(google-explicit-constructor): a choice is written as its type
      : prunes_(std::same_as<Storage, Pruned>),
        open_([storage](const TableSource& source) { return storage.open(source); }) {}

  bool prunes() const { return prunes_; }  ///< if so, the checkpoint need not have a table
  /// Errors: those of the choice; ErrorCode::file; not_supported for reads that the system does not have.
  std::shared_ptr<RowStore> open(const TableSource& source) const { return open_(source); }

 private:
  bool prunes_;
  std::function<std::shared_ptr<RowStore>(const TableSource&)> open_;
};

}  // namespace ple::inline PLE_ABI
