// SPDX-License-Identifier: Apache-2.0
// Products of integer weights and 8-bit activations: included by kernels-inl.h, once per target.
#if defined(PLE_SIMD_INTEGERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PLE_SIMD_INTEGERS_INL_H_
#undef PLE_SIMD_INTEGERS_INL_H_
#else
#define PLE_SIMD_INTEGERS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ple/dtype/integers.h"
#include "ple/simd/dot-inl.h"
#include "ple/simd/highway-inl.h"
#include "ple/simd/quantized_rows.h"
#include "ple/simd/scalar_integers.h"
#include "ple/simd/unpack-inl.h"

#if HWY_TARGET != HWY_SCALAR  // which has no vectors of bytes
HWY_BEFORE_NAMESPACE();
namespace ple {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// A sum runs in the same order for one token as for many, whatever the target: in each of the lanes of lane_of (8, or
/// 16 where sub-blocks are of 16) over the chunks, then over the lanes as `total` does. So a text gives the same bits
/// read whole and token by token.
template <class Dot>
struct Integers {
  using DF = hn::ScalableTag<float>;
  using DI = hn::ScalableTag<std::int32_t>;
  using VF = hn::Vec<DF>;
  using VI = hn::Vec<DI>;
  static constexpr std::size_t N = hn::MaxLanes(DI());  // rows in a tile

  /// Room for the weights of a tile of rows, unpacked: what matmul needs where tokens lie in tiles.
  static std::size_t tile_bytes(std::size_t cols) {
    const std::size_t chunks = (cols + values_per_chunk - 1) / values_per_chunk;
    return N * chunks * (values_per_chunk + std::size_t{2} * 16 * sizeof(float));
  }

  /// Token t of x, [cols] f32, as integers.
  static HWY_NOINLINE void quantize(const float* x, std::size_t cols, Dtype weights, std::size_t t,
                                    const QuantizedRows& out) {
    const int zero_point = flips(weights) ? 0 : integer_format(weights).zero_point;
    const std::size_t subs = out.sub_blocks(), halves = subs / 8;
    for (std::size_t c = 0; c < out.chunks(); ++c) {
      for (std::size_t b = 0; b < 8; ++b) {
        const std::size_t begin = c * values_per_chunk + 32 * b;
        HWY_ALIGN float padded[32] = {};
        const float* values = x + begin;
        if (begin + 32 > cols) {
          for (std::size_t i = begin; i < cols; ++i) padded[i - begin] = x[i];
          values = padded;
        }
        HWY_ALIGN std::int8_t integers[32];
        const float scale = quantize_block(values, integers);
        for (std::size_t h = 0; h < halves; ++h) {
          const std::size_t s = b * halves + h, size = 32 / halves;
          std::memcpy(out.values(t, c, s), integers + h * size, size);
          std::int32_t sum = 0;
          for (std::size_t i = 0; i < size; ++i) sum += integers[h * size + i];
          out.scale(t, c, s) = scale;
          out.sum(t, c, s) = scale * static_cast<float>(sum);
          out.offset(t, c, s) = -zero_point * sum;
        }
      }
    }
  }

  /// y[t, r] = sum_c w[r, c] * x[t, c]. `memory`: tile_bytes(w.cols), aligned to a cache line, where x is tiled.
  static void matmul(const IntegerWeights& w, const QuantizedRows& x, float* y, std::size_t y_stride,
                     std::byte* memory) {
    switch (w.dtype) {
      case Dtype::q8_0: return multiply<Blocks<q8_0>>(w, x, y, y_stride, memory);
      case Dtype::q4_0: return multiply<Blocks<q4_0>>(w, x, y, y_stride, memory);
      case Dtype::q4_k: return multiply<Blocks<q4_k>>(w, x, y, y_stride, memory);
      case Dtype::q6_k: return multiply<Blocks<q6_k>>(w, x, y, y_stride, memory);
      default: break;
    }
    if (integer_format(w.dtype).sub_block == 32) {
      multiply<AnyBlocks<32>>(w, x, y, y_stride, memory);
    } else {
      multiply<AnyBlocks<16>>(w, x, y, y_stride, memory);
    }
  }

