// SPDX-License-Identifier: Apache-2.0
// Products of selected rows of integer weights with one token: included once per target.
#if defined(PLE_SIMD_PACKED_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_PACKED_ROWS_INL_H_
#undef PLE_SIMD_PACKED_ROWS_INL_H_
#else
#define PLE_SIMD_PACKED_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/packing/packed_rows.h"
#include "ple/simd/f16-inl.h"
#include "ple/simd/highway-inl.h"
#include "ple/simd/quants-inl.h"
#include "ple/simd/row_activations.h"

#if HWY_TARGET != HWY_SCALAR  // which lacks vectors of bytes
PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// One sub-block per lane.
template <class Dot>
class PackedRowsProduct {
 public:
  /// y[i] = sum_c w[rows[i], c] * x[c] for `count` rows
  static void multiply_rows(const PackedRows& w, const std::size_t* rows, std::size_t count, const RowActivations& x,
                            float* y) {
    C::with_planes(*w.layout.format, [&](auto planes) { multiply<planes.value>(w, rows, count, x, y); });
  }

 private:
  using C = Quants<Dot>;
  using DF = typename C::DF;
  using DI = typename C::DI;
  using VF = typename C::VF;
  using VI = typename C::VI;
  using V8 = typename C::V8;
  static constexpr std::size_t N = C::N;

  /// Multiplies sixteen sub-blocks side by side, each with its own activations.
  template <typename C::Planes p>
  static HWY_NOINLINE void multiply(const PackedRows& w, const std::size_t* rows, std::size_t count,
                                    const RowActivations& x, float* y) {
    const DF df;
    const DI di;
    constexpr std::size_t ahead = 4;  // rows prefetched before their turn: they are scattered
    const PackedRowLayout& layout = w.layout;
    const V8 table = C::template table_of<p>(*layout.format);
    const auto ask_for = [&](std::size_t i) PLE_LAMBDA_ATTR {
      for (std::size_t at = 0; at < layout.row_bytes; at += alignment) hwy::Prefetch(w.row(rows[i]) + at);
    };
    for (std::size_t i = 0; i < (std::min)(ahead, count); ++i) ask_for(i);
    for (std::size_t i = 0; i < count; ++i) {
      if (i + ahead < count) ask_for(i + ahead);
      VF sum = hn::Zero(df);
      const std::byte* tile = w.row(rows[i]);
      for (std::size_t s = 0; s < layout.tiles * sub_blocks_per_tile; s += sub_blocks_per_tile) {
        const auto* quants = reinterpret_cast<const std::uint8_t*>(tile + layout.scale_bytes);
        for (std::size_t v = 0; v < sub_blocks_per_tile / N; ++v) {
          const std::int8_t* values = x.values + s * p.sub_block + 4 * N * v;
          VI dots = hn::LoadU(di, x.offsets + s + N * v);
          C::template each_quad<p>(quants, v, table, [&](V8 quad, std::size_t q) PLE_LAMBDA_ATTR {
            const auto quads = hn::LoadU(hn::Repartition<std::int8_t, DI>(), values + 4 * sub_blocks_per_tile * q);
            dots = C::template multiply_add<C::template is_small<p>>(dots, quad, quads);
          });
          const VF product = hn::Mul(hn::ConvertTo(df, dots), hn::LoadU(df, x.scales + s + N * v));
          sum = hn::MulAdd(product, scales(layout, tile, N * v), sum);
          if (layout.format->has_minimum) {
            const VF minimum = scales(layout, tile, sub_blocks_per_tile + N * v);
            sum = hn::NegMulAdd(minimum, hn::LoadU(df, x.sums + s + N * v), sum);
          }
        }
        tile += layout.tile_bytes;
      }
      y[i] = hn::GetLane(hn::SumOfLanes(df, sum));
    }
  }

  static PLE_INLINE VF scales(const PackedRowLayout& layout, const std::byte* tile, std::size_t at) {
    return load_scales(DF(), has_f32_scales(*layout.format), tile, at);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif
#endif  // PLE_SIMD_PACKED_ROWS_INL_H_
