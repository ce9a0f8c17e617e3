// SPDX-License-Identifier: Apache-2.0
// The kernels in Highway's portable vectors: compiled for the file's target, or once per target if more_targets.h or a
// user's foreach_target.h, after ple/simd/targets.h, includes this file again. Hence no #pragma once.
#if defined(PLE_SIMD_KERNELS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_KERNELS_INL_H_
#undef PLE_SIMD_KERNELS_INL_H_
#else
#define PLE_SIMD_KERNELS_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "ple/core/config.h"
#include "ple/simd/highway-inl.h"

#include "ple/dtype/dtype.h"
#include "ple/simd/dot-inl.h"
#include "ple/simd/gradients-inl.h"
#include "ple/simd/packed_columns-inl.h"
#include "ple/simd/packed_rows-inl.h"
#include "ple/simd/quantize-inl.h"
#include "ple/simd/scalar.h"
#include "ple/simd/tiles-inl.h"

#if HWY_TARGET == HWY_AVX3  // marks the targets among which a program can choose at run time
#define PLE_SIMD_AVX3_INL_H_
#elif HWY_TARGET == HWY_AVX2
#define PLE_SIMD_AVX2_INL_H_
#elif HWY_TARGET == HWY_SSE4
#define PLE_SIMD_SSE4_INL_H_
#endif

PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// A target's backend; ple/simd/scalar.h defines each kernel. Functions are not inlined, so that code for a lower
/// baseline may call them. A row's sum has one order: results depend neither on threads nor on how a prompt is cut.
struct Simd : private Gradients {
  using Gradients::cross_entropy_backward, Gradients::gated_gelu_backward, Gradients::gemm, Gradients::log_sum_exp,
      Gradients::rms_norm_backward, Gradients::softmax_backward;

  static const char* name() { return hwy::TargetName(HWY_TARGET); }

  template <StoredType T>
  static HWY_NOINLINE void matmul(const T* w, std::size_t w_stride, std::size_t rows, std::size_t cols, const float* x,
                                  std::size_t x_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    // One token: short rows are read fastest one by one, long ones four at a time, each from its own pages.
    const bool one_by_one = tokens == 1 && HWY_MAX_BYTES == 64 && cols * sizeof(T) < 8192;
    FloatProducts::multiply<Floats>(one_by_one, w, w_stride, rows, cols, x, x_stride, tokens, y, y_stride);
  }

  /// Whether bf16 products are fast enough to round activations for.
  static bool multiplies_bf16() { return PairsOfBf16::runs_here(); }
  static HWY_NOINLINE void round(const float* x, std::size_t n, bf16* y) {
    const hn::RebindToUnsigned<D> du;
    const hn::RebindToSigned<D> di;
    const hn::Rebind<std::uint16_t, D> dh;
    const std::size_t lanes = hn::Lanes(du);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) {
      const V v = load(x + i);
      const auto bits = hn::BitCast(du, v);
      const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
      const auto nearest = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fff))));
      const auto none = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40));  // NaN stays NaN
      const auto all = hn::IfThenElse(hn::RebindMask(du, hn::Eq(v, v)), nearest, none);
      hn::StoreU(hn::DemoteTo(dh, hn::BitCast(di, all)), dh, &y[i].bits);
    }
    for (; i < n; ++i) y[i] = to_bf16(x[i]);
  }
  static HWY_NOINLINE void matmul(const bf16* w, std::size_t w_stride, std::size_t rows, std::size_t cols,
                                  const bf16* x, std::size_t x_stride, std::size_t tokens, float* y,
                                  std::size_t y_stride) {
    if (!PairsOfBf16::runs_here()) return Scalar::matmul(w, w_stride, rows, cols, x, x_stride, tokens, y, y_stride);
    // One token: rows are read fastest one by one, unless they are so long that x leaves the L1 cache.
    const bool one_by_one = tokens == 1 && cols * sizeof(bf16) < 16384;
    FloatProducts::multiply<PairsOfBf16>(one_by_one, w, w_stride, rows, cols, x, x_stride, tokens, y, y_stride);
  }

#if HWY_TARGET == HWY_SCALAR
  using Quantizer = ScalarIntegers;
  using Integers = ScalarIntegers;
  using RowsKernel = ScalarIntegers;
  using Columns = ScalarIntegers;
  static constexpr bool has_integers() { return true; }
#else
  using Quantizer = ActivationQuantizer<BestDot>;
  using Integers = HWY_NAMESPACE::Integers<BestDot>;
  using RowsKernel = PackedRowsProduct<BestDot>;
  using Columns = ColumnProduct;
  static bool has_integers() { return BestDot::runs_here(); }
