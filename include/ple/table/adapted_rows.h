// SPDX-License-Identifier: Apache-2.0
// Rows of a PLE table that adapters replace, for one session: the table itself stays as it is, wherever it lives.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/table/row_layout.h"

namespace ple::inline PLE_ABI {

/// Rows of a PLE table that were trained.
struct TrainedRows {
  std::vector<RowId> ids = {};       ///< ascending, each once
  std::size_t width = 0;             ///< values of a row: layers * p
  AlignedVector<float> values = {};  ///< [ids, width]: whole new rows, unscaled as in the table

  bool empty() const { return ids.empty(); }
  /// Errors: ErrorCode::argument, in the name of `source`, if they are not as said above.
  void check(const std::string& source) const {
    const auto refuse = [&](const auto&... why) { fail(ErrorCode::argument, source, ": rows: ", why...); };
    if (!empty() && (width == 0 || values.size() / width != ids.size() || values.size() % width != 0)) {
      refuse(values.size(), " values, expected ", ids.size(), " rows of ", width);
    }
    for (std::size_t i = 1; i < ids.size(); ++i) {
      if (ids[i - 1] >= ids[i]) refuse("id ", ids[i], " follows ", ids[i - 1], ", expected ascending ids");
    }
  }
  const float* row(std::size_t i) const { return values.data() + i * width; }
  /// nullptr: the row was not trained.
  const float* find(RowId id) const {
    const auto found = std::lower_bound(ids.begin(), ids.end(), id);
    if (found == ids.end() || *found != id) return nullptr;
    return row(static_cast<std::size_t>(found - ids.begin()));
  }
};

/// The trained rows of one session's adapters. A row E becomes E + sum of factor * (E' - E) over the adapters with a
/// row E' for it; exactly E' for one of factor 1.
class AdaptedRows {
 public:
  /// `rows` must outlive this.
  void add(const TrainedRows& rows, float factor) {
    if (!rows.empty() && factor != 0) all_.push_back({&rows, factor});
  }
  bool empty() const { return all_.empty(); }

  /// out: `count` values of row `id` from value `first` on, times `scale`. Allocates nothing.
  template <class B>
  void apply(RowId id, std::size_t first, std::size_t count, float scale, float* out) const {
    float kept = 1;  // of E
    bool found = false;
    for (const auto& [rows, factor] : all_) {
      if (rows->find(id) == nullptr) continue;
      kept -= factor;
      found = true;
    }
    if (!found) return;
    bool assign = kept == 0;
    if (!assign) B::scale(kept, count, out);
    for (const auto& [rows, factor] : all_) {
      const float* values = rows->find(id);
      if (values == nullptr) continue;
      values += first;
      const float by = factor * scale;
      if (assign) {
        for (std::size_t i = 0; i < count; ++i) out[i] = by * values[i];
      } else {
        for (std::size_t i = 0; i < count; ++i) out[i] += by * values[i];
      }
      assign = false;
    }
  }

 private:
  struct Entry {
    const TrainedRows* rows;
    float factor;
  };
  std::vector<Entry> all_;
};

}  // namespace ple::inline PLE_ABI
