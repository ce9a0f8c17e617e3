// SPDX-License-Identifier: Apache-2.0
// The picture of a training: the loss of what is learnt and of what is held out.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "svg.h"

namespace examples {

struct LossPoint {
  double at = 0;    ///< steps or tokens learnt before it
  double loss = 0;  ///< nats per token
};

struct LossCurve {
  std::string title = {}, subtitle = {};
  std::string unit = "steps";            ///< of LossPoint::at
  std::vector<LossPoint> training = {};  ///< of each step
  std::vector<LossPoint> held_out = {};  ///< measured now and then
  double smoothing = 0.95;               ///< what a step keeps of the mean before it: 0 for no mean, less than 1
};

/// Points that can be drawn, in order of steps: a loss that is not finite has no place in a picture.
inline std::vector<LossPoint> drawable(std::vector<LossPoint> points) {
  points.erase(std::remove_if(points.begin(), points.end(),
                              [](const LossPoint& p) { return !std::isfinite(p.at) || !std::isfinite(p.loss); }),
               points.end());
  std::stable_sort(points.begin(), points.end(), [](const LossPoint& a, const LossPoint& b) { return a.at < b.at; });
  return points;
}

/// Exponential mean of the losses so far. Weights add up to 1 from the first step on, as in Adam's correction.
inline std::vector<LossPoint> smoothed(std::vector<LossPoint> points, double keep) {
  double sum = 0, weights = 0;
  for (LossPoint& point : points) {
    sum = keep * sum + (1 - keep) * point.loss;
    weights = keep * weights + (1 - keep);
    point.loss = sum / weights;
  }
  return points;
}

/// The least and the most of every few points, at most `most` in all: a picture has no more pixels, and its file stays
/// small.
inline std::vector<LossPoint> thinned(const std::vector<LossPoint>& points, std::size_t most = 1600) {
  if (points.size() <= most) return points;
  const std::size_t step = (2 * points.size() + most - 1) / most;
  std::vector<LossPoint> kept;
  for (std::size_t begin = 0; begin < points.size(); begin += step) {
    const auto first = points.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto end = first + static_cast<std::ptrdiff_t>(std::min(step, points.size() - begin));
    const auto less = [](const LossPoint& a, const LossPoint& b) { return a.loss < b.loss; };
    const auto lowest = std::min_element(first, end, less), highest = std::max_element(first, end, less);
    kept.push_back(*std::min(lowest, highest));
    if (lowest != highest) kept.push_back(*std::max(lowest, highest));
  }
  return kept;
}

/// "250", "1.5k", "20M"
inline std::string count_text(double value) {
  static constexpr std::pair<double, const char*> units[] = {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
  for (const auto& [unit, name] : units) {
    if (value >= unit) return fmt::format("{:.4g}{}", value / unit, name);
  }
  return number_text(value);
}

/// The picture. Without any point it has axes only.
inline std::string loss_curve_page(const LossCurve& curve) {
  const std::vector<LossPoint> training = drawable(curve.training), held_out = drawable(curve.held_out);
  const std::vector<LossPoint> mean = smoothed(training, curve.smoothing);
  double last = 0, low = 1e300, high = -1e300;
  for (const auto* points : {&training, &held_out}) {
    for (const LossPoint& p : *points) {
      last = std::max(last, p.at);
      low = std::min(low, p.loss);
      high = std::max(high, p.loss);
    }
  }
  if (low > high) {  // no point
    low = 0;
    high = 1;
  }
  const double margin = high > low ? 0.05 * (high - low) : 0.1 * std::fabs(high) + 1e-9;
  const Scale x{0, last > 0 ? last : 1, 84, 860}, y{std::max(0.0, low - margin), high + margin, 340, 110};

  Svg svg(900, 420, "The loss of a training");
  svg.text(24, 34, curve.title, {.size = 20, .bold = true});
  svg.text(24, 56, curve.subtitle, {.colour = "#666666"});
  vertical_axis(svg, x, y, "Loss", "nats per token");
  for (const double tick : x.ticks(8)) svg.text(x(tick), 358, count_text(tick), {.size = 12, .anchor = "middle"});
  svg.text((x.from + x.to) / 2, 382, curve.unit, {.anchor = "middle"});

  double legend = 110;
  const auto draw = [&](const std::vector<LossPoint>& points, const std::string& name, const std::string& colour,
                        double width, bool dots) {
    if (points.empty()) return;
    std::vector<std::pair<double, double>> places;
    for (const LossPoint& p : thinned(points)) places.emplace_back(x(p.at), y(p.loss));
    svg.path(places, colour, width);
    // A line of one point is not seen.
    if (dots || points.size() == 1) {
      for (const auto& [px, py] : places) svg.dot(px, py, 3.5, colour);
    }
    legend += 18;
    svg.line(690, legend - 4, 714, legend - 4, colour, std::max(width, 1.5));
    svg.text(722, legend, fmt::format("{}: {}", name, number_text(points.back().loss)), {.size = 12});
  };
  draw(training, "each step", "#b9d3e6", 1, false);
  if (curve.smoothing > 0) draw(mean, "mean of steps", colour_of(0), 2, false);
  draw(held_out, "held out", colour_of(5), 2, true);
  return svg.page();
}

}  // namespace examples
