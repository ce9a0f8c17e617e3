// SPDX-License-Identifier: Apache-2.0
// The PLE table: one row per token, with one p-vector per layer. It is about half of a model's parameters, but a token
// needs only a few kilobytes of it. So the user chooses where it lives.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/os.h"
#include "ple/core/parallel.h"
#include "ple/core/token.h"
#include "ple/simd/decode.h"
#include "ple/simd/default_backend.h"
#include "ple/table/row_bases.h"
#include "ple/table/row_keys.h"
#include "ple/table/row_layout.h"
#include "ple/table/row_store.h"
#include "ple/table/table_storage.h"
#include "ple/tensor/matrix.h"

namespace ple::inline PLE_ABI {

/// The rows that some tokens need, and workspace to find them. Make one and use it again.
struct RowSelection {
  std::vector<RowId> ids;  ///< per_token for each token
  std::vector<RowId> unique;
  std::vector<const std::byte*> addresses;
};

/// [vocabulary, layers * p]. T is the dtype of every layer's slice; Any: each has its own.
template <class T = Any, Backend B = DefaultBackend>
class PleTable {
 public:
  PleTable() = default;
  PleTable(std::size_t vocabulary, std::size_t layers, std::size_t width)
      : vocab_size_(vocabulary), rows_(vocabulary), layers_(layers), width_(width) {}

  std::uint64_t rows() const { return rows_; }
  std::size_t cols() const { return layers_ * width_; }
  std::size_t width() const { return width_; }
  const RowLayout& layout() const { return layout_; }
  float scale() const { return scale_; }
  bool folded() const { return folded_; }
  std::span<const float> pad_identity() const { return pad_identity_; }
  const std::shared_ptr<const VocabularyMap>& vocabulary() const { return vocabulary_; }
  const RowBases& bases() const { return bases_; }
  std::size_t ids_per_token() const { return keys_.per_token; }
  std::size_t history() const { return keys_.history; }
  const std::shared_ptr<RowStore>& store() const { return store_; }
  const std::optional<FileIdentity>& file() const { return file_; }  ///< the file it was loaded from, if any
  TableCounters counters() const { return store_ ? store_->counters() : TableCounters{}; }
  /// A new pointer after each change to rows or keys. It is not used again while someone holds it.
  const std::shared_ptr<const char>& version() const { return version_; }
  /// Whether layer l has values. Layers without values skip their PLE step.
  bool has(std::size_t l) const { return l < layout_.layers() && layout_.has(l); }

  /// Allocates uninitialised rows, in order. Copies of the table share them.
  T* allocate() requires StoredType<T> {
    changed();
    layout_ = RowLayout(layers_, width_, DtypeTraits<T>::id);
    bases_.clear();
    auto values = std::make_shared<AlignedVector<std::byte>>(rows_ * layout_.row_bytes());
    std::byte* data = values->data();
    scale_ = rounded_to(DtypeTraits<T>::id, std::sqrt(static_cast<float>(width_)));
    store_ = std::make_shared<MemoryRows>(data, layout_.row_bytes(), std::move(values));
    return reinterpret_cast<T*>(data);
  }

  /// Errors: ErrorCode::shape, dtype, file; not_supported for direct reads or io_uring where the system has none.
  void load(const Tensor& tensor, const TableStorage& storage) {
    if (tensor.shape != std::vector<std::uint64_t>{rows_, cols()}) {
      fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": shape is ", shape_text(tensor.shape), ", expected ",
           shape_text({rows_, cols()}));
    }
    load(stored_table(tensor, layers_), storage);
  }

