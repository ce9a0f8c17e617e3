// SPDX-License-Identifier: Apache-2.0
// A matrix of weights in its stored type, and OneOf, a matrix whose type is known only when a file is opened.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/dtype/dtype.h"
#include "ple/tensor/rows.h"
#include "ple/tensor/tensor.h"

namespace ple {

/// A row-major [rows, cols] matrix of weights. A fresh one has its shape, given by a configuration, but no values yet:
/// `load` takes them from a file's tensor without a copy, `allocate` makes room for a caller's own. Copies share
/// values.
template <class T>
class Matrix {
 public:
  static_assert(StoredType<T>,
                "Matrix<T>: T must be a stored type (ple::f32, bf16, f16, or one with DtypeTraits) or OneOf");

  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols) : rows_(rows), cols_(cols) {}

  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  std::size_t bytes() const { return rows_ * cols_ * sizeof(T); }
  Dtype dtype() const { return DtypeTraits<T>::id; }
  bool loaded() const { return data_ != nullptr; }
  const T* data() const { return data_; }
  const T* row(std::size_t r) const { return data_ + r * cols_; }

  /// Errors: ErrorCode::shape, ErrorCode::dtype.
  void load(const Tensor& tensor) {
    if (tensor.shape.size() != 2 || tensor.shape[0] != rows_ || tensor.shape[1] != cols_) {
      fail(ErrorCode::shape, tensor.file, ": ", tensor.name, ": shape is ", shape_text(tensor.shape), ", expected ",
           shape_text({rows_, cols_}));
    }
    if (tensor.dtype != dtype()) {
      fail(ErrorCode::dtype, tensor.file, ": ", tensor.name, ": dtype is ", name_of(tensor.dtype), ", expected ",
           DtypeTraits<T>::name);
    }
    data_ = reinterpret_cast<const T*>(tensor.data);
    owner_ = tensor.owner;
  }

  /// Room for rows * cols values, uninitialised, owned by this matrix and its copies.
  T* allocate() {
    auto values = std::make_shared<AlignedVector<T>>(rows_ * cols_);
    T* writable = values->data();
    data_ = writable;
    owner_ = std::move(values);
    return writable;
  }

  /// Moves the values into memory of our own, so that no file backs them.
  void make_resident() {
    const T* old = data_;
    const std::shared_ptr<const void> keep = owner_;
    std::copy_n(old, rows_ * cols_, allocate());
  }

 private:
  std::size_t rows_ = 0, cols_ = 0;
  const T* data_ = nullptr;
  std::shared_ptr<const void> owner_;
};

/// A stored type chosen among several when a tensor is loaded.
template <class... Ts>
struct OneOf {};

/// Every type this version reads.
using Any = OneOf<f32, bf16, f16>;

template <class... Ts>
class Matrix<OneOf<Ts...>> {
 public:
  Matrix() = default;
  Matrix(std::size_t rows, std::size_t cols) : rows_(rows), cols_(cols) {}

  std::size_t rows() const { return rows_; }
  std::size_t cols() const { return cols_; }
  std::size_t bytes() const {
    return visit([](const auto& matrix) { return matrix.bytes(); });
  }
  Dtype dtype() const {
    return visit([](const auto& matrix) { return matrix.dtype(); });
  }
  bool loaded() const {
    return visit([](const auto& matrix) { return matrix.loaded(); });
  }

  void load(const Tensor& tensor) {
    const bool known = ((tensor.dtype == DtypeTraits<Ts>::id && (emplace<Ts>().load(tensor), true)) || ...);
    if (!known) {
      std::string types;
      ((types += (types.empty() ? "" : ", ") + std::string(DtypeTraits<Ts>::name)), ...);
      fail(ErrorCode::dtype, tensor.file, ": ", tensor.name, ": dtype is ", name_of(tensor.dtype), ", expected one of ",
           types);
    }
  }

  /// The matrix as type T, with its shape and without values.
  template <class T>
  Matrix<T>& emplace() {
    return matrix_.template emplace<Matrix<T>>(rows_, cols_);
  }

  void make_resident() {
    std::visit([](auto& matrix) { matrix.make_resident(); }, matrix_);
  }

  /// Calls f with the Matrix<T> this one is: the choice of type, made once for all its rows.
  template <class F>
  decltype(auto) visit(F&& f) const {
    return std::visit(std::forward<F>(f), matrix_);
  }

 private:
  std::size_t rows_ = 0, cols_ = 0;
  std::variant<Matrix<Ts>...> matrix_;
};

/// Calls f with the matrix in its stored type, whether that is known when compiling or only now.
template <class T, class F>
decltype(auto) visit(const Matrix<T>& matrix, F&& f) {
  if constexpr (StoredType<T>) {
    return f(matrix);
  } else {
    return matrix.visit(std::forward<F>(f));
  }
}

}  // namespace ple
