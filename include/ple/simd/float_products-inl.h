// SPDX-License-Identifier: Apache-2.0
// Products of float matrices: included once per target.
#if defined(PLE_SIMD_FLOAT_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_FLOAT_PRODUCTS_INL_H_
#undef PLE_SIMD_FLOAT_PRODUCTS_INL_H_
#else
#define PLE_SIMD_FLOAT_PRODUCTS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "ple/core/config.h"
#include "ple/simd/float_vectors-inl.h"
#include "ple/simd/highway-inl.h"

PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Processes tiles of a few rows and tokens, whose sums stay in registers.
struct FloatProducts : FloatVectors {
  /// A step of a product in f32.
  struct Floats {
    static constexpr std::size_t values = 1;  // for each lane
    template <class W>
    static PLE_INLINE V load(const W* p) {
      return FloatVectors::load(p);
    }
    static PLE_INLINE V multiply_add(V w, V x, V sum) { return hn::MulAdd(w, x, sum); }
  };

  /// y[t, r] = sum_c w[r, c] * x[t, c], in Step's arithmetic; `one_by_one`: one row at a time.
  template <class Step, class W, class X>
  static PLE_INLINE void multiply(bool one_by_one, const W* w, std::size_t w_stride, std::size_t rows, std::size_t cols,
                                  const X* x, std::size_t x_stride, std::size_t tokens, float* y,
                                  std::size_t y_stride) {
    const std::size_t whole = one_by_one ? 0 : rows - rows % tile_rows;
    // A block of rows stays in the L2 cache while all tokens pass, a tile of which stays in L1.
    const std::size_t block =
        std::max<std::size_t>(1, block_bytes / (tile_rows * sizeof(W) * std::max<std::size_t>(1, cols))) * tile_rows;
    for (std::size_t begin = 0; begin < whole; begin += block) {
      const std::size_t end = (std::min)(whole, begin + block);
      for_each_tile(tokens, [&](std::size_t t, auto count) PLE_LAMBDA_ATTR {
        for (std::size_t r = begin; r < end; r += tile_rows) {
          tile<Step, tile_rows, count>(w + r * w_stride, w_stride, cols, x + t * x_stride, x_stride,
                                       y + t * y_stride + r, y_stride, t == 0);
        }
      });
    }
    for (std::size_t r = whole; r < rows; ++r) {
      for (std::size_t t = 0; t < tokens; ++t) {
        tile<Step, 1, 1>(w + r * w_stride, w_stride, cols, x + t * x_stride, x_stride, y + t * y_stride + r, y_stride,
                         false);
      }
    }
  }

