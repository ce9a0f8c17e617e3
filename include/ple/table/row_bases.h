// SPDX-License-Identifier: Apache-2.0
// The bases of a table of a lower rank: a layer's stored numbers times its basis are its values.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/core/number_text.h"
#include "ple/table/row_layout.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// Of each layer: the basis of its rows, [rank, p], or none. Tables share them.
using RowBases = std::vector<std::shared_ptr<const AlignedVector<float>>>;

/// Copies tensors[l] for each layer l that has a rank: F32, [rank, p], at any address. Errors: ErrorCode::shape, which
/// names `table`; malformed for a value that is not finite.
inline RowBases read_bases(const std::vector<Tensor>& tensors, const RowLayout& layout, const Tensor& table) {
  if (layout.sum_of_ranks() == 0) return {};
  RowBases bases(layout.layers());
  for (std::size_t l = 0; l < layout.layers(); ++l) {
    const std::size_t rank = layout.rank(l), p = layout.width();
    if (rank == 0) continue;
    const Tensor& tensor = l < tensors.size() ? tensors[l] : Tensor();
    if (tensor.shape != std::vector<std::uint64_t>{rank, p} || tensor.bytes != rank * p * sizeof(float)) {
      fail(ErrorCode::shape, table.file, ": ", table.name, ": layer ", l, ": its basis has the shape ",
           shape_text(tensor.shape), ", expected ", shape_text({rank, p}));
    }
    AlignedVector<float> values(rank * p);
    std::memcpy(values.data(), tensor.data, tensor.bytes);
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (std::isfinite(values[i])) continue;
      fail(ErrorCode::malformed, tensor.file, ": ", tensor.name, ": layer ", l, ": value ", i % p, " of row ", i / p,
           " is ", number_text(values[i]), ", expected a finite number");
    }
    bases[l] = std::make_shared<const AlignedVector<float>>(std::move(values));
  }
  return bases;
}

}  // namespace ple::inline PLE_ABI
