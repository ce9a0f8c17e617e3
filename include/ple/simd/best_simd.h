// SPDX-License-Identifier: Apache-2.0
// Kernels for several targets in one program, which picks the best vectors of the CPU that it runs on.
#pragma once

#include <concepts>
#include <cstddef>

#include "ple/core/config.h"
#include "ple/simd/backend.h"
#include "ple/simd/more_targets.h"

namespace ple::inline PLE_ABI {
namespace detail {

// Highway's own CPU check is in libhwy, which ple does not link: the compiler's run-time check replaces it. A target
// needs every feature that Highway compiles it with; AVX-512 also VNNI, since AVX2 is better than AVX-512 without it.
#if HWY_ARCH_X86
inline bool cpu_has_sse4() {
  return __builtin_cpu_supports("ssse3") && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("sse4.2") &&
         __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("aes");
}
inline bool cpu_has_f16c() {  // clang before 19 cannot be asked for it
  static const bool has = [] {
    unsigned a = 1, b = 0, c = 0, d = 0;
    asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return (c >> 29 & 1) != 0;
  }();
  return has;
}
inline bool cpu_has_avx2() {
  return cpu_has_sse4() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") && cpu_has_f16c();
}
inline bool cpu_has_avx3() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

// Runs on every machine of the compiler's baseline. Where Highway has no vectors, plain C++ is as good and simpler.
#if HWY_STATIC_TARGET == HWY_SCALAR || HWY_STATIC_TARGET == HWY_EMU128
using Baseline = Scalar;
#else
using Baseline = Simd;
#endif

}  // namespace detail

/// Calls f.template operator()<B>() with the best compiled backend B that this CPU runs.
template <class F>
decltype(auto) with_best_backend(F&& f) {
#ifdef PLE_SIMD_AVX3_INL_H_
  if (detail::cpu_has_avx3()) return f.template operator()<N_AVX3::Simd>();
#endif
#ifdef PLE_SIMD_AVX2_INL_H_
  if (detail::cpu_has_avx2()) return f.template operator()<N_AVX2::Simd>();
#endif
#ifdef PLE_SIMD_SSE4_INL_H_
  if (detail::cpu_has_sse4()) return f.template operator()<N_SSE4::Simd>();
#endif
  return f.template operator()<detail::Baseline>();
}

/// Calls f.template operator()<B>() with each of them, best first: for tests and benchmarks.
template <class F>
void for_each_backend(F&& f) {
#ifdef PLE_SIMD_AVX3_INL_H_
  if (detail::cpu_has_avx3()) f.template operator()<N_AVX3::Simd>();
#endif
#ifdef PLE_SIMD_AVX2_INL_H_
  if (detail::cpu_has_avx2()) f.template operator()<N_AVX2::Simd>();
#endif
#ifdef PLE_SIMD_SSE4_INL_H_
  if (detail::cpu_has_sse4()) f.template operator()<N_SSE4::Simd>();
#endif
  f.template operator()<Simd>();
}

/// The CPU's best backend, found in each call by a few bit tests: a model is compiled once, not once per target.
struct BestSimd {
  static const char* name() {
    const char* best = "";
    with_best_backend([&]<Backend B>() { best = B::name(); });
    return best;
  }
  template <StoredType T>
  static void matmul(const T* w, std::size_t w_stride, std::size_t rows, std::size_t cols, const float* x,
                     std::size_t x_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    with_best_backend([&]<Backend B>() { B::matmul(w, w_stride, rows, cols, x, x_stride, tokens, y, y_stride); });
  }
  static bool multiplies_bf16() {
    bool native = false;
    with_best_backend([&]<Backend B>() { native = B::multiplies_bf16(); });
    return native;
  }
  static void round(const float* x, std::size_t n, bf16* y) {
    with_best_backend([&]<Backend B>() { B::round(x, n, y); });
  }
  static void matmul(const bf16* w, std::size_t w_stride, std::size_t rows, std::size_t cols, const bf16* x,
                     std::size_t x_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    with_best_backend([&]<Backend B>() { B::matmul(w, w_stride, rows, cols, x, x_stride, tokens, y, y_stride); });
  }
  static std::size_t tile_bytes(std::size_t cols) {
    std::size_t bytes = 0;
    with_best_backend([&]<Backend B>() { bytes = B::tile_bytes(cols); });
    return bytes;
  }
  static void quantize(const float* x, Dtype weights, std::size_t t, const QuantizedRows& out) {
    with_best_backend([&]<Backend B>() { B::quantize(x, weights, t, out); });
  }
  static void matmul(const PackedTiles& w, const QuantizedRows& x, float* y, std::size_t y_stride, std::byte* memory) {
    with_best_backend([&]<Backend B>() { B::matmul(w, x, y, y_stride, memory); });
  }
  static void multiply_rows(const PackedRows& w, const std::size_t* rows, std::size_t count, const RowActivations& x,
                            float* y) {
    with_best_backend([&]<Backend B>() { B::multiply_rows(w, rows, count, x, y); });
  }
  static void multiply_columns(const PackedColumns& w, std::size_t first, std::size_t rows, const QuantizedRows& x,
                               std::size_t t, float* y) {
    with_best_backend([&]<Backend B>() { B::multiply_columns(w, first, rows, x, t, y); });
  }
  template <StoredType T>
  static void weighted_sum(const T* rows, std::size_t stride, std::size_t n, std::size_t cols, const float* weights,
                           std::size_t weights_stride, std::size_t tokens, float* y, std::size_t y_stride) {
    with_best_backend(
        [&]<Backend B>() { B::weighted_sum(rows, stride, n, cols, weights, weights_stride, tokens, y, y_stride); });
  }
  template <StoredType T>
  static void decode(const T* x, std::size_t n, float* y) {
    with_best_backend([&]<Backend B>() { B::decode(x, n, y); });
  }
  static void add(const float* x, std::size_t n, float* y) {
    with_best_backend([&]<Backend B>() { B::add(x, n, y); });
  }
  static void multiply(const float* x, std::size_t n, float* y) {
    with_best_backend([&]<Backend B>() { B::multiply(x, n, y); });
  }
  static void scale(float factor, std::size_t n, float* y) {
    with_best_backend([&]<Backend B>() { B::scale(factor, n, y); });
  }
  static void rms_norm(const float* x, const float* weight, std::size_t n, float epsilon, float* y) {
    with_best_backend([&]<Backend B>() { B::rms_norm(x, weight, n, epsilon, y); });
  }
  static void rope(const float* cosine, const float* sine, std::size_t half, float* x) {
    with_best_backend([&]<Backend B>() { B::rope(cosine, sine, half, x); });
  }
  static void gelu(std::size_t n, float* y) {
    with_best_backend([&]<Backend B>() { B::gelu(n, y); });
  }
  static void gaussian_topk(float z, std::size_t n, float* y) {
    with_best_backend([&]<Backend B>() { B::gaussian_topk(z, n, y); });
  }
  static ExpSum exp_sum(std::size_t n, float* y) {
    return with_best_backend([&]<Backend B>() { return B::exp_sum(n, y); });
  }
  static void softcap(float cap, std::size_t n, float* y) {
    with_best_backend([&]<Backend B>() { B::softcap(cap, n, y); });
  }