  /// As above, from any TableSource. `storage` decides for tables in files; rows that are in memory already, as
  /// converted ones are, stay there. Errors: also ErrorCode::config, if it was made for another model.
  void load(const TableSource& source, const TableStorage& storage) {
    const Tensor& tensor = source.tensor;
    const auto refuse = [&](ErrorCode code, const auto&... parts) {
      fail(code, tensor.file, ": ", tensor.name, ": ", parts...);
    };
    if (source.layout.layers() != layers_ || source.layout.width() != width_) {
      refuse(ErrorCode::config, "rows of ", source.layout.layers(), " layers of ", source.layout.width(),
             " values, expected ", layers_, " of ", width_, ": was it made for another model?");
    }
    if (source.vocabulary && source.vocabulary->vocab_size() != rows_) {
      refuse(ErrorCode::config, "made from a vocabulary of ", source.vocabulary->vocab_size(), ", expected ", rows_);
    }
    if (!source.vocabulary && source.rows < rows_) {
      refuse(ErrorCode::config, source.rows, " rows, expected ", rows_);
    }
    if constexpr (StoredType<T>) {
      for (std::size_t l = 0; l < layers_; ++l) {
        if (source.layout.has(l) && *source.layout.slice(l).dtype != DtypeTraits<T>::id) {
          refuse(ErrorCode::dtype, "dtype is ", name_of(*source.layout.slice(l).dtype), ", expected ",
                 DtypeTraits<T>::name);
        }
      }
    }
    RowBases bases = read_bases(source.bases, source.layout, tensor);
    changed();
    store_ = make_store(source, storage);
    layout_ = store_ ? source.layout : RowLayout(std::vector<std::optional<Dtype>>(layers_), width_);
    scale_ = source.scale;
    folded_ = source.folded;
    pad_identity_ = source.pad_identity;
    vocabulary_ = source.vocabulary;
    bases_ = store_ ? std::move(bases) : RowBases();
    rows_ = source.rows;
    file_ = tensor.map ? std::optional(tensor.map->file()->identity()) : std::nullopt;
  }

  /// Sets how tokens map to rows; ids must be below rows() or added by set_row(). Make sessions afterwards: the keys
  /// set the size of their workspace. Errors: ErrorCode::argument for 0 rows a token, or several without `keys.ids`.
  void set_keys(RowKeys keys) {
    if (keys.per_token == 0 || (!keys.ids && keys.per_token != 1)) {
      fail(ErrorCode::argument, "PleTable::set_keys: ", keys.per_token, " rows a token, expected ",
           keys.ids ? "1 or more" : "1 without RowKeys::ids");
    }
    changed();
    keys_ = std::move(keys);
  }

  /// Replaces a row, or adds one with any other id, in memory only. values: cols() of them, unscaled, as in a file of
  /// f32. Not while a session computes. Errors: ErrorCode::argument.
  void set_row(RowId id, std::span<const float> values) {
    if (values.size() != cols()) {
      fail(ErrorCode::argument, "PleTable::set_row: ", values.size(), " values, expected ", cols());
    }
    changed();
    overlay_[id].assign(values.begin(), values.end());
  }
  void reset_row(RowId id) { changed(), overlay_.erase(id); }  ///< back to the file's, if it has it

  RowSelection make_selection(std::size_t tokens) const {
    RowSelection selection;
    selection.ids.reserve(tokens * keys_.per_token);
    selection.unique.reserve(tokens * keys_.per_token);
    selection.addresses.resize(tokens * keys_.per_token);
    return selection;
  }

  /// Whether the token has a row in the full table, even if a cut-down vocabulary left it out. soft_token has none;
  /// tokens past the table's end do only after set_row().
  bool has_row(Token token) const {
    if (token == soft_token) return false;
    const auto id = static_cast<RowId>(token);
    return id < vocab_size_ || (!overlay_.empty() && overlay_.contains(id));
  }

