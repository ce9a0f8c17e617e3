// SPDX-License-Identifier: Apache-2.0
// A backend that a test changes while it runs: a model over it is compiled once, not once per backend.
#pragma once

#include "ple/dispatch.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <string>

namespace ple::testing {

struct ChosenBackend {
  /// 0: Scalar; i: the i-th of for_each_backend, of which the first is the best.
  static inline std::size_t choice = 1;

  /// Calls f.template operator()<B>() with the chosen backend B.
  template <class F>
  static void call(F&& f) {
    if (choice == 0) return f.template operator()<Scalar>();
    std::size_t i = 0;
    for_each_backend([&]<Backend B>() {
      if (++i == choice) f.template operator()<B>();
    });
  }

  static const char* name() {
    const char* name = "";
    call([&]<Backend B>() { name = B::name(); });
    return name;
  }
  static std::size_t tile_bytes(std::size_t cols) {
    std::size_t bytes = 0;
    call([&]<Backend B>() { bytes = B::tile_bytes(cols); });
    return bytes;
  }

  // ple/simd/scalar.h says what these mean.
  static void matmul(auto... a) {
    call([&]<Backend B>() { B::matmul(a...); });
  }
  static bool multiplies_bf16() {
    bool native = false;
    call([&]<Backend B>() { native = B::multiplies_bf16(); });
    return native;
  }
  static void round(auto... a) {
    call([&]<Backend B>() { B::round(a...); });
  }
  static void multiply_rows(auto... a) {
    call([&]<Backend B>() { B::multiply_rows(a...); });
  }
  static void multiply_columns(auto... a) {
    call([&]<Backend B>() { B::multiply_columns(a...); });
  }
  static void quantize(auto... a) {
    call([&]<Backend B>() { B::quantize(a...); });
  }
  static void weighted_sum(auto... a) {
    call([&]<Backend B>() { B::weighted_sum(a...); });
  }
  static void decode(auto... a) {
    call([&]<Backend B>() { B::decode(a...); });
  }
  static void add(auto... a) {
    call([&]<Backend B>() { B::add(a...); });
  }
  static void multiply(auto... a) {
    call([&]<Backend B>() { B::multiply(a...); });
  }
  static void scale(auto... a) {
    call([&]<Backend B>() { B::scale(a...); });
  }
  static void rms_norm(auto... a) {
    call([&]<Backend B>() { B::rms_norm(a...); });
  }
  static void rope(auto... a) {
    call([&]<Backend B>() { B::rope(a...); });
  }
  static void gelu(auto... a) {
    call([&]<Backend B>() { B::gelu(a...); });
  }
  static ExpSum exp_sum(auto... a) {
    ExpSum sum = {};
    call([&]<Backend B>() { sum = B::exp_sum(a...); });
    return sum;
  }
  static void gaussian_topk(auto... a) {
    call([&]<Backend B>() { B::gaussian_topk(a...); });
  }
  static void softcap(float cap, std::size_t n, float* y) {
    call([&]<Backend B>() { B::softcap(cap, n, y); });
  }
  static void gemm(Strided left, Strided right, auto... a) {
    call([&]<Backend B>() { B::gemm(left, right, a...); });
  }
  static void rms_norm_backward(auto... a) {
    call([&]<Backend B>() { B::rms_norm_backward(a...); });
  }
  static void gated_gelu_backward(auto... a) {
    call([&]<Backend B>() { B::gated_gelu_backward(a...); });
  }
  static void softmax_backward(auto... a) {
    call([&]<Backend B>() { B::softmax_backward(a...); });
  }
  static float log_sum_exp(auto... a) {
    float sum = 0;
    call([&]<Backend B>() { sum = B::log_sum_exp(a...); });
    return sum;
  }
  static void cross_entropy_backward(auto... a) {
    call([&]<Backend B>() { B::cross_entropy_backward(a...); });
  }
};

/// Calls f() with each backend chosen in turn: Scalar, then all that this CPU runs, best first. Threads that compute
/// must have ended when f returns.
template <class F>
void for_each_choice(F&& f) {
  std::size_t count = 0;
  for_each_backend([&]<Backend B>() { ++count; });
  for (ChosenBackend::choice = 0; ChosenBackend::choice <= count; ++ChosenBackend::choice) {
    const std::string backend = ChosenBackend::name();
    CAPTURE(backend);
    f();
  }
  ChosenBackend::choice = 1;
}

}  // namespace ple::testing
