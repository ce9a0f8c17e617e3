// SPDX-License-Identifier: Apache-2.0
// Products of tiles of integer weights with 8-bit activations: included by kernels-inl.h, once per target.
#if defined(PLE_SIMD_TILES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_TILES_INL_H_
#undef PLE_SIMD_TILES_INL_H_
#else
#define PLE_SIMD_TILES_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ple/core/config.h"
#include "ple/packing/tiles.h"
#include "ple/simd/dot-inl.h"
#include "ple/simd/f16-inl.h"
#include "ple/simd/highway-inl.h"
#include "ple/simd/quantized_rows.h"
#include "ple/simd/quants-inl.h"

#if HWY_TARGET != HWY_SCALAR  // which lacks vectors of bytes
PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// One row per lane. Sums go from sub-block to sub-block on every target: a text gives the same bits whole or in parts.
template <class Dot>
class Integers {
 public:
  /// Bytes that a product of many tokens needs for a tile of weights.
  static std::size_t tile_bytes(std::size_t cols) {
    return rows_per_tile * (cols + cols / 16 * 2 * sizeof(float)) + alignment;
  }

  /// y[t, r] = sum_c w[r, c] * x[t, c]. `memory`: tile_bytes(cols), aligned to a cache line, for more than one token.
  static void matmul(const PackedTiles& w, const QuantizedRows& x, float* y, std::size_t y_stride, std::byte* memory) {
    C::with_planes(*w.layout.format, [&](auto planes) { multiply<planes.value>(w, x, y, y_stride, memory); });
  }

 private:
  using C = Quants<Dot>;
  using Planes = typename C::Planes;
  using DF = typename C::DF;
  using DI = typename C::DI;
  using D8 = typename C::D8;
  using VF = typename C::VF;
  using VI = typename C::VI;
  using V8 = typename C::V8;
  static constexpr std::size_t N = C::N;  // rows per vector