  /// Finds the rows of the last `count` tokens of `text`; earlier ones are history. A token without a row gets that of
  /// `pad`, or none in a folded table. Errors: ErrorCode::argument for a token that was left out.
  void select(std::span<const Token> text, std::size_t count, Token pad, RowSelection& selection) const {
    selection.ids.clear();
    for (std::size_t i = text.size() - count; i < text.size(); ++i) {
      const Token token = has_row(text[i]) ? text[i] : pad;
      if (token != text[i] && folded_) {
        selection.ids.insert(selection.ids.end(), keys_.per_token, no_row);
      } else if (keys_.ids) {
        const std::size_t begin = i - (std::min)(i, keys_.history);
        selection.ids.resize(selection.ids.size() + keys_.per_token);
        keys_.ids(text.subspan(begin, i + 1 - begin), std::span(selection.ids).last(keys_.per_token));
      } else {
        selection.ids.push_back(row_of(token));
      }
    }
  }

  /// The token's row in the table and in the token embedding. Errors: ErrorCode::argument.
  std::size_t row_of(Token token) const {
    if (!vocabulary_) return static_cast<std::size_t>(token);
    if (const auto row = vocabulary_->row(token)) return *row;
    fail(ErrorCode::argument, "token ", token, " has no row: it was left out when the table was packed");
  }

  /// A hint that the rows will be gathered soon.
  void request(RowSelection& selection) const noexcept {
    if (!store_) return;
    unique_ids(selection, 0, selection.ids.size());
    store_->request(selection.unique);
  }

  struct LeftOut {
    std::size_t tokens, layers;  ///< a gather leaves out the last `layers` layers of the first `tokens` tokens
  };

  /// out[t] = layers [first, first + layers) of the rows of token first_token + t, summed and scaled; 0 where there are
  /// no values. Pins every row once. Errors: ErrorCode::file.
  void gather(const Context& context, RowSelection& selection, std::size_t first_token, std::size_t first,
              std::size_t layers, Rows out, LeftOut left_out = {}) const {
    gather_stored(context, selection, first_token, first, layers, out, left_out);
    if (scale_ == 1) return;
    for_each_row(context, out.rows, out.cols, [&](std::size_t t) {
      B::scale(scale_, (layers - (t < left_out.tokens ? left_out.layers : 0)) * width_, out.row(t));
    });
  }

  /// As above, but not scaled: values as stored.
  void gather_stored(const Context& context, RowSelection& selection, std::size_t first_token, std::size_t first,
                     std::size_t layers, Rows out, LeftOut left_out = {}) const {
    const std::size_t per_token = keys_.per_token, wanted = (first_token + out.rows) * per_token;
    if (wanted > selection.ids.size() || out.rows * per_token > selection.addresses.size()) {
      fail(ErrorCode::argument, "PleTable: a selection of ", selection.ids.size(), " rows with room for ",
           selection.addresses.size(), ", expected ", wanted, ": was it made before set_keys?");
    }
    const std::span<const RowId> ids = std::span(selection.ids).subspan(first_token * per_token, out.rows * per_token);
    const auto layers_of = [&](std::size_t t) { return layers - (t < left_out.tokens ? left_out.layers : 0); };
    for (std::size_t t = 0; t < out.rows; ++t) std::fill_n(out.row(t), layers_of(t) * width_, 0.0f);
    if (!store_) return;
    const std::size_t cost = out.cols * per_token * (std::max)(std::size_t{1}, layout_.highest_rank());
    unique_ids(selection, first_token * per_token, ids.size());
    for (std::size_t begin = 0; begin < selection.unique.size();) {
      const std::size_t count = (std::min)(selection.unique.size() - begin, store_->most_at_once());
      const std::span<const RowId> pinned(selection.unique.data() + begin, count);
      const PinnedRows pins(*store_, pinned, selection.addresses);
      for_each_row(context, out.rows, cost, [&](std::size_t t) {
        for (const RowId id : ids.subspan(t * per_token, per_token)) {
          const auto found = std::lower_bound(pinned.begin(), pinned.end(), id);
          if (found == pinned.end() || *found != id) continue;
          decode(selection.addresses[static_cast<std::size_t>(found - pinned.begin())], first, layers_of(t),
                 out.row(t));
        }
      });
      begin += count;
    }
    if (overlay_.empty()) return;
    for (std::size_t t = 0; t < out.rows; ++t) {
      for (const RowId id : ids.subspan(t * per_token, per_token)) add_overlay(id, first, layers_of(t), out.row(t));
    }
  }

