// SPDX-License-Identifier: Apache-2.0
// Seeks the scales, minimums and integers of a 256-value super-block with the least squared error. First, trial scales
// round each sub-block's values to integers, and regression finds the line through (integer, value). Then the line's
// scale becomes a small integer, neighbours tried too. Last, regression finds the scales of the super-block.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "ple/core/config.h"
#include "ple/dtype/floats.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// Scales and minimums, 6 bits each, of the sub-blocks of q4_k and q5_k.
struct SubScales {
  int scales[8] = {}, minimums[8] = {};
};

/// A fit of 8 sub-blocks of 32: value = scale * scales[s] * integer - min_scale * minimums[s].
struct MinimumsFit {
  f16 scale, min_scale;
  SubScales sub;
  std::uint8_t integers[256] = {};
};

/// A fit of 16 sub-blocks of 16: value = scale * scales[s] * (integer - 32).
struct SymmetricFit {
  f16 scale;
  std::int8_t scales[16] = {};
  std::uint8_t integers[256] = {};
};

/// A fit of N values: value = scale * integer - minimum.
struct Line {
  float scale = 0, minimum = 0;
};

/// Sums over N values x and their integers q. With sum x and sum x^2, they give a line's squared error.
struct LineSums {
  double q = 0, qq = 0, qx = 0;
};

/// x rounded to an integer in [least, most]; NaN becomes `least`.
inline int clamped(float x, int least, int most) {
  const float shifted = (std::max)(0.0f, x - static_cast<float>(least) + 0.5f);  // positive, since the cast truncates
  return least + static_cast<int>((std::min)(shifted, static_cast<float>(most - least)));
}

inline float inverse_of(float x) { return x != 0 ? 1 / x : 0; }

/// Rounds N values to integers on a line. Returns their sums.
template <std::size_t N>
LineSums sums_on(const Line& line, const float* x, int least, int most) {
  const float inverse = inverse_of(line.scale);
  int q = 0, qq = 0;
  float qx[8] = {};  // partial sums, for the compiler to vectorise
  for (std::size_t i = 0; i < N; i += 8) {
    for (std::size_t lane = 0; lane < 8; ++lane) {
      const int integer = clamped((x[i + lane] + line.minimum) * inverse, least, most);
      q += integer;
      qq += integer * integer;
      qx[lane] += static_cast<float>(integer) * x[i + lane];
    }
  }
  LineSums sums{.q = static_cast<double>(q), .qq = static_cast<double>(qq)};
  for (const float sum : qx) sums.qx += static_cast<double>(sum);
  return sums;
}

/// sum (scale q - minimum - x)^2, less sum x^2.
inline double squared_error(double scale, double minimum, const LineSums& sums, double x, double n) {
  return scale * (scale * sums.qq - 2 * (minimum * sums.q + sums.qx)) + minimum * (n * minimum + 2 * x);
}

/// A scale by which `units` reaches `largest`; rounded up where f16's steps are so coarse that it matters.
inline f16 scale_for(float largest, int units) {
  f16 scale = to_f16(largest / static_cast<float>(units));
  if (to_f32(scale) * (static_cast<float>(units) + 0.5f) < largest) ++scale.bits;
  return scale;
}

/// The best line found for 32 values and integers in [0, most]. The formats require minimum >= 0.
inline Line fit_line(const float* x, double sum_x, int most) {
  float least = 0, largest = x[0];  // integer 0 means -minimum, which is at most 0
  for (std::size_t i = 0; i < 32; ++i) {
    least = (std::min)(least, x[i]);
    largest = (std::max)(largest, x[i]);
  }
  const float range = largest - least;
  Line best{.scale = range / static_cast<float>(most), .minimum = -least};
  double best_error = std::numeric_limits<double>::infinity();
  const auto attempt = [&](const Line& trial) {
    const LineSums sums = sums_on<32>(trial, x, 0, most);
    const double determinant = 32 * sums.qq - sums.q * sums.q;
    if (!(determinant > 0)) return;
    double scale = (32 * sums.qx - sums.q * sum_x) / determinant, minimum = (scale * sums.q - sum_x) / 32;
    if (minimum < 0) scale = sums.qx / sums.qq, minimum = 0;
    const double error = squared_error(scale, minimum, sums, sum_x, 32);
    if (!(scale > 0) || !(error < best_error)) return;
    best_error = error;
    best = {.scale = static_cast<float>(scale), .minimum = static_cast<float>(minimum)};
  };
  // Spreads the range over most + 0.4 down to most - 2 steps: of the trial sets of this size measured on normal values,
  // none ends with a smaller error. A fitted line rounds some values differently, so it is fitted again.
  const Line whole = best;
  for (int step = -1; step < 6; ++step) {
    attempt({.scale = range / (static_cast<float>(most) - 0.4f * static_cast<float>(step)), .minimum = whole.minimum});
  }
  for (int again = 0; again < 2; ++again) attempt(best);
  return best;
}