  /// y[t, c] += sum_i weights[t, i] rows[i, c], over n rows
  template <class T>
  static PLE_INLINE void weighted_sum(const T* rows, std::size_t stride, std::size_t n, std::size_t cols,
                                      const float* weights, std::size_t weights_stride, std::size_t tokens, float* y,
                                      std::size_t y_stride) {
    const D d;
    const std::size_t lanes = hn::Lanes(d), width = tile_rows * lanes, whole = cols - cols % width;
    for (std::size_t c = 0; c < whole; c += width) {
      for_each_tile(tokens, [&](std::size_t t, auto count) PLE_LAMBDA_ATTR {
        add_tile<count>(rows + c, stride, n, weights + t * weights_stride, weights_stride, y + t * y_stride + c,
                        y_stride);
      });
    }
    for (std::size_t c = whole; c < cols; c += lanes) {
      const std::size_t count = (std::min)(lanes, cols - c);
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

 private:
  // A tile's sums fit in registers: 4 x 6 of the 32 of AVX-512 and NEON, 4 x 2 of the others' 16.
  static constexpr std::size_t tile_rows = 4;
  static constexpr std::size_t tile_tokens = HWY_MAX_BYTES == 64 || HWY_ARCH_ARM_A64 ? 6 : 2;
  static constexpr std::size_t block_bytes = std::size_t{128} << 10;

  /// Calls f(t, count) for tiles of `count` tokens, a compile-time constant, from token t on.
  template <class F>
  static PLE_INLINE void for_each_tile(std::size_t tokens, const F& f) {
    std::size_t t = 0;
    for (; t + tile_tokens <= tokens; t += tile_tokens) f(t, std::integral_constant<std::size_t, tile_tokens>());
    if constexpr (tile_tokens > 2) {
      for (; t + 2 <= tokens; t += 2) f(t, std::integral_constant<std::size_t, 2>());
    }
    for (; t < tokens; ++t) f(t, std::integral_constant<std::size_t, 1>());
  }

  // Members stay in registers, arrays not always. Implicit constructors would not be compiled for the target.
  template <std::size_t N, class = void>
  struct Vectors {
    PLE_INLINE Vectors() {}  // NOLINT(modernize-use-equals-default)
    V first;
    Vectors<N - 1> rest;
  };
  template <class Dummy>
  struct Vectors<1, Dummy> {
    PLE_INLINE Vectors() {}  // NOLINT(modernize-use-equals-default)
    V first;
  };
  template <std::size_t R, std::size_t T>  // the sums of R rows and T tokens
  struct Sums {
    PLE_INLINE Sums() {}  // NOLINT(modernize-use-equals-default)
    Vectors<T> first;
    Sums<R - 1, T> rest;
  };
  template <std::size_t T>
  struct Sums<0, T> {};

  template <std::size_t N>
  static PLE_INLINE void set_zero(Vectors<N>& v) {
    v.first = hn::Zero(D());
    if constexpr (N > 1) set_zero(v.rest);
  }
  template <std::size_t R, std::size_t T>
  static PLE_INLINE void set_zero(Sums<R, T>& sums) {
    set_zero(sums.first);
    if constexpr (R > 1) set_zero(sums.rest);
  }

  template <class Step, std::size_t T, class X>
  static PLE_INLINE void load_tokens(const X* x, std::size_t stride, Vectors<T>& xs) {
    xs.first = Step::load(x);
    if constexpr (T > 1) load_tokens<Step>(x + stride, stride, xs.rest);
  }
  template <class Step, std::size_t T>
  static PLE_INLINE void multiply_add(V w, const Vectors<T>& xs, Vectors<T>& sums) {
    sums.first = Step::multiply_add(w, xs.first, sums.first);
    if constexpr (T > 1) multiply_add<Step>(w, xs.rest, sums.rest);
  }
  template <class Step, std::size_t R, std::size_t T, class W>
  static PLE_INLINE void multiply_add(const W* w, std::size_t stride, const Vectors<T>& xs, Sums<R, T>& sums) {
    multiply_add<Step>(Step::load(w), xs, sums.first);
    if constexpr (R > 1) multiply_add<Step>(w + stride, stride, xs, sums.rest);
  }

  template <std::size_t T>
  static PLE_INLINE void store_tile(const Sums<1, T>& sums, float* y, std::size_t) {
    static_assert(T == 1);
    *y = sum_of(sums.first.first);
  }
  template <std::size_t T>
  static PLE_INLINE void store_tile(const Sums<4, T>& sums, float* y, std::size_t stride) {
    store_rows(sums.first, sums.rest.first, sums.rest.rest.first, sums.rest.rest.rest.first, y, stride);
  }
  template <std::size_t T>
  static PLE_INLINE void store_rows(const Vectors<T>& a, const Vectors<T>& b, const Vectors<T>& c, const Vectors<T>& d,
                                    float* y, std::size_t stride) {
    FloatVectors::store_sums(a.first, b.first, c.first, d.first, y);
    if constexpr (T > 1) store_rows(a.rest, b.rest, c.rest, d.rest, y + stride, stride);
  }

  template <class Step, std::size_t R, std::size_t T, class W, class X>
  static PLE_INLINE void tile(const W* w, std::size_t w_stride, std::size_t cols, const X* x, std::size_t x_stride,
                              float* y, std::size_t y_stride, bool asks_for_next) {
    const std::size_t step = Step::values * hn::Lanes(D());
    Sums<R, T> sums;
    Vectors<T> xs;
    set_zero(sums);
    const std::size_t rest = cols % step, whole = cols - rest;
    for (const W* const end = w + whole; w != end; w += step, x += step) {
      load_tokens<Step>(x, x_stride, xs);
      if constexpr (R > 1 && T > 1) {
        if (asks_for_next) prefetch<R>(w + 2 * R * w_stride, w_stride);
      }
      multiply_add<Step>(w, w_stride, xs, sums);
    }
    store_tile(sums, y, y_stride);
    if (rest > 0) add_rest(w, w_stride, R, rest, x, x_stride, T, y, y_stride);
  }

  /// Prefetches the rows that several tokens need next: products keep a core too busy to look that far ahead. Only into
  /// L2, because L1 is full of current rows and tokens. Prefetching past the end reads nothing.
  template <std::size_t R, class W>
  static PLE_INLINE void prefetch(const W* w, std::size_t stride) {
    if constexpr (HWY_MAX_BYTES >= 32) {  // smaller vectors would prefetch each cache line several times
      __builtin_prefetch(w, 0, 2);
      if constexpr (R > 1) prefetch<R - 1>(w + stride, stride);
    }
  }

  /// Adds the columns after the last whole vector. Not inlined, because models have none.
  template <class W, class X>
  static HWY_NOINLINE void add_rest(const W* w, std::size_t w_stride, std::size_t rows, std::size_t count, const X* x,
                                    std::size_t x_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    for (std::size_t begin = 0; begin < count; begin += hn::Lanes(D())) {
      const std::size_t n = (std::min)(count - begin, hn::Lanes(D()));
      for (std::size_t r = 0; r < rows; ++r) {
        const V ws = load_some(w + r * w_stride + begin, n);
        for (std::size_t t = 0; t < tokens; ++t) {
          y[t * y_stride + r] += sum_of(hn::Mul(ws, load_some(x + t * x_stride + begin, n)));
        }
      }
    }
  }

  template <std::size_t T, class W>  // the sums of weighted_sum: tile_rows vectors of a row, T tokens
  static PLE_INLINE void add_tile(const W* rows, std::size_t stride, std::size_t n, const float* weights,
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
  static PLE_INLINE void set_tokens(const float* x, std::size_t stride, Vectors<T>& xs) {
    xs.first = hn::Set(D(), *x);
    if constexpr (T > 1) set_tokens(x + stride, stride, xs.rest);
  }
  template <std::size_t R, std::size_t T>
  static PLE_INLINE void load_sums(const float* y, std::size_t stride, Sums<R, T>& sums) {
    load_tokens<Floats>(y, stride, sums.first);
    if constexpr (R > 1) load_sums(y + hn::Lanes(D()), stride, sums.rest);
  }
  template <std::size_t T>
  static PLE_INLINE void store_tokens(const Vectors<T>& xs, float* y, std::size_t stride) {
    hn::StoreU(xs.first, D(), y);
    if constexpr (T > 1) store_tokens(xs.rest, y + stride, stride);
  }
  template <std::size_t R, std::size_t T>
  static PLE_INLINE void store_sums_as_they_are(const Sums<R, T>& sums, float* y, std::size_t stride) {
    store_tokens(sums.first, y, stride);
    if constexpr (R > 1) store_sums_as_they_are(sums.rest, y + hn::Lanes(D()), stride);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif  // PLE_SIMD_FLOAT_PRODUCTS_INL_H_
