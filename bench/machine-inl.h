// SPDX-License-Identifier: Apache-2.0
// Loops that do one thing as fast as a CPU can: read, multiply bytes, multiply floats. Compiled once per target, as the
// kernels are, through bench/machine.h.
#if defined(BENCH_MACHINE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BENCH_MACHINE_INL_H_
#undef BENCH_MACHINE_INL_H_
#else
#define BENCH_MACHINE_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "ple/simd/kernels-inl.h"

#ifndef BENCH_MACHINE_LOOPS_
#define BENCH_MACHINE_LOOPS_
namespace bench {

/// The loops in the vectors of backend B. What a loop returns depends on all it did, so that none of it is left out.
template <class B>
struct Loops;

}  // namespace bench
#endif

#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace bench {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Sums that stay in registers. A step multiplies N vectors from memory with two in registers.
template <class V, std::size_t N>
struct Sums {
  V a, b;
  Sums<V, N - 1> rest;
};
template <class V>
struct Sums<V, 1> {
  V a, b;
};

/// Sums of four products of bytes: the step of integer kernels (ple/simd/dot-inl.h).
struct Int8 {
  using D = hn::ScalableTag<std::int32_t>;
  using Weights = hn::Repartition<std::uint8_t, D>;
  using Activations = hn::Repartition<std::int8_t, D>;
  static HWY_INLINE hn::Vec<D> multiply_add(hn::Vec<Weights> w, hn::Vec<Activations> x, hn::Vec<D> sum) {
    return ple::HWY_NAMESPACE::BestDot::quads(sum, w, x);
  }
};

/// The step of kernels that compute in f32.
struct F32 {
  using D = hn::ScalableTag<float>;
  using Weights = D;
  using Activations = D;
  static HWY_INLINE hn::Vec<D> multiply_add(hn::Vec<D> w, hn::Vec<D> x, hn::Vec<D> sum) {
    return hn::MulAdd(w, x, sum);
  }
};

/// The step of kernels that multiply bf16, where the CPU does: pairs, whose bits the vectors hold.
struct Bf16 {
  using D = hn::ScalableTag<float>;
  using Weights = D;
  using Activations = D;
  static HWY_INLINE hn::Vec<D> multiply_add(hn::Vec<D> w, hn::Vec<D> x, hn::Vec<D> sum) {
    return ple::HWY_NAMESPACE::PairsOfBf16::multiply_add(w, x, sum);
  }
};

struct VectorLoops {
  /// Reads `bytes`, a multiple of 8 vectors, in one stream.
  static HWY_NOINLINE std::uint64_t read(const std::byte* from, std::size_t bytes) {
    const hn::ScalableTag<std::uint64_t> d;
    const auto* words = reinterpret_cast<const std::uint64_t*>(from);
    const std::size_t lanes = hn::Lanes(d), count = bytes / sizeof(std::uint64_t);
    auto a = hn::Zero(d), b = a;
    for (std::size_t i = 0; i + 4 * lanes <= count; i += 4 * lanes) {
      a = hn::Xor(hn::Xor(a, hn::LoadU(d, words + i)), hn::LoadU(d, words + i + lanes));
      b = hn::Xor(hn::Xor(b, hn::LoadU(d, words + i + 2 * lanes)), hn::LoadU(d, words + i + 3 * lanes));
    }
    return hn::GetLane(hn::Xor(a, b));
  }

  /// w: weight_bytes, which stay in the innermost cache; as floats, they must be finite.
  static constexpr std::size_t weight_bytes = 4096;
  static HWY_NOINLINE float int8(const std::byte* w, std::size_t steps) { return multiply<Int8>(w, steps); }
  static HWY_NOINLINE float f32(const std::byte* w, std::size_t steps) { return multiply<F32>(w, steps); }
  static HWY_NOINLINE float bf16(const std::byte* w, std::size_t steps) { return multiply<Bf16>(w, steps); }

  /// Multiply-adds of a step.
  static std::uint64_t int8_step() { return 2 * rows * hn::Lanes(hn::ScalableTag<std::int8_t>()); }
  static std::uint64_t f32_step() { return 2 * rows * hn::Lanes(hn::ScalableTag<float>()); }
  static std::uint64_t bf16_step() { return 2 * f32_step(); }

 private:
  // Twelve sums: more than a CPU has multiplications under way at once, and with the rest they fit into 16 registers.
  static constexpr std::size_t rows = 6;

  template <class Type>
  static HWY_INLINE float multiply(const std::byte* w, std::size_t steps) {
    const typename Type::D d;
    const typename Type::Weights dw;
    const typename Type::Activations dx;
    const auto* weights = reinterpret_cast<const hn::TFromD<typename Type::Weights>*>(w);
    const std::size_t lanes = hn::Lanes(dw), count = weight_bytes / sizeof *weights / lanes / rows * rows;
    const auto x1 = hn::Set(dx, static_cast<hn::TFromD<typename Type::Activations>>(1)), x2 = hn::Add(x1, x1);
    Sums<hn::Vec<typename Type::D>, rows> sums;
    set_zero(sums);
    for (std::size_t step = 0, at = 0; step < steps; ++step) {
      add_products<Type>(weights + at * lanes, x1, x2, sums);
      at = at + rows == count ? 0 : at + rows;
    }
    return static_cast<float>(hn::GetLane(total(d, sums)));
  }

  template <class V, std::size_t N>
  static HWY_INLINE void set_zero(Sums<V, N>& sums) {
    sums.a = sums.b = hn::Zero(hn::DFromV<V>());
    if constexpr (N > 1) set_zero(sums.rest);
  }
  template <class Type, class W, class X, class V, std::size_t N>
  static HWY_INLINE void add_products(const W* weights, X x1, X x2, Sums<V, N>& sums) {
    const typename Type::Weights d;
    const auto w = hn::LoadU(d, weights);
    sums.a = Type::multiply_add(w, x1, sums.a);
    sums.b = Type::multiply_add(w, x2, sums.b);
    if constexpr (N > 1) add_products<Type>(weights + hn::Lanes(d), x1, x2, sums.rest);
  }
  template <class D, class V, std::size_t N>
  static HWY_INLINE V total(D d, const Sums<V, N>& sums) {
    const V sum = hn::Add(sums.a, sums.b);
    if constexpr (N > 1) {
      return hn::Add(sum, total(d, sums.rest));
    } else {
      return sum;
    }
  }
};

}  // namespace HWY_NAMESPACE

template <>
struct Loops<ple::HWY_NAMESPACE::Simd> : HWY_NAMESPACE::VectorLoops {};

}  // namespace bench
HWY_AFTER_NAMESPACE();
#endif  // HWY_SCALAR

#endif  // BENCH_MACHINE_INL_H_
