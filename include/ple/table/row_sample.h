// SPDX-License-Identifier: Apache-2.0
// A few tokens' rows of a table: small enough to be stored in many ways and tried.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/token.h"
#include "ple/table/encode_row.h"
#include "ple/table/ple_table.h"

namespace ple::inline PLE_ABI {

/// Rows in f32, as stored. This is exact, since every type fits into f32.
template <Backend B>
class RowSample {
 public:
  /// Takes the rows of `tokens`, in any order and with repeats. Errors: ErrorCode::argument for a token outside the
  /// table, and for a folded or cut-down table; file.
  RowSample(const PleTable<Any, B>& table, std::span<const Token> tokens, Executor& executor)
      : layers_(table.layout().layers()), width_(table.width()), scale_(table.scale()) {
    if (table.vocabulary() || table.folded()) {
      fail(ErrorCode::argument, "RowSample: the table is already packed: use the original");
    }
    auto sorted = std::make_shared<std::vector<Token>>(tokens.begin(), tokens.end());
    std::sort(sorted->begin(), sorted->end());
    sorted->erase(std::unique(sorted->begin(), sorted->end()), sorted->end());
    for (const Token token : *sorted) {
      if (token < 0 || static_cast<std::size_t>(token) >= table.rows()) {
        fail(ErrorCode::argument, "RowSample: token ", token, ", expected 0 to ", table.rows() - 1);
      }
    }
    tokens_ = std::move(sorted);
    const RowsRequest requests[] = {{&values_, tokens_->size(), layers_ * width_}};
    memory_ = allocate_rows(requests);
    RowSelection selection = table.make_selection(tokens_->size());
    table.select(*tokens_, tokens_->size(), 0, selection);
    table.request(selection);
    table.gather_stored(executor, selection, 0, 0, layers_, values_);
  }

  RowSample(RowSample&&) = default;  // a copy's values would be the original's
  RowSample& operator=(RowSample&&) = default;

  std::span<const Token> tokens() const { return *tokens_; }  ///< those that have rows, ascending

  /// The same rows, with those layers that `wanted` names taken from a sample of another table, of the same tokens.
  /// Errors: ErrorCode::argument for another shape.
  RowSample with_layers(const RowSample& other, const std::vector<bool>& wanted) const {
    if (*other.tokens_ != *tokens_ || other.layers_ != layers_ || other.width_ != width_ || wanted.size() != layers_) {
      fail(ErrorCode::argument, "RowSample::with_layers: a sample of ", other.tokens_->size(), " rows of ",
           other.layers_, " x ", other.width_, " values, expected ", tokens_->size(), " of ", layers_, " x ", width_);
    }
    RowSample mixed(*this, MakeCopy{});
    for (std::size_t r = 0; r < values_.rows; ++r) {
      for (std::size_t l = 0; l < layers_; ++l) {
        const float* from = (wanted[l] ? other : *this).values_.row(r) + l * width_;
        std::copy_n(from, width_, mixed.values_.row(r) + l * width_);
      }
    }
    return mixed;
  }

  /// A table of these rows, each layer in its type or, without one, pruned: as from a file that pack_table wrote. Ask
  /// only for tokens of the sample. Errors: those of RowLayout.
  PleTable<Any, B> table(const std::vector<std::optional<Dtype>>& dtypes) const {
    const RowLayout layout(dtypes, width_);
    auto bytes = std::make_shared<AlignedVector<std::byte>>(tokens_->size() * layout.row_bytes());
    for (std::size_t r = 0; r < values_.rows; ++r)
      encode_row(layout, values_.row(r), bytes->data() + r * layout.row_bytes());
    TableSource source;
    source.tensor.file = "memory";
    source.tensor.name = "rows of a sample";
    source.tensor.data = bytes->data();
    source.tensor.bytes = bytes->size();
    source.tensor.owner = std::move(bytes);
    source.layout = layout;
    source.rows = tokens_->size();
    source.scale = scale_;
    PleTable<Any, B> table(source.rows, layers_, width_);
    table.load(source, Resident{});
    table.set_keys({.ids = [known = tokens_](std::span<const Token> window, std::span<RowId> ids) {
      const auto found = std::lower_bound(known->begin(), known->end(), window.back());
      ids[0] = static_cast<RowId>(found - known->begin());
    }});
    return table;
  }

 private:
  struct MakeCopy {};
  RowSample(const RowSample& from, MakeCopy /*with values of its own, not filled in*/)
      : layers_(from.layers_), width_(from.width_), scale_(from.scale_), tokens_(from.tokens_) {
    const RowsRequest requests[] = {{&values_, tokens_->size(), layers_ * width_}};
    memory_ = allocate_rows(requests);
  }

  std::size_t layers_, width_;
  float scale_;
  std::shared_ptr<const std::vector<Token>> tokens_;
  Rows values_;  // [tokens, layers * width]
  AlignedVector<float> memory_;
};

}  // namespace ple::inline PLE_ABI
