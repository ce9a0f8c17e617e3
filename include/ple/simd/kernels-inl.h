// SPDX-License-Identifier: Apache-2.0
// The kernels in Highway's portable vectors: compiled once for the target of the translation unit, or once per target
// when ple/simd/dispatch.h (or a user) includes this file again through foreach_target.h. Hence no #pragma once.
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
#include <type_traits>

#include "ple/simd/highway-inl.h"

#include "hwy/contrib/math/math-inl.h"
#include "ple/dtype/dtype.h"
#include "ple/simd/columns-inl.h"
#include "ple/simd/dot-inl.h"
#include "ple/simd/f16-inl.h"
#include "ple/simd/integers-inl.h"
#include "ple/simd/loose_rows-inl.h"
#include "ple/simd/quantize-inl.h"
#include "ple/simd/scalar.h"

HWY_BEFORE_NAMESPACE();
namespace ple {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// The backend of one target; ple/simd/scalar.h says what each kernel means. The functions are ordinary ones, never
/// inlined, so that code compiled for a lower baseline may call them. A row's sum runs in the same order whatever the
/// number of rows and tokens in the call: results do not depend on threads or on how a prompt is cut.
struct Simd {
  static const char* name() { return hwy::TargetName(HWY_TARGET); }

  template <StoredType T>
  static HWY_NOINLINE void matmul(const T* w, std::size_t w_stride, std::size_t rows, std::size_t cols, const float* x,
                                  std::size_t x_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    // One token: short rows are read fastest one after another, long ones four at a time, each in pages of its own.
    const bool one_by_one = tokens == 1 && HWY_MAX_BYTES == 64 && cols * sizeof(T) < 8192;
    multiply<Floats>(one_by_one, w, w_stride, rows, cols, x, x_stride, tokens, y, y_stride);
  }

  /// Whether products of bf16 with bf16 are worth rounding activations for.
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
      const auto none = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40));  // a NaN stays one
      const auto all = hn::IfThenElse(hn::RebindMask(du, hn::Eq(v, v)), nearest, none);
      hn::StoreU(hn::DemoteTo(dh, hn::BitCast(di, all)), dh, &y[i].bits);
    }
    for (; i < n; ++i) y[i] = to_bf16(x[i]);
  }
  static HWY_NOINLINE void matmul(const bf16* w, std::size_t w_stride, std::size_t rows, std::size_t cols,
                                  const bf16* x, std::size_t x_stride, std::size_t tokens, float* y,
                                  std::size_t y_stride) {
    if (!PairsOfBf16::runs_here()) return Scalar::matmul(w, w_stride, rows, cols, x, x_stride, tokens, y, y_stride);
    multiply<PairsOfBf16>(tokens == 1, w, w_stride, rows, cols, x, x_stride, tokens, y, y_stride);
  }

#if HWY_TARGET == HWY_SCALAR
  using Quantizer = ScalarIntegers;
  using Integers = ScalarIntegers;
  using LooseRows = ScalarIntegers;
  using Columns = ScalarIntegers;
  static constexpr bool has_integers() { return true; }
#else
  using Quantizer = ActivationQuantizer<BestDot>;
  using Integers = HWY_NAMESPACE::Integers<BestDot>;
  using LooseRows = LooseProduct<BestDot>;
  using Columns = ColumnProduct;
  static bool has_integers() { return BestDot::runs_here(); }
