// SPDX-License-Identifier: Apache-2.0
// A matrix of weights in its stored type. With OneOf, the type is known only when a file is opened.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>

#include "ple/core/arena.h"
#include "ple/core/checked_product.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/core/parallel.h"
#include "ple/dtype/dtype.h"
#include "ple/dtype/integers.h"
#include "ple/packing/tiles.h"
#include "ple/tensor/rows.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// A matrix's values for kernels: row-major, of a type known at compile time.
template <StoredType T>
class MatrixView {
 public:
  MatrixView(const T* data, std::size_t rows, std::size_t cols) : data_(data), rows_(rows), cols_(cols) {}

  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  Dtype dtype() const { return DtypeTraits<T>::id; }
  const T* row(std::size_t r) const { return data_ + r * (cols_ / DtypeTraits<T>::values_per_block); }

 private:
  const T* data_;
  std::size_t rows_, cols_;
};

namespace detail {

/// What all matrices share: a shape, owned values and their type at run time.
class MatrixBase {
 public:
  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  std::size_t bytes() const { return packed() ? packed_bytes_ : bytes_of(dtype_, rows_ * cols_); }
  Dtype dtype() const { return dtype_; }
  bool loaded() const { return data_ != nullptr; }
  const std::byte* data() const { return static_cast<const std::byte*>(data_); }

  /// Packs the rows of an integer type into tiles in our own memory, the fastest layout for products. Code that reads
  /// this matrix row by row no longer can. Earlier copies keep their rows.
  void repack(Executor& executor, Arena& arena) {
    if (packed() || !is_integer_type(dtype_)) return;
    const TileLayout layout(dtype_, cols_);
    std::shared_ptr<std::byte> tiles = arena.allocate(layout.bytes(rows_));
    parallel_for(executor, layout.tiles(rows_), 1, [&](std::size_t begin, std::size_t end, std::size_t) {
      for (std::size_t i = begin; i < end; ++i) {
        const std::size_t first = i * rows_per_tile;
        repack_rows(first, (std::min)(rows_per_tile, rows_ - first), tiles.get() + i * layout.tile_bytes);
      }
    });
    data_ = tiles.get();
    owner_ = std::move(tiles);
    packed_bytes_ = layout.bytes(rows_);
  }
  bool packed() const { return packed_bytes_ > 0; }

  /// Decodes row r of a packed matrix: [cols].
  void decode_packed_row(std::size_t r, float* out) const {
    const TileLayout layout(dtype_, cols_);
    decode_row(layout, data() + r / rows_per_tile * layout.tile_bytes, r % rows_per_tile, out);
  }

  /// Packs up to 16 rows of an integer type into a tile; the matrix must not be packed.
  void repack_rows(std::size_t first, std::size_t count, std::byte* tile) const {
    const std::size_t row_bytes = bytes_of(dtype_, cols_);
    ple::pack_tile(TileLayout(dtype_, cols_), data() + first * row_bytes, row_bytes, count,
                   bytes_of(dtype_, values_per_chunk), tile);
  }

  /// Keeps rows [first, first + count) only; the matrix must not be packed.
  void keep_rows(std::size_t first, std::size_t count) {
    data_ = data() + first * bytes_of(dtype_, cols_);
    rows_ = count;
  }

  /// Copies the values into our own memory, so that no file backs them.
  void make_resident() {
    if (packed()) return;
    const std::shared_ptr<const void> keep = owner_;
    const auto* old = static_cast<const std::byte*>(data_);
    std::copy_n(old, bytes(), allocate_bytes());
  }

 protected:
  MatrixBase(std::size_t rows, std::size_t cols, Dtype dtype) : rows_(rows), cols_(cols), dtype_(dtype) {}

