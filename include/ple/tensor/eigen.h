// SPDX-License-Identifier: Apache-2.0
// Opt-in: ple's f32 matrices as Eigen's, without a copy.
#pragma once

#include <Eigen/Core>

#include "ple/core/config.h"
#include "ple/tensor/matrix.h"

namespace ple::inline PLE_ABI {

using EigenMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using EigenRows = Eigen::Map<EigenMatrix, Eigen::Unaligned, Eigen::OuterStride<>>;
using EigenWeights = Eigen::Map<const EigenMatrix>;

/// Writable activations; valid as long as the rows.
inline EigenRows as_eigen(Rows rows) {
  const auto index = [](std::size_t n) { return static_cast<Eigen::Index>(n); };
  return {rows.data, index(rows.rows), index(rows.cols), Eigen::OuterStride<>(index(rows.stride))};
}

/// Weights stored as f32; valid as long as the matrix's values.
inline EigenWeights as_eigen(const Matrix<f32>& matrix) {
  return {matrix.view().row(0), static_cast<Eigen::Index>(matrix.rows()), static_cast<Eigen::Index>(matrix.cols())};
}

}  // namespace ple::inline PLE_ABI
