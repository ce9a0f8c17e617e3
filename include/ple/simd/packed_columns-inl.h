// SPDX-License-Identifier: Apache-2.0
// Products of integer weights in columns with 8-bit activations that are mostly 0. Included once per target.
#if defined(PLE_SIMD_PACKED_COLUMNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_PACKED_COLUMNS_INL_H_
#undef PLE_SIMD_PACKED_COLUMNS_INL_H_
#else
#define PLE_SIMD_PACKED_COLUMNS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/simd/highway-inl.h"

#include "ple/simd/active_columns.h"
#include "ple/simd/f16-inl.h"

PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Sums integers in f32, exactly, since they are below 2^24: the results are those of Integers::matmul.
class ColumnProduct {
 public:
  /// y[r] = sum_c w[first + r, c] x[t, c] for `rows` rows; `first` is a multiple of PackedColumnLayout::group.
  static PLE_INLINE void multiply_columns(const PackedColumns& w, std::size_t first, std::size_t rows,
                                          const QuantizedRows& x, std::size_t t, float* y) {
    std::fill_n(y, rows, 0.0f);
    HWY_ALIGN float end[group] = {};  // for the rows after the last whole group
    ActiveColumns ring[3];            // prefetches two sub-blocks ahead: only we know which columns come next
    std::size_t next = ring[0].find(w, x, t, 0), found = next > 0 ? 1 : 0;
    if (next > 0) next = ring[1].find(w, x, t, next), found += next > 0;
    for (std::size_t i = 0; i < found; ++i) {
      ActiveColumns& ahead = ring[(i + 2) % 3];
      if (next > 0) next = ahead.find(w, x, t, next), found += next > 0;
      const ActiveColumns& active = ring[i % 3];
      for (std::size_t r = 0; r < rows; r += group) {
        if (next > 0) prefetch(w.layout, ahead, first + r);
        add(w.layout, active, first + r, r + group <= rows ? y + r : end);
      }
    }
    std::copy_n(end, rows % group, y + rows - rows % group);
  }

 private:
  using DF = hn::CappedTag<float, 16>;
  using DI = hn::Rebind<std::int32_t, DF>;
  using D8 = hn::Rebind<std::uint8_t, DF>;
  using VF = hn::Vec<DF>;
  using VI = hn::Vec<DI>;
  static constexpr std::size_t N = hn::MaxLanes(DF()), group = PackedColumnLayout::group;

  static PLE_INLINE void prefetch(const PackedColumnLayout& layout, const ActiveColumns& active, std::size_t row) {
    const std::size_t quant_bytes = layout.halves ? 2 * alignment : alignment;  // rows per cache line
    const std::size_t size = whole_scale_size(*layout.format);
    for (std::size_t i = 0; i < group * size; i += alignment) {
      hwy::Prefetch(active.scales + row * size + i);
    }
    if (row % quant_bytes != 0) return;
    for (std::size_t k = 0; k < active.count; ++k) hwy::Prefetch(active.quants[k] + row * alignment / quant_bytes);
  }

  /// y += a sub-block's products for a group's rows
  static PLE_INLINE void add(const PackedColumnLayout& layout, const ActiveColumns& active, std::size_t row, float* y) {
    for (std::size_t v = 0; v < group / 2; v += N) {
      VF low = hn::Set(DF(), active.offset), high = low;
      if (layout.halves) {
        for (std::size_t k = 0; k < active.count; ++k) {
          const VF value = hn::Set(DF(), active.values[k]);
          const VI both = widen(active.quants[k] + row / 2 + v);
          low = hn::MulAdd(hn::ConvertTo(DF(), hn::And(both, hn::Set(DI(), 15))), value, low);
          high = hn::MulAdd(hn::ConvertTo(DF(), hn::ShiftRight<4>(both)), value, high);
        }
      } else {
        for (std::size_t k = 0; k < active.count; ++k) {
          const VF value = hn::Set(DF(), active.values[k]);
          low = hn::MulAdd(hn::ConvertTo(DF(), widen(active.quants[k] + row + v)), value, low);
          high = hn::MulAdd(hn::ConvertTo(DF(), widen(active.quants[k] + row + group / 2 + v)), value, high);
        }
      }
      add_sum(layout, active, row + v, low, y + v);
      add_sum(layout, active, row + group / 2 + v, high, y + group / 2 + v);
    }
  }

  static PLE_INLINE void add_sum(const PackedColumnLayout& layout, const ActiveColumns& active, std::size_t row,
                                 VF dots, float* y) {
    const DF d;
    VF sum = hn::LoadU(d, y);
    sum = hn::MulAdd(hn::Mul(dots, hn::Set(d, active.scale)), scales(layout, active.scales, row), sum);
    if (layout.format->has_minimum) {
      sum = hn::NegMulAdd(scales(layout, active.scales, layout.height + row), hn::Set(d, active.sum), sum);
    }
    hn::StoreU(sum, d, y);
  }

  static PLE_INLINE VI widen(const std::uint8_t* quants) { return hn::PromoteTo(DI(), hn::LoadU(D8(), quants)); }

  static PLE_INLINE VF scales(const PackedColumnLayout& layout, const std::byte* all, std::size_t at) {
    return load_scales(DF(), has_f32_scales(*layout.format), all, at);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif  // PLE_SIMD_PACKED_COLUMNS_INL_H_