#endif
  static std::size_t tile_bytes(std::size_t cols) { return Integers::tile_bytes(cols); }
  static HWY_NOINLINE void quantize(const float* x, Dtype weights, std::size_t t, const QuantizedRows& out) {
    has_integers() ? Quantizer::quantize(x, weights, t, out) : Scalar::quantize(x, weights, t, out);
  }
  static HWY_NOINLINE void matmul(const InterleavedRows& w, const QuantizedRows& x, float* y, std::size_t y_stride,
                                  std::byte* memory) {
    has_integers() ? Integers::matmul(w, x, y, y_stride, memory) : Scalar::matmul(w, x, y, y_stride, memory);
  }
  static HWY_NOINLINE void multiply_rows(const IntegerRows& w, const std::size_t* rows, std::size_t count,
                                         const RowActivations& x, float* y) {
    has_integers() ? LooseRows::multiply_rows(w, rows, count, x, y) : Scalar::multiply_rows(w, rows, count, x, y);
  }
  static HWY_NOINLINE void multiply_columns(const IntegerColumns& w, std::size_t first, std::size_t rows,
                                            const QuantizedRows& x, std::size_t t, float* y) {
    Columns::multiply_columns(w, first, rows, x, t, y);
  }

  template <StoredType T>
  static HWY_NOINLINE void weighted_sum(const T* rows, std::size_t stride, std::size_t n, std::size_t cols,
                                        const float* weights, std::size_t weights_stride, std::size_t tokens, float* y,
                                        std::size_t y_stride) {
    const D d;
    const std::size_t lanes = hn::Lanes(d), width = tile_rows * lanes, whole = cols - cols % width;
    for (std::size_t c = 0; c < whole; c += width) {
      for_each_tile(tokens, [&](std::size_t t, auto count) HWY_ATTR {
        add_tile<count>(rows + c, stride, n, weights + t * weights_stride, weights_stride, y + t * y_stride + c,
                        y_stride);
      });
    }
    for (std::size_t c = whole; c < cols; c += lanes) {
      const std::size_t count = std::min(lanes, cols - c);
      for (std::size_t t = 0; t < tokens; ++t) {
        V sum = load_some(y + t * y_stride + c, count);
        for (std::size_t i = 0; i < n; ++i) {
          const V weight = hn::Set(d, weights[t * weights_stride + i]);
          sum = hn::MulAdd(weight, load_some(rows + i * stride + c, count), sum);
        }
        store_some(sum, count, y + t * y_stride + c);
      }
    }
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
      const std::size_t count = std::min(lanes, half - i);
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
      const std::size_t count = std::min(lanes, n - i);
      const V any = load_some(y + i, count), lowest = hn::Set(d, Scalar::gelu_lowest);
      const V v = hn::IfThenElse(hn::Lt(any, lowest), lowest, any);  // not Max: a NaN stays one
      const V cubic = hn::Mul(hn::Set(d, 0.044715f), hn::Mul(v, hn::Mul(v, v)));
      const V minus_2u = hn::Mul(hn::Set(d, -1.5957691216f), hn::Add(v, cubic));
      const V e = hn::Exp(d, hn::Min(minus_2u, hn::Set(d, 88.0f)));
      store_some(hn::Div(v, hn::Add(hn::Set(d, 1.0f), e)), count, y + i);
    }
  }

  static HWY_NOINLINE void keep_above(float z, std::size_t n, float* y) {
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
      hn::StoreU(hn::IfThenElse(hn::Le(v, c), hn::Zero(d), hn::Sub(v, c)), d, y + i);  // not Max: a NaN stays one
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
    for (; i < n; ++i) largest = std::max(largest, y[i]);
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
      const std::size_t count = std::min(lanes, n - i);
      const V v = hn::Div(load_some(y + i, count), hn::Set(d, cap));
      store_some(hn::Mul(hn::Set(d, cap), hn::Tanh(d, v)), count, y + i);
    }
  }

 private:
  using D = hn::ScalableTag<float>;
  using V = hn::Vec<D>;

  // A tile's sums stay in registers: 4 x 6 of AVX-512's and NEON's 32, 4 x 2 of the others' 16.
  static constexpr std::size_t tile_rows = 4;
  static constexpr std::size_t tile_tokens = HWY_MAX_BYTES == 64 || HWY_ARCH_ARM_A64 ? 6 : 2;

  /// A step of a product in f32.
  struct Floats {
    static constexpr std::size_t values = 1;  // for each lane
    template <class W>
    static HWY_INLINE V load(const W* p) {
      return Simd::load(p);
    }
    static HWY_INLINE V multiply_add(V w, V x, V sum) { return hn::MulAdd(w, x, sum); }
  };

  template <class Step, class W, class X>
  static HWY_INLINE void multiply(bool one_by_one, const W* w, std::size_t w_stride, std::size_t rows, std::size_t cols,
                                  const X* x, std::size_t x_stride, std::size_t tokens, float* y,
                                  std::size_t y_stride) {
    const std::size_t whole = one_by_one ? 0 : rows - rows % tile_rows;
    for (std::size_t r = 0; r < whole; r += tile_rows) {
      for_each_tile(tokens, [&](std::size_t t, auto count) HWY_ATTR {
        tile<Step, tile_rows, count>(w + r * w_stride, w_stride, cols, x + t * x_stride, x_stride, y + t * y_stride + r,
                                     y_stride);
      });
    }
    for (std::size_t r = whole; r < rows; ++r) {
      for (std::size_t t = 0; t < tokens; ++t) {
        tile<Step, 1, 1>(w + r * w_stride, w_stride, cols, x + t * x_stride, x_stride, y + t * y_stride + r, y_stride);
      }
    }
  }

  /// Calls f(t, count) for tiles of `count` tokens, a constant, from token t on.
  template <class F>
  static HWY_INLINE void for_each_tile(std::size_t tokens, const F& f) {
    std::size_t t = 0;
    for (; t + tile_tokens <= tokens; t += tile_tokens) f(t, std::integral_constant<std::size_t, tile_tokens>());
    if constexpr (tile_tokens > 2) {
      for (; t + 2 <= tokens; t += 2) f(t, std::integral_constant<std::size_t, 2>());
    }
    for (; t < tokens; ++t) f(t, std::integral_constant<std::size_t, 1>());
  }

  // Several vectors as nested members rather than an array: compilers keep members in registers, arrays not always.
  // Constructors are written out, because those that the compiler adds are not compiled for the target.
  template <std::size_t N, class = void>
  struct Vectors {
    HWY_INLINE Vectors() {}  // NOLINT(modernize-use-equals-default)
    V first;
    Vectors<N - 1> rest;
  };
  template <class Dummy>
  struct Vectors<1, Dummy> {
    HWY_INLINE Vectors() {}  // NOLINT(modernize-use-equals-default)
    V first;
  };
  // The sums of R rows with T tokens.
  template <std::size_t R, std::size_t T>
  struct Sums {
    HWY_INLINE Sums() {}  // NOLINT(modernize-use-equals-default)
    Vectors<T> first;
    Sums<R - 1, T> rest;
  };
  template <std::size_t T>
  struct Sums<0, T> {};

  template <std::size_t N>
  static HWY_INLINE void set_zero(Vectors<N>& v) {
    v.first = hn::Zero(D());
    if constexpr (N > 1) set_zero(v.rest);
  }
  template <std::size_t R, std::size_t T>
  static HWY_INLINE void set_zero(Sums<R, T>& sums) {
    set_zero(sums.first);
    if constexpr (R > 1) set_zero(sums.rest);
  }

  template <class Step, std::size_t T, class X>
  static HWY_INLINE void load_tokens(const X* x, std::size_t stride, Vectors<T>& xs) {
    xs.first = Step::load(x);
    if constexpr (T > 1) load_tokens<Step>(x + stride, stride, xs.rest);
  }
  template <class Step, std::size_t T>
  static HWY_INLINE void multiply_add(V w, const Vectors<T>& xs, Vectors<T>& sums) {
    sums.first = Step::multiply_add(w, xs.first, sums.first);
    if constexpr (T > 1) multiply_add<Step>(w, xs.rest, sums.rest);
  }
  template <class Step, std::size_t R, std::size_t T, class W>
  static HWY_INLINE void multiply_add(const W* w, std::size_t stride, const Vectors<T>& xs, Sums<R, T>& sums) {
    multiply_add<Step>(Step::load(w), xs, sums.first);
    if constexpr (R > 1) multiply_add<Step>(w + stride, stride, xs, sums.rest);
  }

  template <std::size_t T>
  static HWY_INLINE void store_sums(const Vectors<T>& sums, float* y, std::size_t stride) {
    *y = sum_of(sums.first);
    if constexpr (T > 1) store_sums(sums.rest, y + stride, stride);
  }
  template <std::size_t R, std::size_t T>
  static HWY_INLINE void store_sums(const Sums<R, T>& sums, float* y, std::size_t stride) {
    store_sums(sums.first, y, stride);
    if constexpr (R > 1) store_sums(sums.rest, y + 1, stride);
  }

  template <class Step, std::size_t R, std::size_t T, class W, class X>
  static HWY_INLINE void tile(const W* w, std::size_t w_stride, std::size_t cols, const X* x, std::size_t x_stride,
                              float* y, std::size_t y_stride) {
    const std::size_t step = Step::values * hn::Lanes(D());
    Sums<R, T> sums;
    Vectors<T> xs;
    set_zero(sums);
    const std::size_t rest = cols % step, whole = cols - rest;
    for (const W* const end = w + whole; w != end; w += step, x += step) {
      load_tokens<Step>(x, x_stride, xs);
      if constexpr (R > 1 && T > 1) prefetch<R>(w + 2 * R * w_stride, w_stride);
      multiply_add<Step>(w, w_stride, xs, sums);
    }
    store_sums(sums, y, y_stride);
    if (rest > 0) add_rest(w, w_stride, R, rest, x, x_stride, T, y, y_stride);
  }

  /// Asks for what several tokens will be multiplied with after the rows that they are multiplied with now: those keep
  /// a core busy, so that it does not look that far by itself. Nothing is read where no memory is.
  template <std::size_t R, class W>
  static HWY_INLINE void prefetch(const W* w, std::size_t stride) {
    if constexpr (HWY_MAX_BYTES >= 32) {  // smaller vectors would ask for each cache line several times
      hwy::Prefetch(w);
      if constexpr (R > 1) prefetch<R - 1>(w + stride, stride);
    }
  }

  /// What is left of the rows when they are no whole number of vectors; not inlined, because models have none left.
  template <class W, class X>
  static HWY_NOINLINE void add_rest(const W* w, std::size_t w_stride, std::size_t rows, std::size_t count, const X* x,
                                    std::size_t x_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    for (std::size_t begin = 0; begin < count; begin += hn::Lanes(D())) {
      const std::size_t n = std::min(count - begin, hn::Lanes(D()));
      for (std::size_t r = 0; r < rows; ++r) {
        const V ws = load_some(w + r * w_stride + begin, n);
        for (std::size_t t = 0; t < tokens; ++t) {
          y[t * y_stride + r] += sum_of(hn::Mul(ws, load_some(x + t * x_stride + begin, n)));
        }
      }
    }
  }

  // Sums of weighted_sum: tile_rows vectors of a row, T tokens.
  template <std::size_t T, class W>
  static HWY_INLINE void add_tile(const W* rows, std::size_t stride, std::size_t n, const float* weights,
                                  std::size_t weights_stride, float* y, std::size_t y_stride) {
    const std::size_t lanes = hn::Lanes(D());
    Sums<tile_rows, T> sums;
    Vectors<T> ws;
    load_sums(y, y_stride, sums);
    for (std::size_t i = 0; i < n; ++i, rows += stride) {
      set_tokens(weights + i, weights_stride, ws);
      if constexpr (T > 1) prefetch<tile_rows>(rows + 4 * tile_rows * stride, lanes);
      multiply_add<Floats>(rows, lanes, ws, sums);
    }
    store_sums_as_they_are(sums, y, y_stride);
  }
  template <std::size_t T>
  static HWY_INLINE void set_tokens(const float* x, std::size_t stride, Vectors<T>& xs) {
    xs.first = hn::Set(D(), *x);
    if constexpr (T > 1) set_tokens(x + stride, stride, xs.rest);
  }
  template <std::size_t R, std::size_t T>
  static HWY_INLINE void load_sums(const float* y, std::size_t stride, Sums<R, T>& sums) {
    load_tokens<Floats>(y, stride, sums.first);
    if constexpr (R > 1) load_sums(y + hn::Lanes(D()), stride, sums.rest);
  }
  template <std::size_t T>
  static HWY_INLINE void store_tokens(const Vectors<T>& xs, float* y, std::size_t stride) {
    hn::StoreU(xs.first, D(), y);
    if constexpr (T > 1) store_tokens(xs.rest, y + stride, stride);
  }
  template <std::size_t R, std::size_t T>
  static HWY_INLINE void store_sums_as_they_are(const Sums<R, T>& sums, float* y, std::size_t stride) {
    store_tokens(sums.first, y, stride);
    if constexpr (R > 1) store_sums_as_they_are(sums.rest, y + hn::Lanes(D()), stride);
  }

  static HWY_INLINE float sum_of(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }

  static HWY_INLINE V load(const float* p) { return hn::LoadU(D(), p); }
  static HWY_INLINE V load(const bf16* p) {
    const hn::RebindToUnsigned<D> du;
    const hn::Rebind<std::uint16_t, D> dh;
    return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(dh, &p->bits))));
  }
  static HWY_INLINE V load(const f16* p) {
    return promote_f16(D(), hn::LoadU(hn::Rebind<std::uint16_t, D>(), &p->bits));
  }

  /// The first `count` lanes from memory, 0 in the others.
  template <class T>
  static HWY_INLINE V load_some(const T* p, std::size_t count) {
    if (count == hn::Lanes(D())) return load(p);
    T values[hn::MaxLanes(D())];
    copy_and_pad(p, count, values);
    return load(values);
  }
  static HWY_INLINE void store_some(V v, std::size_t count, float* p) {
    if (count == hn::Lanes(D())) return hn::StoreU(v, D(), p);
    float values[hn::MaxLanes(D())];
    hn::StoreU(v, D(), values);
    copy_out(values, count, p);
  }
  // Not inlined: ends of rows are rare, and their code is long.
  template <class T>
  static HWY_NOINLINE void copy_and_pad(const T* p, std::size_t count, T* values) {
    for (std::size_t i = 0; i < hn::MaxLanes(D()); ++i) values[i] = i < count ? p[i] : T{};
  }
  static HWY_NOINLINE void copy_out(const float* values, std::size_t count, float* p) {
    for (std::size_t i = 0; i < count; ++i) p[i] = values[i];
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple
HWY_AFTER_NAMESPACE();
#endif  // PLE_SIMD_KERNELS_INL_H_
