// SPDX-License-Identifier: Apache-2.0
// Quantises activations to 8-bit integers: included once per target.
#if defined(PLE_SIMD_QUANTIZE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_QUANTIZE_INL_H_
#undef PLE_SIMD_QUANTIZE_INL_H_
#else
#define PLE_SIMD_QUANTIZE_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "ple/core/config.h"
#include "ple/simd/highway-inl.h"
#include "ple/simd/quantized_rows.h"
#include "ple/simd/quants-inl.h"
#include "ple/simd/scalar_integers.h"

#if HWY_TARGET != HWY_SCALAR  // which lacks vectors of bytes
PLE_BEFORE_KERNELS();
namespace ple::inline PLE_ABI {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class Dot>
class ActivationQuantizer {
 public:
  /// Quantises token t; x: its [cols] f32 values.
  static HWY_NOINLINE void quantize(const float* x, Dtype weights, std::size_t t, const QuantizedRows& out) {
    if (out.sub_block() == 32) {
      quantize_blocks<32>(x, weights, t, out);
    } else {
      quantize_blocks<16>(x, weights, t, out);
    }
  }

 private:
  using C = Quants<Dot>;
  using DF = typename C::DF;
  using DI = typename C::DI;
  using VF = typename C::VF;
  using VI = typename C::VI;
  static constexpr std::size_t N = C::N;

  template <std::size_t size>
  static PLE_INLINE void quantize_blocks(const float* x, Dtype weights, std::size_t t, const QuantizedRows& out) {
    const DF d;
    const hn::Rebind<std::int8_t, DI> d8;
    const IntegerFormat& format = integer_format(weights);
    const int zero_point = C::flips(format) ? 0 : format.zero_point;
    const std::size_t step = out.tile();  // from a token's sub-block to its next
    std::int8_t* values = out.values(t, 0);
    float *scales = &out.scale(t, 0), *sums = &out.sum(t, 0);
    std::int32_t* offsets = &out.offset(t, 0);
    VF bad = hn::Zero(d);
    for (const float *block = x, *end = x + out.cols(); block != end; block += 32) {
      VF most = hn::Zero(d);
      for (std::size_t i = 0; i < 32; i += N) {
        const VF v = hn::LoadU(d, block + i);
        most = hn::Max(most, hn::Abs(v));
        bad = hn::MulAdd(v, hn::Zero(d), bad);
      }
      const float largest = hn::GetLane(hn::MaxOfLanes(d, most));
      const bool any = largest > ScalarIntegers::least_magnitude;
      const float scale = any ? largest / 127.0f * format.factor : 0.0f;
      const VF inverse = hn::Set(d, any ? 127.0f / largest : 0.0f);
      for (std::size_t at = 0; at < 32; at += size) {
        VI total = hn::Zero(DI());
        for (std::size_t i = 0; i < size; i += N) {
          const VI nearest = hn::NearestInt(hn::Mul(hn::LoadU(d, block + at + i), inverse));
          const VI v = hn::Min(hn::Max(nearest, hn::Set(DI(), -127)), hn::Set(DI(), 127));  // NaN, too
          hn::StoreU(hn::DemoteTo(d8, v), d8, values + i);
          total = hn::Add(total, v);
        }
        const std::int32_t sum = hn::GetLane(hn::SumOfLanes(DI(), total));
        *scales = scale;
        *sums = scale * static_cast<float>(sum);
        *offsets = -zero_point * sum;
        values += step * size;
        scales += step;
        sums += step;
        offsets += step;
      }
    }
    // An infinity or NaN makes every sum NaN, because every sum includes the first sub-block.
    const float not_a_number = hn::GetLane(hn::SumOfLanes(d, bad));
    out.scale(t, 0) += not_a_number;
    out.sum(t, 0) += not_a_number;
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple::inline PLE_ABI
PLE_AFTER_KERNELS();
#endif
#endif  // PLE_SIMD_QUANTIZE_INL_H_