 private:
  static constexpr RowId no_row = ~RowId{0};

  void changed() { version_ = std::make_shared<const char>(); }

  static std::shared_ptr<RowStore> make_store(const TableSource& source, const TableStorage& storage) {
    const Tensor& tensor = source.tensor;
    const std::size_t row_bytes = source.layout.row_bytes();
    if (storage.prunes() || row_bytes == 0) return nullptr;
    if (!tensor.map) return std::make_shared<MemoryRows>(tensor.data, row_bytes, tensor.owner);
    return storage.open(source);
  }

  /// The ids to read from the store for selection.ids [begin, begin + count): ascending, each once.
  void unique_ids(RowSelection& selection, std::size_t begin, std::size_t count) const {
    auto& unique = selection.unique;
    unique.clear();
    for (const RowId id : std::span(selection.ids).subspan(begin, count)) {
      if (id < rows_ && (overlay_.empty() || !overlay_.contains(id))) unique.push_back(id);
    }
    std::sort(unique.begin(), unique.end());
    unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
  }

  void decode(const std::byte* row, std::size_t first, std::size_t layers, float* out) const {
    for (std::size_t l = first; l < first + layers; ++l, out += width_) {
      const RowLayout::Slice& slice = layout_.slice(l);
      if (!slice.dtype) continue;
      // In pieces: misaligned blocks are copied to be aligned; sums of several rows, and coefficients, need a buffer.
      constexpr std::size_t most = 256;
      const std::size_t stored = layout_.stored(l);
      for (std::size_t i = 0; i < stored; i += most) {
        const std::size_t count = (std::min)(most, stored - i);
        const std::byte* blocks = row + slice.offset + bytes_of(*slice.dtype, i);
        alignas(alignment) std::byte aligned[most * sizeof(float)];
        if (reinterpret_cast<std::uintptr_t>(blocks) % alignment_of(*slice.dtype) != 0) {
          std::memcpy(aligned, blocks, bytes_of(*slice.dtype, count));
          blocks = aligned;
        }
        if (keys_.per_token == 1 && slice.rank == 0) {
          ple::decode<B, T>(*slice.dtype, blocks, count, out + i);
          continue;
        }
        float piece[most];
        ple::decode<B, T>(*slice.dtype, blocks, count, piece);
        if (slice.rank == 0) {
          B::add(piece, count, out + i);
        } else {  // one row at a time: its bits do not depend on which others are read with it
          const float* basis = bases_[l]->data() + i * width_;
          B::weighted_sum(basis, width_, count, width_, static_cast<const float*>(piece), most, 1, out, width_);
        }
      }
    }
  }

  void add_overlay(RowId id, std::size_t first, std::size_t layers, float* out) const {
    const auto found = overlay_.find(id);
    if (found == overlay_.end()) return;
    const float* values = found->second.data() + first * width_;
    if (keys_.per_token > 1) return B::add(values, layers * width_, out);
    std::copy_n(values, layers * width_, out);
  }

  std::uint64_t vocab_size_ = 0, rows_ = 0;
  std::size_t layers_ = 0, width_ = 0;
  RowLayout layout_;
  float scale_ = 1;
  bool folded_ = false;
  std::vector<float> pad_identity_;
  std::shared_ptr<const VocabularyMap> vocabulary_;
  RowBases bases_;
  std::shared_ptr<RowStore> store_;
  std::optional<FileIdentity> file_;
  RowKeys keys_;
  std::shared_ptr<const char> version_ = std::make_shared<const char>();
  std::map<RowId, std::vector<float>> overlay_;
};

}  // namespace ple::inline PLE_ABI