 private:
  /// 32 values as the nearest multiples of the scale that is returned.
  static HWY_INLINE float quantize_block(const float* x, std::int8_t* integers) {
    const DF d;
    const std::size_t lanes = hn::Lanes(d);
    VF most = hn::Zero(d), bad = hn::Zero(d);
    for (std::size_t i = 0; i < 32; i += lanes) {
      const VF v = hn::LoadU(d, x + i);
      most = hn::Max(most, hn::Abs(v));
      bad = hn::MulAdd(v, hn::Zero(d), bad);  // what is no number makes the scale none
    }
    const float largest = hn::GetLane(hn::MaxOfLanes(d, most)), not_a_number = hn::GetLane(hn::SumOfLanes(d, bad));
    const bool any = largest > ScalarIntegers::least_magnitude;
    const VF inverse = hn::Set(d, any ? 127.0f / largest : 0.0f);
    for (std::size_t i = 0; i < 32; i += lanes) {
      const VI v = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse));
      const hn::Rebind<std::int8_t, DI> d8;
      hn::StoreU(hn::DemoteTo(d8, v), d8, integers + i);
    }
    return (any ? largest / 127.0f : 0.0f) + not_a_number;
  }

  /// Where bytes are to be signed and a type uses all 8 bits, its zero point goes.
  static constexpr bool flips(Dtype dtype) { return Dot::is_signed && integer_format(dtype).zero_point == 128; }

  using D8 = hn::Repartition<std::uint8_t, DI>;
  using V8 = hn::Vec<D8>;

  // Two ways to a chunk's integers: in vectors, of a type known when compiling; or through memory. `sub`: values in a
  // sub-block; read(w, r, c) goes to chunk c of row r; then integers(at) are those from `at` on.

  template <class T>
  struct Blocks {
    static constexpr std::size_t sub = IntegerTraits<T>::sub_block;
    static constexpr bool has_minimum = IntegerTraits<T>::has_minimum;
    explicit Blocks(Dtype) {}
    HWY_INLINE void read(const IntegerWeights& w, std::size_t r, std::size_t c) {
      chunk = reinterpret_cast<const T*>(w.data + r * w.row_bytes) + c * Unpack<T>::blocks;
      if (HWY_UNLIKELY((c + 1) * values_per_chunk > w.cols)) {  // the row ends here: what is missing counts nothing
        std::fill(std::copy_n(chunk, w.blocks(c), room), room + Unpack<T>::blocks, T{});
        chunk = room;
      }
      Unpack<T>::numbers(chunk, scales, minimums);
    }
    HWY_INLINE V8 integers(std::size_t at) const {
      const V8 v = Unpack<T>::integers(D8(), chunk, at);
      return flips(DtypeTraits<T>::id) ? hn::Xor(v, hn::Set(D8(), 128)) : v;
    }
    HWY_ALIGN float scales[16];
    HWY_ALIGN float minimums[16];
    const T* chunk = nullptr;
    T room[Unpack<T>::blocks];
  };

  template <std::size_t sub_block>
  struct AnyBlocks {
    static constexpr std::size_t sub = sub_block;
    explicit AnyBlocks(Dtype dtype)
        : format(&integer_format(dtype)), has_minimum(format->has_minimum), flip(flips(dtype) ? 128 : 0) {}
    HWY_INLINE void read(const IntegerWeights& w, std::size_t r, std::size_t c) {
      format->unpack(w.chunk(r, c), w.blocks(c), chunk);
      scales = chunk.scales;
      minimums = chunk.minimums;
    }
    HWY_INLINE V8 integers(std::size_t at) const {
      return hn::Xor(hn::LoadU(D8(), chunk.integers + at), hn::Set(D8(), flip));
    }
    const IntegerFormat* format;
    bool has_minimum;
    std::uint8_t flip;
    const float *scales = nullptr, *minimums = nullptr;
    IntegerChunk chunk;
  };

  template <class Source>
  static HWY_NOINLINE void multiply(const IntegerWeights& w, const QuantizedRows& x, float* y, std::size_t y_stride,
                                    std::byte* memory) {
    if (!x.tiled()) return multiply_rows<Source>(w, x, y, y_stride);
    for (std::size_t r = 0; r < w.rows; r += N) {
      const std::size_t rows = std::min(N, w.rows - r);
      const Tile tile = unpack_tile<Source>(w.slice(r, rows), x.chunks(), memory);
      for (std::size_t i = 0; i * tokens_per_tile < x.tokens(); ++i) {
        multiply_tile<Source::sub>(tile, x, i, rows, y + i * tokens_per_tile * y_stride + r, y_stride);
      }
    }
  }

  // --- a few tokens: each chunk of a row is unpacked and multiplied with every token's

  using D4 = hn::CappedTag<float, 4>;
  using DI4 = hn::CappedTag<std::int32_t, 4>;
  using V4 = hn::Vec<D4>;
  using VI4 = hn::Vec<DI4>;

  template <class Source>
  static HWY_INLINE void multiply_rows(const IntegerWeights& w, const QuantizedRows& x, float* y,
                                       std::size_t y_stride) {
    constexpr std::size_t pieces = values_per_chunk / Source::sub / 4, most_tokens = 4;
    const D4 d4;
    Source source(w.dtype);
    for (std::size_t r = 0; r < w.rows; ++r) {
      HWY_ALIGN float sums[most_tokens][16] = {};
      for (std::size_t c = 0; c < x.chunks(); ++c) {
        source.read(w, r, c);
        for (std::size_t t = 0; t < x.tokens(); ++t) {
          VI4 dots[4];
          dot_chunk(source, x.row_values(t, c), dots);
          if (Source::sub == 32) {
            dots[0] = hn::Add(dots[0], dots[1]);
            dots[1] = hn::Add(dots[2], dots[3]);
          }
          for (std::size_t p = 0; p < pieces; ++p) {
            const VI4 dot = hn::Add(dots[p], hn::LoadU(DI4(), x.row_offsets(t, c) + 4 * p));
            V4 sum = hn::Load(d4, sums[t] + 4 * p);
            sum = hn::MulAdd(hn::Mul(hn::ConvertTo(d4, dot), hn::LoadU(d4, x.row_scales(t, c) + 4 * p)),
                             hn::LoadU(d4, source.scales + 4 * p), sum);
            if (source.has_minimum) {
              sum = hn::NegMulAdd(hn::LoadU(d4, source.minimums + 4 * p), hn::LoadU(d4, x.row_sums(t, c) + 4 * p), sum);
            }
            hn::Store(sum, d4, sums[t] + 4 * p);
          }
        }
      }
      for (std::size_t t = 0; t < x.tokens(); ++t) {
        HWY_ALIGN float lanes[4];
        hn::Store(total<pieces>(d4, [&](std::size_t p) { return hn::Load(d4, sums[t] + 4 * p); }), d4, lanes);
        y[t * y_stride + r] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
      }
    }
  }

  /// The first step of adding up a sum's lanes: pieces of four become one.
  template <std::size_t pieces, class D, class F>
  static HWY_INLINE auto total(D, F&& piece) {
    const auto first = hn::Add(piece(0), piece(1));
    if constexpr (pieces == 2) {
      return first;
    } else {
      return hn::Add(first, hn::Add(piece(2), piece(3)));
    }
  }

  /// dots[q][v] = the product of 16 values from 64 v + 16 q on.
  template <class Source>
  static HWY_INLINE void dot_chunk(const Source& w, const std::int8_t* x, VI4 (&dots)[4]) {
    constexpr std::size_t bytes = 4 * N, quarters = N / 4;  // of a vector; 16-byte parts of it
    for (std::size_t g = 0; g < 4 / quarters; ++g) {
      const std::size_t at = g * bytes;
      const auto dot = [&](std::size_t i) HWY_ATTR {
        return Dot::quads(hn::Zero(DI()), w.integers(i), hn::LoadU(hn::Repartition<std::int8_t, DI>(), x + i));
      };
      const VI a = dot(at), b = dot(64 + at), c = dot(128 + at), d = dot(192 + at);
      // Within each 128 bits: the sums of a's, b's, c's and d's four lanes.
      const VI ab = hn::Add(hn::InterleaveLower(DI(), a, b), hn::InterleaveUpper(DI(), a, b));
      const VI cd = hn::Add(hn::InterleaveLower(DI(), c, d), hn::InterleaveUpper(DI(), c, d));
      const hn::Repartition<std::int64_t, DI> d64;
      const auto ab64 = hn::BitCast(d64, ab), cd64 = hn::BitCast(d64, cd);
      split(hn::Add(hn::BitCast(DI(), hn::InterleaveLower(d64, ab64, cd64)),
                    hn::BitCast(DI(), hn::InterleaveUpper(d64, ab64, cd64))),
            dots + g * quarters);
    }
  }
  template <class V>
  static HWY_INLINE void split(V v, VI4* out) {
    constexpr std::size_t lanes = hn::MaxLanes(hn::DFromV<V>());
    if constexpr (lanes <= 4) {
      *out = v;
    } else {
      const hn::Half<hn::DFromV<V>> half;
      split(hn::LowerHalf(half, v), out);
      split(hn::UpperHalf(half, v), out + lanes / 8);
    }
  }

  // --- many tokens: a tile of rows is unpacked once, a row in each lane

  /// [lane, chunk, sub-block / 4, row, 4] integers; [lane, chunk, row] scales and minimums
  struct Tile {
    std::uint8_t* integers;
    float *scales, *minimums;  // minimums: null where the type has none
  };

  template <class Source>
  static HWY_INLINE Tile unpack_tile(const IntegerWeights& w, std::size_t chunks, std::byte* memory) {
    constexpr std::size_t sub = Source::sub, subs = values_per_chunk / sub;
    Source source(w.dtype);
    Tile tile{reinterpret_cast<std::uint8_t*>(memory), reinterpret_cast<float*>(memory + N * chunks * values_per_chunk),
              nullptr};
    if (source.has_minimum) tile.minimums = tile.scales + subs * chunks * N;
    for (std::size_t c = 0; c < chunks; ++c) {
      for (std::size_t r = 0; r < N; r += 4) {
        IntegerChunk four[4];
        for (std::size_t i = 0; i < 4; ++i) {
          if (r + i >= w.rows) {
            four[i] = {};
            continue;
          }
          source.read(w, r + i, c);
          std::copy_n(source.scales, subs, four[i].scales);
          if (source.has_minimum) std::copy_n(source.minimums, subs, four[i].minimums);
          for (std::size_t at = 0; at < values_per_chunk; at += 4 * N) {
            hn::StoreU(source.integers(at), D8(), four[i].integers + at);
          }
        }
        for (std::size_t s = 0; s < subs; ++s) {
          const std::size_t lane = lane_of(s, subs), at = lane * chunks + c;
          for (std::size_t i = 0; i < 4; ++i) {
            tile.scales[at * N + r + i] = four[i].scales[lane];
            if (tile.minimums) tile.minimums[at * N + r + i] = four[i].minimums[lane];
          }
          for (std::size_t k = 0; k < sub; k += 16) {
            transpose(four, s * sub + k, tile.integers + (at * sub + k) * N + 4 * r);
          }
        }
      }
    }
    return tile;
  }

  /// 16 integers of each of four rows, four by four: to[i] holds integers 4 i to 4 i + 3 of row 0, of row 1, ...
  static HWY_INLINE void transpose(const IntegerChunk* rows, std::size_t at, std::uint8_t* to) {
    const DI4 d;
    const hn::CappedTag<std::int64_t, 2> d64;
    const auto load = [&](std::size_t i) {
      return hn::LoadU(d, reinterpret_cast<const std::int32_t*>(rows[i].integers + at));
    };
    const VI4 r0 = load(0), r1 = load(1), r2 = load(2), r3 = load(3);
    const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1)),
               low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3)),
               high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1)),
               high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
    const auto store = [&](auto v, std::size_t i) {
      hn::StoreU(hn::BitCast(d, v), d, reinterpret_cast<std::int32_t*>(to + i * 4 * N));
    };
    store(hn::InterleaveLower(d64, low01, low23), 0);
    store(hn::InterleaveUpper(d64, low01, low23), 1);
    store(hn::InterleaveLower(d64, high01, high23), 2);
    store(hn::InterleaveUpper(d64, high01, high23), 3);
  }

  // Eight tokens' vectors as nested members: compilers keep members in registers, arrays not always. Constructors are
  // written out, because those that the compiler adds are not compiled for the target.
  template <class V, std::size_t n = tokens_per_tile>
  struct Vectors {
    HWY_INLINE Vectors() {}
    V first;
    Vectors<V, n - 1> rest;
  };
  template <class V>
  struct Vectors<V, 1> {
    HWY_INLINE Vectors() {}
    V first;
  };
  /// f(vector, t) for each
  template <std::size_t t = 0, class V, std::size_t n, class F>
  static HWY_INLINE void each(Vectors<V, n>& all, F&& f) {
    f(all.first, t);
    if constexpr (n > 1) each<t + 1>(all.rest, f);
  }
  template <std::size_t t = 0, class V, class U, std::size_t n, class F>
  static HWY_INLINE void each(Vectors<V, n>& all, Vectors<U, n>& others, F&& f) {
    f(all.first, others.first, t);
    if constexpr (n > 1) each<t + 1>(all.rest, others.rest, f);
  }

  template <std::size_t sub>
  static HWY_INLINE void multiply_tile(const Tile& tile, const QuantizedRows& x, std::size_t index, std::size_t rows,
                                       float* y, std::size_t y_stride) {
    constexpr std::size_t subs = values_per_chunk / sub, T = tokens_per_tile;
    const DF df;
    const DI di;
    const hn::Repartition<std::uint8_t, DI> d8;
    const hn::Repartition<std::int8_t, DI> ds8;
    HWY_ALIGN float parts[subs][T][N];
    const std::uint8_t* w = tile.integers;
    const float *scales = tile.scales, *minimums = tile.minimums;
    const std::int8_t* values = x.tile_values(index);
    const float *x_scales = x.tile_scales(index), *x_sums = x.tile_sums(index);
    const std::int32_t* offsets = x.tile_offsets(index);
    for (std::size_t lane = 0; lane < subs; ++lane) {
      Vectors<VF> sums;
      each(sums, [&](VF& sum, std::size_t) { sum = hn::Zero(df); });
      for (std::size_t c = 0; c < x.chunks(); ++c) {
        Vectors<VI> dots;
        each(dots, [&](VI& dot, std::size_t t) { dot = hn::Set(di, offsets[t]); });
        for (std::size_t k = 0; k < sub; k += 4, w += 4 * N) {
          const auto four = hn::LoadU(d8, w);
          each(dots, [&](VI& dot, std::size_t t) {
            std::int32_t bytes;
            std::memcpy(&bytes, values + t * sub + k, sizeof bytes);
            dot = Dot::quads(dot, four, hn::BitCast(ds8, hn::Set(di, bytes)));
          });
        }
        const VF scale = hn::LoadU(df, scales);
        each(sums, dots, [&](VF& sum, VI& dot, std::size_t t) {
          sum = hn::MulAdd(hn::Mul(hn::ConvertTo(df, dot), hn::Set(df, x_scales[t])), scale, sum);
        });
        if (minimums) {
          const VF minimum = hn::LoadU(df, minimums);
          each(sums, [&](VF& sum, std::size_t t) { sum = hn::NegMulAdd(minimum, hn::Set(df, x_sums[t]), sum); });
          minimums += N;
        }
        scales += N;
        values += T * sub;
        x_scales += T;
        x_sums += T;
        offsets += T;
      }
      each(sums, [&](VF& sum, std::size_t t) { hn::Store(sum, df, parts[lane][t]); });
    }
    const std::size_t tokens = std::min(T, x.tokens() - index * T);
    for (std::size_t t = 0; t < tokens; ++t) {
      const auto lane = [&](std::size_t v) {
        return total<subs / 4>(df, [&](std::size_t p) { return hn::Load(df, parts[4 * p + v][t]); });
      };
      const VF all = hn::Add(hn::Add(lane(0), lane(2)), hn::Add(lane(1), lane(3)));
      if (rows == N) {
        hn::StoreU(all, df, y + t * y_stride);
      } else {
        HWY_ALIGN float some[N];
        hn::Store(all, df, some);
        std::copy_n(some, rows, y + t * y_stride);
      }
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace ple
HWY_AFTER_NAMESPACE();
#endif
#endif  // PLE_SIMD_INTEGERS_INL_H_