/// For q4_k (most = 15) and q5_k (most = 31).
inline MinimumsFit fit_with_minimums(const float* values, int most) {
  MinimumsFit fit;
  Line lines[8];
  double sum_x[8] = {};
  float largest_scale = 0, largest_minimum = 0;
  for (std::size_t s = 0; s < 8; ++s) {
    for (std::size_t i = 0; i < 32; ++i) sum_x[s] += static_cast<double>(values[32 * s + i]);
    lines[s] = fit_line(values + 32 * s, sum_x[s], most);
    largest_scale = (std::max)(largest_scale, lines[s].scale);
    largest_minimum = (std::max)(largest_minimum, lines[s].minimum);
  }
  fit.scale = scale_for(largest_scale, 63);
  fit.min_scale = scale_for(largest_minimum, 63);

  // Sums over all values, with a = scale * q and b = minimum in units of the super-block scales.
  double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
  const float unit = to_f32(fit.scale), min_unit = to_f32(fit.min_scale);
  for (std::size_t s = 0; s < 8; ++s) {
    const int middle = clamped(lines[s].scale * inverse_of(unit), 0, 63);
    LineSums best;
    double best_error = std::numeric_limits<double>::infinity();
    for (int scale = (std::max)(middle - 1, 0); scale <= (std::min)(middle + 1, 63); ++scale) {
      int minimum = clamped(lines[s].minimum * inverse_of(min_unit), 0, 63);
      for (int again = 0; again < 2; ++again) {
        const Line line{.scale = unit * static_cast<float>(scale), .minimum = min_unit * static_cast<float>(minimum)};
        const LineSums sums = sums_on<32>(line, values + 32 * s, 0, most);
        const double exact = (static_cast<double>(line.scale) * sums.q - sum_x[s]) / 32;
        minimum = clamped(static_cast<float>(exact) * inverse_of(min_unit), 0, 63);
        const double error =
            squared_error(static_cast<double>(line.scale), static_cast<double>(min_unit * static_cast<float>(minimum)),
                          sums, sum_x[s], 32);
        if (!(error < best_error)) continue;
        best_error = error;
        best = sums;
        fit.sub.scales[s] = scale;
        fit.sub.minimums[s] = minimum;
      }
    }
    const double a = fit.sub.scales[s], b = fit.sub.minimums[s];
    aa += a * a * best.qq;
    ab += a * b * best.q;
    bb += 32 * b * b;
    ax += a * best.qx;
    bx += b * sum_x[s];
  }

  // Both super-block scales by regression, min sum (scale a - min_scale b - x)^2; used if better once rounded.
  const auto error = [&](f16 scale, f16 min_scale) {
    const double u = static_cast<double>(to_f32(scale)), v = static_cast<double>(to_f32(min_scale));
    return u * u * aa + v * v * bb - 2 * (u * v * ab + u * ax - v * bx);
  };
  const double determinant = aa * bb - ab * ab;
  if (determinant > 0) {
    const f16 scale = to_f16(static_cast<float>((ax * bb - ab * bx) / determinant));
    const f16 min_scale = to_f16(static_cast<float>((ab * ax - aa * bx) / determinant));
    if (to_f32(min_scale) >= 0 && error(scale, min_scale) < error(fit.scale, fit.min_scale)) {
      fit.scale = scale;
      fit.min_scale = min_scale;
    }
  }
  for (std::size_t i = 0; i < 256; ++i) {
    const std::size_t s = i / 32;
    const float inverse = inverse_of(to_f32(fit.scale) * static_cast<float>(fit.sub.scales[s]));
    const float minimum = to_f32(fit.min_scale) * static_cast<float>(fit.sub.minimums[s]);
    fit.integers[i] = static_cast<std::uint8_t>(clamped((values[i] + minimum) * inverse, 0, most));
  }
  return fit;
}

/// The best scale found for 16 values and integers in [-32, 31].
inline float fit_scale(const float* x) {
  float extreme = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  float best = extreme / -32;
  double most_explained = 0;
  for (int step = -3; step < 4; ++step) {
    const Line trial{.scale = extreme / (-32 + 0.3f * static_cast<float>(step))};
    const LineSums sums = sums_on<16>(trial, x, -32, 31);
    const double explained = sums.qx * sums.qx;  // by regression: (sum x^2 - error) * sum q^2
    if (!(explained > most_explained * sums.qq)) continue;
    most_explained = explained / sums.qq;
    best = static_cast<float>(sums.qx / sums.qq);
  }
  return best;
}

/// For q6_k.
inline SymmetricFit fit_symmetric(const float* values) {
  SymmetricFit fit;
  float scales[16], largest = 0;
  for (std::size_t s = 0; s < 16; ++s) {
    scales[s] = fit_scale(values + 16 * s);
    largest = (std::max)(largest, std::fabs(scales[s]));
  }
  fit.scale = scale_for(largest, 127);
  const float unit = to_f32(fit.scale);
  double aa = 0, ax = 0;  // with a = scale * q, in units of the super-block scale
  for (std::size_t s = 0; s < 16; ++s) {
    const int middle = clamped(scales[s] * inverse_of(unit), -127, 127);
    LineSums best;
    double best_error = std::numeric_limits<double>::infinity();
    for (int scale = (std::max)(middle - 1, -128); scale <= (std::min)(middle + 1, 127); ++scale) {
      const Line line{.scale = unit * static_cast<float>(scale)};
      const LineSums sums = sums_on<16>(line, values + 16 * s, -32, 31);
      const double error = squared_error(static_cast<double>(line.scale), 0, sums, 0, 16);
      if (!(error < best_error)) continue;
      best_error = error;
      best = sums;
      fit.scales[s] = static_cast<std::int8_t>(scale);
    }
    const double a = fit.scales[s];
    aa += a * a * best.qq;
    ax += a * best.qx;
  }
  if (aa > 0) {
    const f16 scale = to_f16(static_cast<float>(ax / aa));
    const auto error = [&](f16 u) {
      return static_cast<double>(to_f32(u)) * (static_cast<double>(to_f32(u)) * aa - 2 * ax);
    };
    if (error(scale) < error(fit.scale)) fit.scale = scale;
  }
  for (std::size_t i = 0; i < 256; ++i) {
    const std::size_t s = i / 16;
    const float inverse = inverse_of(to_f32(fit.scale) * static_cast<float>(fit.scales[s]));
    fit.integers[i] = static_cast<std::uint8_t>(clamped(values[i] * inverse, -32, 31) + 32);
  }
  return fit;
}

}  // namespace detail
}  // namespace ple::inline PLE_ABI