#endif
  static std::size_t tile_bytes(std::size_t cols) { return Integers::tile_bytes(cols); }
  static HWY_NOINLINE void quantize(const float* x, Dtype weights, std::size_t t, const QuantizedRows& out) {
    has_integers() ? Quantizer::quantize(x, weights, t, out) : Scalar::quantize(x, weights, t, out);
  }
  static HWY_NOINLINE void matmul(const PackedTiles& w, const QuantizedRows& x, float* y, std::size_t y_stride,
                                  std::byte* memory) {
    has_integers() ? Integers::matmul(w, x, y, y_stride, memory) : Scalar::matmul(w, x, y, y_stride, memory);
  }
  static HWY_NOINLINE void multiply_rows(const PackedRows& w, const std::size_t* rows, std::size_t count,
                                         const RowActivations& x, float* y) {
    has_integers() ? RowsKernel::multiply_rows(w, rows, count, x, y) : Scalar::multiply_rows(w, rows, count, x, y);
  }
  static HWY_NOINLINE void multiply_columns(const PackedColumns& w, std::size_t first, std::size_t rows,
                                            const QuantizedRows& x, std::size_t t, float* y) {
    Columns::multiply_columns(w, first, rows, x, t, y);
  }

  template <StoredType T>
  static HWY_NOINLINE void weighted_sum(const T* rows, std::size_t stride, std::size_t n, std::size_t cols,
                                        const float* weights, std::size_t weights_stride, std::size_t tokens, float* y,
                                        std::size_t y_stride) {
    FloatProducts::weighted_sum(rows, stride, n, cols, weights, weights_stride, tokens, y, y_stride);
  }

  template <StoredType T>
  requires(DtypeTraits<T>::values_per_block == 1) static HWY_NOINLINE void decode(const T* x, std::size_t n, float* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(load(x + i), d, y + i);
    if (i < n) store_some(load_some(x + i, n - i), n - i, y + i);
  }

  static HWY_NOINLINE void decode(const q8_0* x, std::size_t n, float* y) {
    const hn::CappedTag<float, 16> d;
    const hn::Rebind<std::int32_t, decltype(d)> di;
    const hn::Rebind<std::int8_t, decltype(d)> d8;
    for (std::size_t b = 0; b < n / 32; ++b, ++x, y += 32) {
      const auto scale = hn::Set(d, to_f32(x->scale));
      for (std::size_t i = 0; i < 32; i += hn::Lanes(d)) {
        const auto integers = hn::PromoteTo(di, hn::LoadU(d8, x->values + i));
        hn::StoreU(hn::Mul(scale, hn::ConvertTo(d, integers)), d, y + i);
      }
    }
  }

  static HWY_NOINLINE void decode(const q4_0* x, std::size_t n, float* y) {
    const hn::CappedTag<float, 16> d;
    const hn::Rebind<std::int32_t, decltype(d)> di;
    const hn::Rebind<std::uint8_t, decltype(d)> d8;
    for (std::size_t b = 0; b < n / 32; ++b, ++x, y += 32) {
      const auto scale = hn::Set(d, to_f32(x->scale));
      for (std::size_t i = 0; i < 16; i += hn::Lanes(d)) {
        const auto pairs = hn::PromoteTo(di, hn::LoadU(d8, x->pairs + i));
        const auto low = hn::Sub(hn::And(pairs, hn::Set(di, 15)), hn::Set(di, 8));
        const auto high = hn::Sub(hn::ShiftRight<4>(pairs), hn::Set(di, 8));
        hn::StoreU(hn::Mul(scale, hn::ConvertTo(d, low)), d, y + i);
        hn::StoreU(hn::Mul(scale, hn::ConvertTo(d, high)), d, y + 16 + i);
      }
    }
  }

  static HWY_NOINLINE void add(const float* x, std::size_t n, float* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Add(load(y + i), load(x + i)), d, y + i);
    for (; i < n; ++i) y[i] += x[i];
  }

  static HWY_NOINLINE void multiply(const float* x, std::size_t n, float* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(load(y + i), load(x + i)), d, y + i);
    for (; i < n; ++i) y[i] *= x[i];
  }

  static HWY_NOINLINE void scale(float factor, std::size_t n, float* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d);
    const V factors = hn::Set(d, factor);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(load(y + i), factors), d, y + i);
    for (; i < n; ++i) y[i] *= factor;
  }

  static HWY_NOINLINE void rms_norm(const float* x, const float* weight, std::size_t n, float epsilon, float* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d);
    V squares = hn::Zero(d);
    std::size_t i = 0;
    for (; i + lanes <= n; i += lanes) squares = hn::MulAdd(load(x + i), load(x + i), squares);
    if (i < n) {
      const V rest = load_some(x + i, n - i);
      squares = hn::MulAdd(rest, rest, squares);
    }
    const float factor = 1.0f / std::sqrt(sum_of(squares) / static_cast<float>(n) + epsilon);
    const V factors = hn::Set(d, factor);
    i = 0;
    if (weight) {
      for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(hn::Mul(load(x + i), factors), load(weight + i)), d, y + i);
      for (; i < n; ++i) y[i] = x[i] * factor * weight[i];
    } else {
      for (; i + lanes <= n; i += lanes) hn::StoreU(hn::Mul(load(x + i), factors), d, y + i);
      for (; i < n; ++i) y[i] = x[i] * factor;
    }
  }

  static HWY_NOINLINE void rope(const float* cosine, const float* sine, std::size_t half, float* x) {
    const D d;
    const std::size_t lanes = hn::Lanes(d);
    for (std::size_t i = 0; i < half; i += lanes) {
      const std::size_t count = (std::min)(lanes, half - i);
      const V a = load_some(x + i, count), b = load_some(x + half + i, count);
      const V c = load_some(cosine + i, count), s = load_some(sine + i, count);
      store_some(hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), count, x + i);
      store_some(hn::MulAdd(b, c, hn::Mul(a, s)), count, x + half + i);
    }
  }

  static HWY_NOINLINE void gelu(std::size_t n, float* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d);
    for (std::size_t i = 0; i < n; i += lanes) {
      const std::size_t count = (std::min)(lanes, n - i);
      const V any = load_some(y + i, count), lowest = hn::Set(d, Scalar::gelu_lowest);
      const V v = hn::IfThenElse(hn::Lt(any, lowest), lowest, any);  // not Max: NaN stays NaN
      const V cubic = hn::Mul(hn::Set(d, 0.044715f), hn::Mul(v, hn::Mul(v, v)));
      const V minus_2u = hn::Mul(hn::Set(d, -1.5957691216f), hn::Add(v, cubic));
      const V e = hn::Exp(d, hn::Min(minus_2u, hn::Set(d, 88.0f)));
      store_some(hn::Div(v, hn::Add(hn::Set(d, 1.0f), e)), count, y + i);
    }
  }

  static HWY_NOINLINE void gaussian_topk(float z, std::size_t n, float* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d), whole = n - n % lanes;
    V sums = hn::Zero(d), squares = hn::Zero(d);
    for (std::size_t i = 0; i < whole; i += lanes) sums = hn::Add(sums, load(y + i));
    float sum = sum_of(sums);
    for (std::size_t i = whole; i < n; ++i) sum += y[i];
    const float mean = sum / static_cast<float>(n);
    for (std::size_t i = 0; i < whole; i += lanes) {
      const V difference = hn::Sub(load(y + i), hn::Set(d, mean));
      squares = hn::MulAdd(difference, difference, squares);
    }
    float square = sum_of(squares);
    for (std::size_t i = whole; i < n; ++i) square += (y[i] - mean) * (y[i] - mean);
    const float cutoff = mean + z * std::sqrt(square / static_cast<float>(n));
    for (std::size_t i = 0; i < whole; i += lanes) {
      const V v = load(y + i), c = hn::Set(d, cutoff);
      hn::StoreU(hn::IfThenElse(hn::Le(v, c), hn::Zero(d), hn::Sub(v, c)), d, y + i);  // not Max: NaN stays NaN
    }
    for (std::size_t i = whole; i < n; ++i) y[i] = y[i] <= cutoff ? 0 : y[i] - cutoff;
  }

  static HWY_NOINLINE ExpSum exp_sum(std::size_t n, float* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d);
    const V lowest = hn::Set(d, -std::numeric_limits<float>::infinity());
    float largest = -std::numeric_limits<float>::infinity();
    std::size_t i = 0;
    V most = lowest;
    for (; i + lanes <= n; i += lanes) most = hn::Max(most, load(y + i));
    largest = hn::GetLane(hn::MaxOfLanes(d, most));
    for (; i < n; ++i) largest = (std::max)(largest, y[i]);
    V sums = hn::Zero(d);
    for (i = 0; i + lanes <= n; i += lanes) {
      const V e = hn::Exp(d, hn::Sub(load(y + i), hn::Set(d, largest)));
      sums = hn::Add(sums, e);
      hn::StoreU(e, d, y + i);
    }
    float sum = sum_of(sums);
    for (; i < n; ++i) sum += y[i] = std::exp(y[i] - largest);
    return {largest, sum};
  }

  static HWY_NOINLINE void softcap(float cap, std::size_t n, float* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d);
    for (std::size_t i = 0; i < n; i += lanes) {
      const std::size_t count = (std::min)(lanes, n - i);
      const V v = hn::Div(load_some(y + i, count), hn::Set(d, cap));
      store_some(hn::Mul(hn::Set(d, cap), hn::Tanh(d, v)), count, y + i);
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();

#undef PLE_BEFORE_KERNELS
#undef PLE_AFTER_KERNELS
#undef PLE_INLINE
#undef PLE_LAMBDA_ATTR
#endif  // PLE_SIMD_KERNELS_INL_H_
