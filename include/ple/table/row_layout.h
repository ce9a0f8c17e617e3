// SPDX-License-Identifier: Apache-2.0
// A row of a PLE table: one slice per layer, each in its own dtype and of its own rank, or pruned.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/dtype/dtype.h"

namespace ple::inline PLE_ABI {

using RowId = std::uint64_t;  ///< counted from 0; a table may have more than 2^32

/// Where the slice of each layer lies in a stored row.
class RowLayout {
 public:
  /// A layer's p values. Without a dtype the layer is pruned and skips its PLE step. With a rank R its R coefficients
  /// are stored, which times a basis, [R, p], are the values.
  struct Slice {
    std::optional<Dtype> dtype = {};
    std::size_t offset = 0;  ///< bytes from the row's begin
    std::size_t rank = 0;    ///< 0: the values themselves are stored
    friend bool operator==(const Slice&, const Slice&) = default;
  };

  RowLayout() = default;

  /// Rows of checkpoints: every layer in `dtype`, no gaps. Errors: ErrorCode::config if `width` is not whole blocks.
  RowLayout(std::size_t layers, std::size_t width, Dtype dtype)
      : RowLayout(std::vector<std::optional<Dtype>>(layers, dtype), width, 1) {}

  /// One dtype per layer, or none. The row's size is rounded up to a multiple of `row_alignment`. `ranks`: of each
  /// layer, or empty. Errors: ErrorCode::config for ranks above `width`, of pruned layers, or of another number of
  /// layers.
  RowLayout(const std::vector<std::optional<Dtype>>& dtypes, std::size_t width, std::size_t row_alignment = alignment,
            const std::vector<std::size_t>& ranks = {})
      : width_(width) {
    if (!ranks.empty() && ranks.size() != dtypes.size()) {
      fail(ErrorCode::config, "a PLE row: ranks of ", ranks.size(), " layers, expected ", dtypes.size());
    }
    std::size_t end = 0;
    for (std::size_t l = 0; l < dtypes.size(); ++l) {
      const auto& dtype = dtypes[l];
      const std::size_t rank = ranks.empty() ? 0 : ranks[l];
      if (rank > 0) check_rank(l, dtype, rank);
      if (dtype && rank == 0 && width % values_per_block(*dtype) != 0) {
        fail(ErrorCode::config, "a PLE row in ", name_of(*dtype), ": ", width,
             " values per layer, expected a multiple of ", values_per_block(*dtype));
      }
      if (dtype) end = (end + alignment_of(*dtype) - 1) / alignment_of(*dtype) * alignment_of(*dtype);
      slices_.push_back({dtype, end, rank});
      if (dtype) end += bytes_of(*dtype, stored(l));
    }
    bytes_ = (end + row_alignment - 1) / row_alignment * row_alignment;
  }

  std::size_t layers() const { return slices_.size(); }
  std::size_t width() const { return width_; }      ///< p, values per layer
  std::size_t row_bytes() const { return bytes_; }  ///< from one row's begin to the next one's
  const Slice& slice(std::size_t layer) const { return slices_[layer]; }
  bool has(std::size_t layer) const { return slices_[layer].dtype.has_value(); }
  std::size_t rank(std::size_t layer) const { return slices_[layer].rank; }
  /// The numbers that are stored for a layer that is not pruned.
  std::size_t stored(std::size_t layer) const { return rank(layer) > 0 ? rank(layer) : width_; }
  std::size_t sum_of_ranks() const {
    std::size_t sum = 0;
    for (const Slice& slice : slices_) sum += slice.rank;
    return sum;
  }
  std::size_t highest_rank() const {
    std::size_t highest = 0;
    for (const Slice& slice : slices_) highest = (std::max)(highest, slice.rank);
    return highest;
  }

  /// The dtype of all layers, if they have the same one, no bases, and there is no gap between rows.
  std::optional<Dtype> only_dtype() const {
    if (slices_.empty() || !slices_[0].dtype) return std::nullopt;
    const Dtype first = *slices_[0].dtype;
    for (const Slice& slice : slices_) {
      if (slice.dtype != first || slice.rank > 0) return std::nullopt;
    }
    return bytes_ == bytes_of(first, layers() * width_) ? std::optional(first) : std::nullopt;
  }

