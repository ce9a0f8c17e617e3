// SPDX-License-Identifier: Apache-2.0
// What training needs beside the forward pass's kernels: included once per target. ple/simd/scalar_gradients.h defines
// each. They are templates so that programs which do not train do not compile them.
#if defined(PLE_SIMD_GRADIENTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_GRADIENTS_INL_H_
#undef PLE_SIMD_GRADIENTS_INL_H_
#else
#define PLE_SIMD_GRADIENTS_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>

#include "ple/core/config.h"
#include "ple/simd/float_products-inl.h"
#include "ple/simd/float_vectors-inl.h"
#include "ple/simd/highway-inl.h"
#include "ple/simd/scalar_gradients.h"

PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Tiles of gemm(), whose sums stay in registers.
struct GemmTiles {
  using D = FloatVectors::D;
  using V = FloatVectors::V;

  // A tile's sums fit in registers, with two vectors of b and one of a: 12 x 2 of the 32 of AVX-512 and NEON, 6 x 2 of
  // the others' 16.
  static constexpr std::size_t tile_rows = HWY_MAX_BYTES == 64 || HWY_ARCH_ARM_A64 ? 12 : 6;

  // Members stay in registers, arrays not always. Implicit constructors would not be compiled for the target.
  template <std::size_t R, class = void>
  struct Sums {
    PLE_INLINE Sums() {}  // NOLINT(modernize-use-equals-default)
    V left, right;
    Sums<R - 1> rest;
  };
  template <class Dummy>
  struct Sums<0, Dummy> {};

  /// packed[k, 0..width) = b[k, 0..cols), filled up with 0
  static PLE_INLINE void pack(const float* b, std::size_t stride, std::size_t rows, std::size_t cols, std::size_t width,
                              float* packed) {
    const D d;
    const std::size_t lanes = hn::Lanes(d), left = (std::min)(lanes, cols), right = cols - left;
    for (std::size_t k = 0; k < rows; ++k, b += stride, packed += width) {
      hn::StoreU(FloatVectors::load_some(b, left), d, packed);
      hn::StoreU(right > 0 ? FloatVectors::load_some(b + lanes, right) : hn::Zero(d), d, packed + lanes);
    }
  }

  template <std::size_t R>
  static PLE_INLINE void load(const float* c, std::size_t stride, std::size_t left, std::size_t right, Sums<R>& sums) {
    if constexpr (R > 0) {
      sums.left = FloatVectors::load_some(c, left);
      sums.right = right > 0 ? FloatVectors::load_some(c + hn::Lanes(D()), right) : hn::Zero(D());
      load(c + stride, stride, left, right, sums.rest);
    }
  }
  template <std::size_t R>
  static PLE_INLINE void store(const Sums<R>& sums, std::size_t left, std::size_t right, float* c, std::size_t stride) {
    if constexpr (R > 0) {
      FloatVectors::store_some(sums.left, left, c);
      if (right > 0) FloatVectors::store_some(sums.right, right, c + hn::Lanes(D()));
      store(sums.rest, left, right, c + stride, stride);
    }
  }
  template <std::size_t R>
  static PLE_INLINE void multiply_add(const float* a, std::size_t stride, V left, V right, Sums<R>& sums) {
    if constexpr (R > 0) {
      const V x = hn::Set(D(), *a);
      sums.left = hn::MulAdd(x, left, sums.left);
      sums.right = hn::MulAdd(x, right, sums.right);
      multiply_add(a + stride, stride, left, right, sums.rest);
    }
  }

  template <std::size_t R>
  static PLE_INLINE void tile(Strided a, std::size_t first, std::size_t depth, const float* packed, std::size_t cols,
                              float* c, std::size_t c_stride) {
    const D d;
    const std::size_t lanes = hn::Lanes(d), left = (std::min)(lanes, cols), right = cols - left;
    const float* x = a.data + first * a.row;
    Sums<R> sums;
    load(c, c_stride, left, right, sums);
    for (std::size_t k = 0; k < depth; ++k, x += a.col, packed += 2 * lanes) {
      multiply_add(x, a.row, FloatVectors::load(packed), FloatVectors::load(packed + lanes), sums);
    }
    store(sums, left, right, c, c_stride);
  }

  /// The last `rows` rows, R or fewer.
  template <std::size_t R>
  static PLE_INLINE void rest(std::size_t rows, Strided a, std::size_t first, std::size_t depth, const float* packed,
                              std::size_t cols, float* c, std::size_t c_stride) {
    if constexpr (R > 0) {
      if (rows == R) {
        tile<R>(a, first, depth, packed, cols, c, c_stride);
      } else {
        rest<R - 1>(rows, a, first, depth, packed, cols, c, c_stride);
      }
    }
  }
};

struct Gradients : FloatProducts {
  /// A strip of b, two vectors wide, is copied side by side, so that it stays in the L1 cache while all rows of a pass.
  template <std::same_as<float> F>
  static HWY_NOINLINE void gemm(Strided a, const F* b, std::size_t b_stride, std::size_t m, std::size_t n,
                                std::size_t depth, F* c, std::size_t c_stride) {
    constexpr std::size_t most = 2 * hn::MaxLanes(D()), strip = 256;
    alignas(64) float packed[strip * most];
    const std::size_t lanes = hn::Lanes(D()), width = 2 * lanes;
    for (std::size_t k = 0; k < depth; k += strip) {
      const std::size_t rows = (std::min)(strip, depth - k);
      for (std::size_t j = 0; j < n; j += width) {
        const std::size_t cols = (std::min)(width, n - j);
        GemmTiles::pack(b + k * b_stride + j, b_stride, rows, cols, width, packed);
        const Strided from{a.data + k * a.col, a.row, a.col};
        std::size_t i = 0;
        for (; i + GemmTiles::tile_rows <= m; i += GemmTiles::tile_rows) {
          GemmTiles::tile<GemmTiles::tile_rows>(from, i, rows, packed, cols, c + i * c_stride + j, c_stride);
        }
        GemmTiles::rest<GemmTiles::tile_rows - 1>(m - i, from, i, rows, packed, cols, c + i * c_stride + j, c_stride);
      }
    }
  }

