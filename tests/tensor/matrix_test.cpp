// SPDX-License-Identifier: Apache-2.0
#include "ple/tensor/matrix.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace ple::matrix_test {

namespace {

/// A tensor of `n` zero bytes, owned by itself.
Tensor tensor(Dtype dtype, std::vector<std::uint64_t> shape, std::size_t n) {
  auto bytes = std::make_shared<AlignedVector<std::byte>>(n, std::byte{0});
  return {"model.safetensors", "q_proj", dtype, std::move(shape), bytes->data(), n, bytes};
}

template <class F>
void check_error(ErrorCode code, const std::string& message, F&& f) {
  try {
    f();
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == code);
    CHECK(std::string(error.what()) == message);
  }
}

}  // namespace

TEST_CASE("a matrix takes values without a copy, and keeps them alive") {
  Matrix<bf16> matrix(3, 4);
  CHECK(!matrix.loaded());
  std::weak_ptr<const void> owner;
  {
    const Tensor t = tensor(Dtype::bf16, {3, 4}, 24);
    matrix.load(t);
    owner = t.owner;
    CHECK(reinterpret_cast<const std::byte*>(matrix.view().row(0)) == t.data);
  }
  CHECK(!owner.expired());
  CHECK(matrix.view().row(2) == matrix.view().row(0) + 8);
  CHECK(matrix.bytes() == 24);
  const bf16* in_file = matrix.view().row(0);
  matrix.make_resident();
  CHECK(matrix.view().row(0) != in_file);
  CHECK(owner.expired());
}

TEST_CASE("a matrix refuses another shape or type, and says both") {
  Matrix<f32> matrix(3, 4);
  check_error(ErrorCode::shape, "model.safetensors: q_proj: shape is [4, 3], expected [3, 4]", [&] {
    matrix.load(tensor(Dtype::f32, {4, 3}, 48));
  });
  check_error(ErrorCode::shape, "model.safetensors: q_proj: shape is [12], expected [3, 4]",
              [&] { matrix.load(tensor(Dtype::f32, {12}, 48)); });
  check_error(ErrorCode::dtype, "model.safetensors: q_proj: dtype is bf16, expected f32; ple::Any accepts every type",
              [&] {
                matrix.load(tensor(Dtype::bf16, {3, 4}, 24));
              });
  Matrix<OneOf<f32, f16>> two(3, 4);
  check_error(ErrorCode::dtype,
              "model.safetensors: q_proj: dtype is bf16, expected f32 or f16; ple::Any accepts every type", [&] {
                two.load(tensor(Dtype::bf16, {3, 4}, 24));
              });
  CHECK(!matrix.loaded());
  CHECK(!two.loaded());
}

TEST_CASE("Any becomes the type of what it is given") {
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::f16}) {
    Matrix<Any> matrix(2, 8);
    matrix.load(tensor(dtype, {2, 8}, 16 * bytes_of(dtype, 1)));
    CHECK(matrix.dtype() == dtype);
    CHECK(matrix.loaded());
    CHECK(matrix.bytes() == 16 * bytes_of(dtype, 1));
    visit(matrix, [&](const auto& stored) { CHECK(stored.rows() == 2); });
  }
}

TEST_CASE("allocated rows start on cache lines and do not overlap") {
  Rows a, b;
  const RowsRequest requests[] = {{&a, 3, 5}, {&b, 2, 17}};
  const AlignedVector<float> memory = allocate_rows(requests);
  for (const Rows& rows : {a, b}) {
    for (std::size_t r = 0; r < rows.rows; ++r) CHECK(reinterpret_cast<std::uintptr_t>(rows.row(r)) % alignment == 0);
  }
  CHECK(b.data >= a.row(2) + a.cols);
  CHECK(b.row(1) + b.cols <= memory.data() + memory.size());
  CHECK(a.slice(1, 2).row(1) == a.row(2));
  CHECK(a.columns(2, 3).row(1) == a.row(1) + 2);
}

}  // namespace ple::matrix_test
