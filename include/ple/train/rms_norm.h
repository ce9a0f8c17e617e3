// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/parallel.h"
#include "ple/nn/rms_norm.h"
#include "ple/tensor/rows.h"
#include "ple/train/linear.h"
#include "ple/train/parameters.h"

namespace ple::inline PLE_ABI {

/// One RmsNorm of a model. `trained` is null where its weight is frozen.
template <GradientBackend B>
struct TrainedNorm {
  const RmsNorm<B>& norm;
  TrainedValues* trained;

  bool trains() const { return trained != nullptr; }

  /// y may be x.
  void forward(const Context& context, Rows x, Rows y) const {
    for_each_row(context, x.rows, x.cols, [&](std::size_t t) {
      for (std::size_t i = 0; i < x.cols; i += width()) {
        B::rms_norm(x.row(t) + i, weight(), width(), norm.epsilon, y.row(t) + i);
      }
    });
  }

  /// dx from dy, which it may be. dw += sum over rows, and over groups of a row, of dy x / rms(x).
  void backward(const Context& context, Rows x, Rows dy, Rows dx) const {
    if (trained != nullptr) {  // in the order of rows: the same bits on any number of threads
      std::vector<float> normed(width());
      for (std::size_t t = 0; t < x.rows; ++t) {
        for (std::size_t i = 0; i < x.cols; i += width()) {
          B::rms_norm(x.row(t) + i, nullptr, width(), norm.epsilon, normed.data());
          B::multiply(dy.row(t) + i, width(), normed.data());
          B::add(normed.data(), width(), trained->gradient.data());
        }
      }
    }
    for_each_row(context, x.rows, x.cols, [&](std::size_t t) {
      for (std::size_t i = 0; i < x.cols; i += width()) {
        B::rms_norm_backward(const_cast<const float*>(x.row(t)) + i, weight(), width(), norm.epsilon,
                             const_cast<const float*>(dy.row(t)) + i, dx.row(t) + i);
      }
    });
  }

 private:
  std::size_t width() const { return norm.weight.size(); }
  const float* weight() const { return trained != nullptr ? trained->values.data() : norm.weight.data(); }
};

}  // namespace ple::inline PLE_ABI
