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

  // A tile's sums, with two vectors of b and one of a: 12 x 2 of the 32 registers of AVX-512 and NEON, 6 x 2 of the
  // others' 16.
  static constexpr std::size_t tile_rows = HWY_MAX_BYTES == 64 || HWY_ARCH_ARM_A64 ? 12 : 6;
  static constexpr std::size_t most_cols = 2 * hn::MaxLanes(D());

  // Members stay in registers, arrays not always. Implicit constructors would not be compiled for the target.
  template <std::size_t R, class = void>
  struct Sums {
    PLE_INLINE Sums() {}  // NOLINT(modernize-use-equals-default)
    V left, right;
    Sums<R - 1> rest;
  };
  template <class Dummy>
  struct Sums<0, Dummy> {};

  /// Strips of b, [rows, cols], each `width` columns, filled up with 0, and `strip` values apart. Row by row, since
  /// b's rows may lie in pages of their own; of a transposed b, 4 rows and columns at a time.
  static PLE_INLINE void pack(Strided b, std::size_t rows, std::size_t cols, std::size_t width, std::size_t strip,
                              float* packed) {
    const D d;
    const std::size_t lanes = hn::Lanes(d), whole = cols - cols % width;
    std::size_t done = 0;  // rows of whole strips
#if HWY_TARGET != HWY_SCALAR
    for (; b.row == 1 && done + 4 <= rows; done += 4) {
      for (std::size_t j = 0; j < whole; j += 4) {
        transpose(b.data + done + j * b.col, b.col, packed + j / width * strip + done * width + j % width, width);
      }
    }
#endif
    for (std::size_t k = 0; k < rows; ++k) {
      const float* const from = b.data + k * b.row;
      float* const to = packed + k * width;
      for (std::size_t j = 0; j < cols; j += width) {
        float* const out = to + j / width * strip;
        if (j < whole && k < done) continue;
        if (j < whole && b.col == 1) {
          hn::StoreU(FloatVectors::load(from + j), d, out);
          hn::StoreU(FloatVectors::load(from + j + lanes), d, out + lanes);
          continue;
        }
        const std::size_t count = (std::min)(width, cols - j);
        for (std::size_t i = 0; i < count; ++i) out[i] = from[(j + i) * b.col];
        for (std::size_t i = count; i < width; ++i) out[i] = 0;
      }
    }
  }

#if HWY_TARGET != HWY_SCALAR
  /// out[k, j] = in[j, k], 4 x 4
  static PLE_INLINE void transpose(const float* in, std::size_t in_stride, float* out, std::size_t out_stride) {
    const hn::FixedTag<float, 4> d;
    const auto a = hn::LoadU(d, in), b = hn::LoadU(d, in + in_stride), c = hn::LoadU(d, in + 2 * in_stride),
               e = hn::LoadU(d, in + 3 * in_stride);
    const auto ab = hn::InterleaveLower(d, a, b), ce = hn::InterleaveLower(d, c, e),
               ab_upper = hn::InterleaveUpper(d, a, b), ce_upper = hn::InterleaveUpper(d, c, e);
    hn::StoreU(hn::ConcatLowerLower(d, ce, ab), d, out);
    hn::StoreU(hn::ConcatUpperUpper(d, ce, ab), d, out + out_stride);
    hn::StoreU(hn::ConcatLowerLower(d, ce_upper, ab_upper), d, out + 2 * out_stride);
    hn::StoreU(hn::ConcatUpperUpper(d, ce_upper, ab_upper), d, out + 3 * out_stride);
  }
#endif

  template <std::size_t R>
  static PLE_INLINE void load(const float* c, std::size_t stride, Sums<R>& sums) {
    if constexpr (R > 0) {
      sums.left = FloatVectors::load(c);
      sums.right = FloatVectors::load(c + hn::Lanes(D()));
      load(c + stride, stride, sums.rest);
    }
  }
  template <std::size_t R>
  static PLE_INLINE void store(const Sums<R>& sums, float* c, std::size_t stride) {
    if constexpr (R > 0) {
      hn::StoreU(sums.left, D(), c);
      hn::StoreU(sums.right, D(), c + hn::Lanes(D()));
      store(sums.rest, c + stride, stride);
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

  /// c += a b, R rows and the columns of a packed strip
  template <std::size_t R>
  static HWY_NOINLINE void tile(Strided a, std::size_t depth, const float* packed, float* c, std::size_t c_stride) {
    const std::size_t lanes = hn::Lanes(D());
    Sums<R> sums;
    load(c, c_stride, sums);
    for (const float* const end = packed + depth * 2 * lanes; packed != end; packed += 2 * lanes, a.data += a.col) {
      multiply_add(a.data, a.row, FloatVectors::load(packed), FloatVectors::load(packed + lanes), sums);
    }
    store(sums, c, c_stride);
  }

  /// The same for `rows` rows, R or fewer, and only `cols` of the columns.
  template <std::size_t R>
  static PLE_INLINE void some_tile(std::size_t rows, Strided a, std::size_t depth, const float* packed,
                                   std::size_t cols, float* c, std::size_t c_stride) {
    if constexpr (R > 0) {
      if (rows < R) return some_tile<R - 1>(rows, a, depth, packed, cols, c, c_stride);
      const std::size_t width = 2 * hn::Lanes(D());
      if (cols == width) return tile<R>(a, depth, packed, c, c_stride);
      float whole[R * most_cols] = {};
      for (std::size_t i = 0; i < R; ++i) std::copy_n(c + i * c_stride, cols, whole + i * width);
      tile<R>(a, depth, packed, whole, width);
      for (std::size_t i = 0; i < R; ++i) std::copy_n(whole + i * width, cols, c + i * c_stride);
    }
  }
};

struct Gradients : FloatProducts {
  /// Strips of b, two vectors wide, are copied side by side. One of them stays in the L1 cache while a block of a's
  /// rows, which stays in L2, passes.
  template <std::same_as<float> F>
  static HWY_NOINLINE void gemm(Strided a, Strided b, std::size_t m, std::size_t n, std::size_t depth, F* c,
                                std::size_t c_stride) {
    constexpr std::size_t strip = 128, packed_cols = 128, block = 32 * GemmTiles::tile_rows;
    alignas(64) float packed[strip * packed_cols];
    const std::size_t width = 2 * hn::Lanes(D());
    for (std::size_t k = 0; k < depth; k += strip) {
      const std::size_t rows = (std::min)(strip, depth - k);
      for (std::size_t first = 0; first < n; first += packed_cols) {
        const std::size_t last = (std::min)(n, first + packed_cols);
        GemmTiles::pack({b.data + k * b.row + first * b.col, b.row, b.col}, rows, last - first, width, strip * width,
                        packed);
        for (std::size_t begin = 0; begin < m; begin += block) {
          const std::size_t end = (std::min)(m, begin + block);
          for (std::size_t j = first; j < last; j += width) {
            for (std::size_t i = begin; i < end; i += GemmTiles::tile_rows) {
              GemmTiles::some_tile<GemmTiles::tile_rows>(
                  (std::min)(GemmTiles::tile_rows, end - i), {a.data + i * a.row + k * a.col, a.row, a.col}, rows,
                  packed + (j - first) * strip, (std::min)(width, last - j), c + i * c_stride + j, c_stride);
            }
          }
        }
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
