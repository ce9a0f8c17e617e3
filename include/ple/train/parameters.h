// SPDX-License-Identifier: Apache-2.0
// What training changes: adapters, norms, the matrices of PLE steps, and rows of the PLE table. All else is frozen.
#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/model/parameter.h"
#include "ple/table/row_layout.h"

namespace ple::inline PLE_ABI {

/// f32 values in training, with what AdamW keeps of them.
struct TrainedValues {
  AlignedVector<float> values, gradient;
  AlignedVector<float> mean, variance;  ///< moving averages of the gradient and of its square
  std::uint64_t steps = 0;              ///< that changed them

  TrainedValues() = default;
  explicit TrainedValues(std::size_t size) : values(size), gradient(size), mean(size), variance(size) {
    for (AlignedVector<float>* all : {&values, &gradient, &mean, &variance}) std::fill(all->begin(), all->end(), 0.0f);
  }
};

/// An adapter (LoRA) of one matrix, [out, in]: y += scale B (A x).
struct TrainedAdapter {
  std::size_t in = 0, out = 0, rank = 0;
  float scale = 1;  ///< alpha / rank
  TrainedValues a;  ///< [rank, in]
  TrainedValues b;  ///< [rank, out]: B transposed
};

struct TrainedParameters {
  struct Key {
    Parameter parameter;
    std::size_t layer;
    friend auto operator<=>(const Key&, const Key&) = default;
  };

  std::map<Key, TrainedAdapter> adapters;
  std::map<Key, TrainedValues> weights;  ///< norms, and matrices of PLE steps: they replace the model's
  std::map<RowId, TrainedValues> rows;   ///< of the PLE table, unscaled, [layers * p]: those that a text needed
  bool trains_rows = false;
  std::set<RowId> only_rows;  ///< no others are trained; empty: any

  bool trains_row(RowId id) const { return trains_rows && (only_rows.empty() || only_rows.count(id) > 0); }
  TrainedAdapter* adapter(Parameter parameter, std::size_t layer = 0) { return find(adapters, parameter, layer); }
  TrainedValues* weight(Parameter parameter, std::size_t layer = 0) { return find(weights, parameter, layer); }

  /// Calls f(values, is_row) for everything in training, in an order that never changes.
  template <class F>
  void for_each(F&& f) {
    for (auto& entry : adapters) f(entry.second.a, false), f(entry.second.b, false);
    for (auto& entry : weights) f(entry.second, false);
    for (auto& entry : rows) f(entry.second, true);
  }

 private:
  template <class Map>
  static typename Map::mapped_type* find(Map& map, Parameter parameter, std::size_t layer) {
    const auto found = map.find({parameter, layer});
    return found == map.end() ? nullptr : &found->second;
  }
};

}  // namespace ple::inline PLE_ABI