  void load(const Tensor& tensor, std::span<const Dtype> types) {
    if (tensor.shape.size() != 2 || tensor.shape[0] != rows_ || tensor.shape[1] != cols_) {
      fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": shape is ", shape_text(tensor.shape), ", expected ",
           shape_text({rows_, cols_}));
    }
    if (std::find(types.begin(), types.end(), tensor.dtype) == types.end()) {
      std::string names;
      for (const Dtype type : types) names += (names.empty() ? "" : " or ") + std::string(name_of(type));
      fail(ErrorCode::dtype, tensor.file, ": ", tensor.name, ": dtype is ", name_of(tensor.dtype), ", expected ", names,
           "; ple::Any accepts every type");
    }
    if (cols_ % values_per_block(tensor.dtype) != 0) {
      fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": rows of ", cols_, " values in ", name_of(tensor.dtype),
           ", expected a multiple of ", values_per_block(tensor.dtype));
    }
    dtype_ = tensor.dtype;
    data_ = tensor.data;
    owner_ = tensor.owner;
    packed_bytes_ = 0;
  }

  std::byte* allocate_bytes() {
    const auto most = checked_product({rows_, cols_, most_value_bytes});
    if (!most || *most > std::uint64_t{(std::numeric_limits<std::ptrdiff_t>::max)()}) throw std::bad_array_new_length();
    auto values = std::make_shared<AlignedVector<std::byte>>(bytes());
    std::byte* writable = values->data();
    data_ = writable;
    owner_ = std::move(values);
    packed_bytes_ = 0;
    return writable;
  }

  template <StoredType T>
  MatrixView<T> view_as() const {
    return {static_cast<const T*>(data_), rows_, cols_};
  }

 private:
  static constexpr std::uint64_t most_value_bytes = sizeof(float);  // the most of any type

  std::size_t rows_, cols_;
  Dtype dtype_;
  const void* data_ = nullptr;
  std::shared_ptr<const void> owner_;
  std::size_t packed_bytes_ = 0;  // 0: not packed
};

}  // namespace detail

/// A row-major [rows, cols] matrix of weights. A new one has a shape, from a configuration, but no values: `load` takes
/// a tensor's without a copy, `allocate` makes room for the caller's. Copies share values.
template <class T>
class Matrix : public detail::MatrixBase {
 public:
  static_assert(StoredType<T>,
                "Matrix<T>: T must be a stored type (ple::f32, bf16, f16, or one with DtypeTraits) or OneOf");
  static_assert(detail::can_be_multiplied<T>);

  /// If false, code that only integer types need is not compiled.
  static constexpr bool may_be_integers = IntegerType<T>;

  Matrix() : Matrix(0, 0) {}
  Matrix(std::size_t rows, std::size_t cols) : MatrixBase(rows, cols, DtypeTraits<T>::id) {}

  bool holds_integers() const { return may_be_integers; }

  /// Errors: ErrorCode::shape, ErrorCode::dtype.
  void load(const Tensor& tensor) {
    constexpr Dtype types[] = {DtypeTraits<T>::id};
    MatrixBase::load(tensor, types);
  }

  /// Uninitialised room for rows * cols values, shared with copies. Errors: std::bad_alloc.
  T* allocate() { return reinterpret_cast<T*>(allocate_bytes()); }

  MatrixView<T> view() const { return view_as<T>(); }
};

template <StoredType... Ts>
class Matrix<OneOf<Ts...>> : public detail::MatrixBase {
 public:
  static_assert((detail::can_be_multiplied<Ts> && ...));
  static constexpr bool may_be_integers = (IntegerType<Ts> || ...);

  Matrix() : Matrix(0, 0) {}
  Matrix(std::size_t rows, std::size_t cols) : MatrixBase(rows, cols, types[0]) {}

  bool holds_integers() const {
    if constexpr (may_be_integers) return is_integer_type(dtype());
    return false;
  }

  /// Takes the tensor's type, if it is one of Ts. Errors: ErrorCode::shape, ErrorCode::dtype.
  void load(const Tensor& tensor) { MatrixBase::load(tensor, types); }

  /// Calls f with the MatrixView of the matrix's type, chosen once for all rows.
  template <class F>
  void visit(F&& f) const {
    static_cast<void>(((dtype() == DtypeTraits<Ts>::id && (f(view_as<Ts>()), true)) || ...));
  }

 private:
  static constexpr Dtype types[] = {DtypeTraits<Ts>::id...};
};

/// Calls f with the matrix's view in its stored type, known at compile time or at run time.
template <class T, class F>
void visit(const Matrix<T>& matrix, F&& f) {
  if constexpr (StoredType<T>) {
    f(matrix.view());
  } else {
    matrix.visit(f);
  }
}

/// The same for floating-point types; does nothing for block types.
template <class T, class F>
void visit_floats(const Matrix<T>& matrix, F&& f) {
  visit(matrix, [&]<class Stored>(const MatrixView<Stored>& view) {
    if constexpr (DtypeTraits<Stored>::values_per_block == 1) f(view);
  });
}

}  // namespace ple::inline PLE_ABI