  template <std::same_as<float> F>
  static HWY_NOINLINE void rms_norm_backward(const F* x, const F* weight, std::size_t n, float epsilon, const F* dy,
                                             F* dx) {
    const std::size_t lanes = hn::Lanes(D()), whole = n - n % lanes;
    V squares = hn::Zero(D()), products = hn::Zero(D());
    const auto g_of = [&](std::size_t i) PLE_LAMBDA_ATTR {
      const V d = load(dy + i);
      return weight ? hn::Mul(d, load(weight + i)) : d;
    };
    for (std::size_t i = 0; i < whole; i += lanes) {
      const V v = load(x + i);
      squares = hn::MulAdd(v, v, squares);
      products = hn::MulAdd(v, g_of(i), products);
    }
    float square = sum_of(squares), product = sum_of(products);
    for (std::size_t i = whole; i < n; ++i) {
      square += x[i] * x[i];
      product += dy[i] * (weight ? weight[i] : 1.0f) * x[i];
    }
    const auto count = static_cast<float>(n);
    const float r = 1.0f / std::sqrt(square / count + epsilon), part = r * r * product / count;
    const V rs = hn::Set(D(), r), parts = hn::Set(D(), part);
    for (std::size_t i = 0; i < whole; i += lanes) {
      hn::StoreU(hn::Mul(rs, hn::NegMulAdd(load(x + i), parts, g_of(i))), D(), dx + i);
    }
    for (std::size_t i = whole; i < n; ++i) dx[i] = r * (dy[i] * (weight ? weight[i] : 1.0f) - x[i] * part);
  }

  template <std::same_as<float> F>
  static HWY_NOINLINE void gated_gelu_backward(std::size_t n, const F* da, F* g, F* u) {
    const D d;
    const V one = hn::Set(d, 1.0f), most = hn::Set(d, ScalarGradients::gelu_range), least = hn::Neg(most);
    for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
      const std::size_t count = (std::min)(hn::Lanes(d), n - i);
      const V gate = load_some(g + i, count), dy = load_some(da + i, count);
      V x = hn::IfThenElse(hn::Lt(gate, least), least, gate);  // not Max: NaN stays NaN
      x = hn::IfThenElse(hn::Gt(x, most), most, x);
      const V squared = hn::Mul(x, x), cubic = hn::Mul(hn::Set(d, 0.044715f), squared);
      const V minus_2v = hn::Mul(hn::Set(d, -1.5957691216f), hn::MulAdd(x, cubic, x));
      const V s = hn::Div(one, hn::Add(one, hn::Exp(d, hn::Min(minus_2v, hn::Set(d, 88.0f)))));
      const V inner = hn::Mul(hn::Set(d, 1.5957691216f), hn::MulAdd(hn::Set(d, 3.0f), cubic, one));
      const V slope = hn::MulAdd(hn::Mul(hn::Mul(x, s), hn::Sub(one, s)), inner, s);
      store_some(hn::Mul(hn::Mul(dy, load_some(u + i, count)), slope), count, g + i);
      store_some(hn::Mul(dy, hn::Mul(gate, s)), count, u + i);
    }
  }

  template <std::same_as<float> F>
  static HWY_NOINLINE void softmax_backward(std::size_t n, const F* p, float delta, F* dp) {
    for (std::size_t i = 0; i < n; i += hn::Lanes(D())) {
      const std::size_t count = (std::min)(hn::Lanes(D()), n - i);
      const V d = hn::Sub(load_some(dp + i, count), hn::Set(D(), delta));
      store_some(hn::Mul(load_some(p + i, count), d), count, dp + i);
    }
  }

  template <std::same_as<float> F>
  static HWY_NOINLINE float log_sum_exp(std::size_t n, const F* y) {
    const D d;
    const std::size_t lanes = hn::Lanes(d), whole = n - n % lanes;
    V most = hn::Set(d, -std::numeric_limits<float>::infinity());
    for (std::size_t i = 0; i < whole; i += lanes) most = hn::Max(most, load(y + i));
    float largest = hn::GetLane(hn::MaxOfLanes(d, most));
    for (std::size_t i = whole; i < n; ++i) largest = (std::max)(largest, y[i]);
    V sums = hn::Zero(d);
    for (std::size_t i = 0; i < whole; i += lanes) {
      sums = hn::Add(sums, hn::Exp(d, hn::Sub(load(y + i), hn::Set(d, largest))));
    }
    float sum = sum_of(sums);
    for (std::size_t i = whole; i < n; ++i) sum += std::exp(y[i] - largest);
    return largest + std::log(sum);
  }

  template <std::same_as<float> F>
  static HWY_NOINLINE void cross_entropy_backward(float cap, float lse, float factor, std::size_t n, F* y) {
    const D d;
    const V inverse = hn::Set(d, cap > 0 ? 1 / cap : 0.0f);
    for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
      const std::size_t count = (std::min)(hn::Lanes(d), n - i);
      const V v = load_some(y + i, count), tanh = hn::Mul(v, inverse);
      const V p = hn::Mul(hn::Set(d, factor), hn::Exp(d, hn::Sub(v, hn::Set(d, lse))));
      store_some(hn::Mul(p, hn::NegMulAdd(tanh, tanh, hn::Set(d, 1.0f))), count, y + i);
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif  // PLE_SIMD_GRADIENTS_INL_H_