  /// Scales (kind 0) or minimums (kind 1) of sub-block s, which lies at `from`, for rows r to r + N - 1.
  template <Planes p>
  static PLE_INLINE VF scales(const TileLayout& layout, const std::byte* tile, const std::byte* from, std::size_t s,
                              std::size_t kind, std::size_t r) {
    const DF d;
    const hn::Rebind<std::uint16_t, DF> d16;
    const auto halves = [&](const std::byte* at) PLE_LAMBDA_ATTR {
      return promote_f16(d, hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(at)));
    };
    const std::size_t at = kind * rows_per_tile + r;
    if constexpr (p.table) {  // all types of bf16 scales have one
      if (layout.format->has_bf16_scales) {
        const auto bits = hn::LoadU(d16, reinterpret_cast<const std::uint16_t*>(from + at * 2));
        return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(hn::RebindToUnsigned<DF>(), bits)));
      }
    }
    if (!layout.format->has_super_scale) return halves(from + at * 2);
    const std::size_t kinds = layout.format->has_minimum ? 2 : 1, c = s * layout.format->sub_block / values_per_chunk;
    const auto integers = hn::LoadU(hn::Rebind<std::int8_t, DF>(), reinterpret_cast<const std::int8_t*>(from) + at);
    return hn::Mul(halves(tile + (c * kinds * rows_per_tile + at) * 2),
                   hn::ConvertTo(d, hn::PromoteTo(DI(), integers)));
  }

  // Members stay in registers, arrays not always. Implicit constructors would not be compiled for the target.
  template <class V, std::size_t n>
  struct Vectors {
    PLE_INLINE Vectors() {}  // NOLINT(modernize-use-equals-default)
    V first;
    Vectors<V, n - 1> rest;
  };
  template <class V>
  struct Vectors<V, 1> {
    PLE_INLINE Vectors() {}  // NOLINT(modernize-use-equals-default)
    V first;
  };
  /// f(vector, t) for each
  template <std::size_t t = 0, class V, std::size_t n, class F>
  static PLE_INLINE void each(Vectors<V, n>& all, F&& f) {
    f(all.first, t);
    if constexpr (n > 1) each<t + 1>(all.rest, f);
  }
  template <std::size_t t = 0, class V, class U, std::size_t n, class F>
  static PLE_INLINE void each(Vectors<V, n>& all, Vectors<U, n>& others, F&& f) {
    f(all.first, others.first, t);
    if constexpr (n > 1) each<t + 1>(all.rest, others.rest, f);
  }

  template <Planes p>
  static HWY_NOINLINE void multiply(const PackedTiles& w, const QuantizedRows& x, float* y, std::size_t y_stride,
                                    std::byte* memory) {
    if (x.tokens() == 1) prefetch(x);
    for (std::size_t r = 0; r < w.rows; r += rows_per_tile) {
      const std::byte* tile = w.tiles + r / rows_per_tile * w.layout.tile_bytes;
      const std::size_t rows = (std::min)(rows_per_tile, w.rows - r);
      if (x.tokens() == 1) {
        gemv<p, 1>(w.layout, tile, x, 0, rows, y + r, y_stride);
      } else if (x.tokens() <= 4) {
        gemv<p, 4>(w.layout, tile, x, 0, rows, y + r, y_stride);
      } else if constexpr (eight_fit<p>) {
        for (std::size_t t = 0; t < x.tokens(); t += 8) {
          gemv<p, 8>(w.layout, tile, x, t, rows, y + t * y_stride + r, y_stride);
        }
      } else {
        constexpr bool is_small = Dot::is_signed && C::template is_small<p>;  // matters to signed products only
        const Unpacked unpacked = unpack<p>(w.layout, tile, memory);
        for (std::size_t t = 0; t < x.tokens(); t += tokens_per_tile) {
          for (std::size_t v = 0; v * N < rows; ++v) {
            gemm<p.sub_block, is_small>(unpacked, v, x, t, rows - v * N, y + t * y_stride + r + v * N, y_stride);
          }
        }
      }
    }
  }

  /// Fetches one token from the cache of the core that made it: all lines at once, not one by one.
  static PLE_INLINE void prefetch(const QuantizedRows& x) {
    for (std::size_t i = 0; i < x.memory().size(); i += alignment) hwy::Prefetch(x.memory().data() + i);
  }

  /// Into L2, not L1 as hwy::Prefetch does: a core can wait for few L1 lines, and each is taken for a memory latency.
  static PLE_INLINE void prefetch_to_l2(const std::byte* p) { __builtin_prefetch(p, 0, 2); }

  /// Whether registers hold eight tokens' sums, a sub-block's weights and what unpacking needs.
  template <Planes p>
  static constexpr bool eight_fit = (N == rows_per_tile || HWY_ARCH_ARM_A64) &&
                                    (p.sub_block == 16 || (p.high == 0 && !p.table));

  static PLE_INLINE void store(VF sums, std::size_t rows, float* y) {
    if (rows >= N) return hn::StoreU(sums, DF(), y);
    HWY_ALIGN float part[N];
    hn::Store(sums, DF(), part);
    std::copy_n(part, rows, y);
  }

  /// Adds four weights of each row times the same four values to dots; `is_small`: the weights lie in [0, 63].
  template <bool is_small>
  static PLE_INLINE VI multiply_quad(VI dots, V8 weights, const std::int8_t* values) {
    if constexpr (requires { Dot::quads_of(dots, weights, values); }) {
      return Dot::quads_of(dots, weights, values);
    } else {
      std::int32_t bytes;
      std::memcpy(&bytes, values, sizeof bytes);
      const auto x = hn::BitCast(hn::Repartition<std::int8_t, DI>(), hn::Set(DI(), bytes));
      return C::template multiply_add<is_small>(dots, weights, x);
    }
  }

  /// Tokens [first, first + T), straight from the quants: it must keep up with memory.
  template <Planes p, std::size_t T>
  static PLE_INLINE void gemv(const TileLayout& layout, const std::byte* tile, const QuantizedRows& x,
                              std::size_t first, std::size_t rows, float* y, std::size_t y_stride) {
    const DF df;
    const DI di;
    const bool has_minimum = layout.format->has_minimum;
    const V8 table = C::template table_of<p>(*layout.format);
    for (std::size_t v = 0; v * N < rows; ++v) {
      constexpr std::size_t half = (T + 1) / 2;  // compilers do not keep eight vectors of one struct in registers
      Vectors<VF, half> sums, more;
      const auto each_sum = [&](auto&& f) PLE_LAMBDA_ATTR {
        each(sums, f);
        if constexpr (T > 1) each(more, [&](VF& sum, std::size_t t) PLE_LAMBDA_ATTR { f(sum, half + t); });
      };
      each_sum([&](VF& sum, std::size_t) PLE_LAMBDA_ATTR { sum = hn::Zero(df); });
      const std::int8_t* values = x.values(first, 0);
      const float *x_scales = &x.scale(first, 0), *x_sums = &x.sum(first, 0);
      const std::int32_t* offsets = &x.offset(first, 0);
      const std::byte* from = tile + layout.sub_blocks_at;
      for (std::size_t s = 0; s < layout.sub_blocks; ++s) {
        if constexpr (T > 1 || p.low == 8) {                  // a core itself prefetches too late when busy
          constexpr std::size_t ahead = T > 1 ? 4096 : 2048;  // or when it needs a line every four products; bytes
          for (std::size_t i = 0; i < layout.sub_block_bytes; i += alignment) prefetch_to_l2(from + ahead + i);
        }
        Vectors<V8, p.sub_block / 4> weights;
        unpack_quads<p>(reinterpret_cast<const std::uint8_t*>(from + layout.scale_bytes), v, table, weights);
        const VF scale = scales<p>(layout, tile, from, s, 0, v * N);
        each_sum([&](VF& sum, std::size_t t) PLE_LAMBDA_ATTR {
          VI dots = hn::Set(di, offsets[t]), others = hn::Zero(di);  // two, so that they wait less for each other
          each(weights, [&](V8& quad, std::size_t q) PLE_LAMBDA_ATTR {
            VI& dot = q % 2 ? others : dots;
            dot = multiply_quad<C::template is_small<p>>(dot, quad, values + t * p.sub_block + 4 * q);
          });
          sum = hn::MulAdd(hn::Mul(hn::ConvertTo(df, hn::Add(dots, others)), hn::Set(df, x_scales[t])), scale, sum);
        });
        if (has_minimum) {
          const VF minimum = scales<p>(layout, tile, from, s, 1, v * N);
          each_sum([&](VF& sum, std::size_t t)
                       PLE_LAMBDA_ATTR { sum = hn::NegMulAdd(minimum, hn::Set(df, x_sums[t]), sum); });
        }
        from += layout.sub_block_bytes;
        values += T * p.sub_block;
        x_scales += T;
        x_sums += T;
        offsets += T;
      }
      each_sum([&](VF& sum, std::size_t t) PLE_LAMBDA_ATTR {
        if (first + t < x.tokens()) store(sum, rows - v * N, y + t * y_stride + v * N);
      });
    }
  }

  template <Planes p, std::size_t q = 0, std::size_t n>
  static PLE_INLINE void unpack_quads(const std::uint8_t* quants, std::size_t v, V8 table, Vectors<V8, n>& all) {
    all.first = C::template integers<p, q>(quants, v, table);
    if constexpr (n > 1) unpack_quads<p, q + 1>(quants, v, table, all.rest);
  }

  /// A tile's weights, unpacked once for many tokens: [sub-block, quad, row, 4] integers; [sub-block, row] scales.
  struct Unpacked {
    std::uint8_t* integers;
    float *scales, *minimums;  // minimums: null where the type has none
  };

  template <Planes p>
  static PLE_INLINE Unpacked unpack(const TileLayout& layout, const std::byte* tile, std::byte* memory) {
    Unpacked all{reinterpret_cast<std::uint8_t*>(memory),
                 reinterpret_cast<float*>(memory + rows_per_tile * layout.cols), nullptr};
    if (layout.format->has_minimum) all.minimums = all.scales + layout.sub_blocks * rows_per_tile;
    const V8 table = C::template table_of<p>(*layout.format);
    const std::byte* from = tile + layout.sub_blocks_at;
    for (std::size_t s = 0; s < layout.sub_blocks; ++s, from += layout.sub_block_bytes) {
      const auto* quants = reinterpret_cast<const std::uint8_t*>(from + layout.scale_bytes);
      std::uint8_t* to = all.integers + s * p.sub_block * rows_per_tile;
      for (std::size_t v = 0; v < rows_per_tile / N; ++v) {
        const std::size_t r = v * N, at = s * rows_per_tile + r;
        hn::StoreU(scales<p>(layout, tile, from, s, 0, r), DF(), all.scales + at);
        if (all.minimums) hn::StoreU(scales<p>(layout, tile, from, s, 1, r), DF(), all.minimums + at);
        C::template each_quad<p>(quants, v, table, [&](V8 quad, std::size_t q) PLE_LAMBDA_ATTR {
          hn::StoreU(quad, D8(), to + 64 * q + 4 * N * v);
        });
      }
    }
    return all;
  }

  /// Tokens [first, first + 8) times rows v N to v N + N - 1 of a tile.
  template <std::size_t sub_block, bool is_small>
  static HWY_NOINLINE void gemm(const Unpacked& w, std::size_t v, const QuantizedRows& x, std::size_t first,
                                std::size_t rows, float* y, std::size_t y_stride) {
    constexpr std::size_t T = tokens_per_tile;
    const DF df;
    const DI di;
    const std::uint8_t* integers = w.integers + 4 * N * v;
    const float *scales = w.scales + N * v, *minimums = w.minimums ? w.minimums + N * v : nullptr;
    const std::int8_t* values = x.values(first, 0);
    const float *x_scales = &x.scale(first, 0), *x_sums = &x.sum(first, 0);
    const std::int32_t* offsets = &x.offset(first, 0);
    Vectors<VF, T> sums;
    each(sums, [&](VF& sum, std::size_t) PLE_LAMBDA_ATTR { sum = hn::Zero(df); });
    for (std::size_t s = 0; s < x.sub_blocks(); ++s) {
      Vectors<VI, T> dots;
      each(dots, [&](VI& dot, std::size_t t) PLE_LAMBDA_ATTR { dot = hn::Set(di, offsets[t]); });
      for (std::size_t k = 0; k < sub_block; k += 4, integers += 64) {
        const V8 quad = hn::LoadU(D8(), integers);
        each(dots, [&](VI& dot, std::size_t t)
                       PLE_LAMBDA_ATTR { dot = multiply_quad<is_small>(dot, quad, values + t * sub_block + k); });
      }
      const VF scale = hn::LoadU(df, scales);
      each(sums, dots, [&](VF& sum, VI& dot, std::size_t t) PLE_LAMBDA_ATTR {
        sum = hn::MulAdd(hn::Mul(hn::ConvertTo(df, dot), hn::Set(df, x_scales[t])), scale, sum);
      });
      if (minimums) {
        const VF minimum = hn::LoadU(df, minimums);
        each(sums, [&](VF& sum, std::size_t t)
                       PLE_LAMBDA_ATTR { sum = hn::NegMulAdd(minimum, hn::Set(df, x_sums[t]), sum); });
        minimums += rows_per_tile;
      }
      scales += rows_per_tile;
      values += T * sub_block;
      x_scales += T;
      x_sums += T;
      offsets += T;
    }
    const std::size_t tokens = (std::min)(T, x.tokens() - first);
    each(sums, [&](VF& sum, std::size_t t) PLE_LAMBDA_ATTR {
      if (t < tokens) store(sum, rows, y + t * y_stride);
    });
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif
#endif  // PLE_SIMD_TILES_INL_H_