  // Gradients: templates, so that only programs that train compile them.
  template <std::same_as<float> F>
  static void gemm(Strided a, Strided b, std::size_t m, std::size_t n, std::size_t depth, F* c, std::size_t c_stride) {
    with_best_backend([&]<Backend B>() { B::gemm(a, b, m, n, depth, c, c_stride); });
  }
  template <std::same_as<float> F>
  static void rms_norm_backward(const F* x, const F* weight, std::size_t n, float epsilon, const F* dy, F* dx) {
    with_best_backend([&]<Backend B>() { B::rms_norm_backward(x, weight, n, epsilon, dy, dx); });
  }
  template <std::same_as<float> F>
  static void gated_gelu_backward(std::size_t n, const F* da, F* g, F* u) {
    with_best_backend([&]<Backend B>() { B::gated_gelu_backward(n, da, g, u); });
  }
  template <std::same_as<float> F>
  static void softmax_backward(std::size_t n, const F* p, float delta, F* dp) {
    with_best_backend([&]<Backend B>() { B::softmax_backward(n, p, delta, dp); });
  }
  template <std::same_as<float> F>
  static float log_sum_exp(std::size_t n, const F* y) {
    return with_best_backend([&]<Backend B>() { return B::log_sum_exp(n, y); });
  }
  template <std::same_as<float> F>
  static void cross_entropy_backward(float cap, float lse, float factor, std::size_t n, F* y) {
    with_best_backend([&]<Backend B>() { B::cross_entropy_backward(cap, lse, factor, n, y); });
  }
};

static_assert(Backend<BestSimd>);

}  // namespace ple::inline PLE_ABI
