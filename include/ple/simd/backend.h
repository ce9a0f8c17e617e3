// SPDX-License-Identifier: Apache-2.0
// A backend is a stateless type whose static functions are the only code that touches vectors.
#pragma once

#include <concepts>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/simd/kernels-inl.h"
#include "ple/simd/scalar.h"

namespace ple::inline PLE_ABI {

/// The vectors of this file's target; without -march, the compiler's oldest (see simd/default_backend.h).
using Simd = HWY_NAMESPACE::Simd;

/// What layers need from a backend; ple/simd/scalar.h defines each function.
template <class B>
concept Backend = requires(const float* x, float* y, const bf16* w, bf16* rounded, const q8_0* q, std::size_t n,
                           float a, const PackedTiles& integers, const PackedColumns& columns,
                           const PackedRows& packed_rows, const QuantizedRows& rows, const RowActivations& row,
                           std::byte* memory) {
  { B::name() } -> std::convertible_to<const char*>;
  B::matmul(x, n, n, n, x, n, n, y, n);
  B::matmul(w, n, n, n, x, n, n, y, n);
  { B::multiplies_bf16() } -> std::same_as<bool>;
  B::round(x, n, rounded);
  B::matmul(w, n, n, n, w, n, n, y, n);
  B::quantize(x, Dtype::q8_0, n, rows);
  B::matmul(integers, rows, y, n, memory);
  B::multiply_columns(columns, n, n, rows, n, y);
  B::multiply_rows(packed_rows, &n, n, row, y);
  { B::tile_bytes(n) } -> std::same_as<std::size_t>;
  B::weighted_sum(x, n, n, n, x, n, n, y, n);
  B::weighted_sum(w, n, n, n, x, n, n, y, n);
  B::decode(x, n, y);
  B::decode(w, n, y);
  B::decode(q, n, y);
  B::add(x, n, y);
  B::multiply(x, n, y);
  B::scale(a, n, y);
  B::rms_norm(x, x, n, a, y);
  B::rope(x, x, n, y);
  B::gelu(n, y);
  B::gaussian_topk(a, n, y);
  { B::exp_sum(n, y) } -> std::same_as<ExpSum>;
  B::softcap(a, n, y);
};

static_assert(Backend<Scalar> && Backend<Simd>);

}  // namespace ple::inline PLE_ABI