  /// "bf16,q8_0,none": the layers' types, as files and command lines spell them.
  std::string text() const {
    std::string text;
    for (const Slice& slice : slices_) {
      text += (text.empty() ? "" : ",") + std::string(slice.dtype ? name_of(*slice.dtype) : "none");
    }
    return text;
  }

  /// Reads what text() wrote; one word stands for all layers. `source` names it in messages. Errors: ErrorCode::config.
  static std::vector<std::optional<Dtype>> parse(std::string_view text, std::size_t layers, const std::string& source) {
    std::vector<std::optional<Dtype>> dtypes;
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = (std::min)(text.find(',', begin), text.size());
      const std::string_view word = text.substr(begin, end - begin);
      const auto dtype = dtype_of_name(word);
      if (!dtype && word != "none") {
        fail(ErrorCode::config, source, ": '", word, "' is no type of a PLE row, expected ", names_of_dtypes(),
             " or none");
      }
      dtypes.push_back(dtype);
      begin = end + 1;
    }
    if (dtypes.size() == 1) dtypes.resize(layers, dtypes[0]);
    if (dtypes.size() != layers) {
      fail(ErrorCode::config, source, ": types of ", dtypes.size(), " layers, expected ", layers);
    }
    return dtypes;
  }

  /// "32,full,64": the layers' ranks; full: without one.
  std::string ranks_text() const {
    std::string text;
    for (const Slice& slice : slices_) {
      text += (text.empty() ? "" : ",") + (slice.rank > 0 ? std::to_string(slice.rank) : std::string("full"));
    }
    return text;
  }

  /// Reads what ranks_text() wrote; one word stands for all layers. Errors: ErrorCode::config.
  static std::vector<std::size_t> parse_ranks(std::string_view text, std::size_t layers, std::size_t width,
                                              const std::string& source) {
    std::vector<std::size_t> ranks;
    for (std::size_t begin = 0; begin <= text.size();) {
      const std::size_t end = (std::min)(text.find(',', begin), text.size());
      const std::string_view word = text.substr(begin, end - begin);
      std::size_t rank = 0;
      if (word != "full") {
        const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), rank);
        if (error != std::errc() || stop != word.data() + word.size() || rank == 0 || rank > width) {
          fail(ErrorCode::config, source, ": '", word, "' is no rank, expected 1 to ", width, " or full");
        }
      }
      ranks.push_back(rank);
      begin = end + 1;
    }
    if (ranks.size() == 1) ranks.resize(layers, ranks[0]);
    if (ranks.size() != layers) {
      fail(ErrorCode::config, source, ": ranks of ", ranks.size(), " layers, expected ", layers);
    }
    return ranks;
  }

  /// Errors: ErrorCode::not_supported for a layer whose type can be read but not written.
  void require_encodable() const {
    for (std::size_t l = 0; l < layers(); ++l) {
      if (has(l) && !is_encodable(*slices_[l].dtype)) {
        fail(ErrorCode::not_supported, "layer ", l, " of a PLE row: ", name_of(*slices_[l].dtype),
             " can be read but not written, expected ", names_of_dtypes(true));
      }
    }
  }

  /// The same rows, with only these layers: layer l was layers[l].
  RowLayout select(const std::vector<std::size_t>& layers) const {
    RowLayout some = *this;
    some.slices_.clear();
    for (const std::size_t l : layers) some.slices_.push_back(slices_[l]);
    return some;
  }

  friend bool operator==(const RowLayout&, const RowLayout&) = default;

 private:
  void check_rank(std::size_t layer, const std::optional<Dtype>& dtype, std::size_t rank) const {
    if (!dtype) fail(ErrorCode::config, "a PLE row: layer ", layer, " is pruned, but has the rank ", rank);
    if (rank > width_) fail(ErrorCode::config, "a PLE row: layer ", layer, ": rank ", rank, ", expected 1 to ", width_);
    if (rank % values_per_block(*dtype) != 0) {
      fail(ErrorCode::config, "a PLE row in ", name_of(*dtype), ": layer ", layer, ": rank ", rank,
           ", expected a multiple of ", values_per_block(*dtype));
    }
  }

  std::size_t width_ = 0, bytes_ = 0;
  std::vector<Slice> slices_;
};

}  // namespace ple::inline PLE_ABI
