// SPDX-License-Identifier: Apache-2.0
// Opt-in, as it needs Eigen: in how many dimensions a depth of a PLE table lives.
#pragma once

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/table/second_moments.h"

namespace ple::inline PLE_ABI {

/// Eigenvalues and eigenvectors of a depth's second moments. The first k eigenvectors are the k directions that keep
/// the most of its rows' energy (the sum of their squares): Eckart and Young 1936.
struct Spectrum {
  std::vector<double> values;   ///< mean energy of a row along each eigenvector, descending, none negative
  std::vector<double> vectors;  ///< [p, p]: row i is the i-th eigenvector, of length 1

  std::size_t width() const { return values.size(); }
  double energy() const { return left_out(0); }                                      ///< of a row, mean
  double rms() const { return std::sqrt(energy() / static_cast<double>(width())); }  ///< of a value

  /// The share of the energy in the first k dimensions.
  double share(std::size_t k) const { return energy() > 0 ? 1 - left_out(k) / energy() : 1; }

  /// Root mean square of what the first k dimensions leave out, relative to that of the values.
  double error(std::size_t k) const { return energy() > 0 ? std::sqrt(left_out(k) / energy()) : 0; }

  /// The fewest dimensions with at most this relative error.
  std::size_t rank_for(double most) const {
    std::size_t k = 0;
    while (k < width() && error(k) > most) ++k;
    return k;
  }

  /// (sum of eigenvalues)^2 / sum of their squares: p if all are equal, 1 if one has everything.
  double participation_ratio() const {
    double squares = 0;
    for (const double value : values) squares += value * value;
    return squares > 0 ? energy() * energy() / squares : 0;
  }

  /// The first `rank` eigenvectors, [rank, p], in f32.
  AlignedVector<float> basis(std::size_t rank) const {
    AlignedVector<float> basis(rank * width());
    std::transform(vectors.begin(), vectors.begin() + static_cast<std::ptrdiff_t>(basis.size()), basis.begin(),
                   [](double x) { return static_cast<float>(x); });
    return basis;
  }

 private:
  double left_out(std::size_t k) const {  // from the smallest on: they are added before they would be lost
    double sum = 0;
    for (std::size_t i = width(); i > k; --i) sum += values[i - 1];
    return sum;
  }
};

/// Of one depth. Errors: ErrorCode::dtype for values that are not finite or whose squares are not.
inline Spectrum spectrum(const SecondMoments& moments, std::size_t depth) {
  const std::size_t p = moments.width();
  const auto index = [](std::size_t i) { return static_cast<Eigen::Index>(i); };
  Eigen::MatrixXd matrix(index(p), index(p));
  for (std::size_t i = 0; i < p; ++i) {
    for (std::size_t j = 0; j < p; ++j) matrix(index(i), index(j)) = moments.at(depth, i, j);
  }
  if (!matrix.allFinite()) {
    fail(ErrorCode::dtype, "the PLE table has values in depth ", depth, " that are not finite, or too large to square");
  }
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(matrix);
  if (solver.info() != Eigen::Success) {
    fail(ErrorCode::dtype, "the eigenvalues of the PLE table's depth ", depth, " cannot be found");
  }
  Spectrum spectrum;
  for (std::size_t i = 0; i < p; ++i) {
    const auto column = index(p - 1 - i);  // Eigen's ascend
    const Eigen::VectorXd vector = solver.eigenvectors().col(column);
    // Both signs are right; files should not depend on which one a solver finds.
    Eigen::Index largest = 0;
    vector.cwiseAbs().maxCoeff(&largest);
    const double sign = vector(largest) < 0 ? -1 : 1;
    spectrum.values.push_back((std::max)(0.0, solver.eigenvalues()(column)));
    for (std::size_t j = 0; j < p; ++j) spectrum.vectors.push_back(sign * vector(index(j)));
  }
  return spectrum;
}

}  // namespace ple::inline PLE_ABI
