// SPDX-License-Identifier: Apache-2.0
// A row of a PLE table: one slice per layer, each in its own dtype, or pruned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
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
  /// A layer's p values. Without a dtype the layer is pruned and skips its PLE step.
  struct Slice {
    std::optional<Dtype> dtype = {};
    std::size_t offset = 0;  ///< bytes from the row's begin
    friend bool operator==(const Slice&, const Slice&) = default;
  };

  RowLayout() = default;

  /// Rows of checkpoints: every layer in `dtype`, no gaps. Errors: ErrorCode::config if `width` is not whole blocks.
  RowLayout(std::size_t layers, std::size_t width, Dtype dtype)
      : RowLayout(std::vector<std::optional<Dtype>>(layers, dtype), width, 1) {}

  /// One dtype per layer, or none. The row's size is rounded up to a multiple of `row_alignment`.
  RowLayout(const std::vector<std::optional<Dtype>>& dtypes, std::size_t width, std::size_t row_alignment = alignment)
      : width_(width) {
    std::size_t end = 0;
    for (const auto& dtype : dtypes) {
      if (dtype && width % values_per_block(*dtype) != 0) {
        fail(ErrorCode::config, "a PLE row in ", name_of(*dtype), ": ", width,
             " values per layer, expected a multiple of ", values_per_block(*dtype));
      }
      if (dtype) end = (end + alignment_of(*dtype) - 1) / alignment_of(*dtype) * alignment_of(*dtype);
      slices_.push_back({dtype, end});
      if (dtype) end += bytes_of(*dtype, width);
    }
    bytes_ = (end + row_alignment - 1) / row_alignment * row_alignment;
  }

  std::size_t layers() const { return slices_.size(); }
  std::size_t width() const { return width_; }      ///< p, values per layer
  std::size_t row_bytes() const { return bytes_; }  ///< from one row's begin to the next one's
  const Slice& slice(std::size_t layer) const { return slices_[layer]; }
  bool has(std::size_t layer) const { return slices_[layer].dtype.has_value(); }

  /// The dtype of all layers, if they have the same one and there is no gap between rows.
  std::optional<Dtype> only_dtype() const {
    if (slices_.empty() || !slices_[0].dtype) return std::nullopt;
    const Dtype first = *slices_[0].dtype;
    for (const Slice& slice : slices_) {
      if (slice.dtype != first) return std::nullopt;
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
  std::size_t width_ = 0, bytes_ = 0;
  std::vector<Slice> slices_;
};

}  // namespace ple::inline PLE_ABI
