// SPDX-License-Identifier: Apache-2.0
// Pictures as SVG text: shapes, scales, axes. Coordinates are pixels, y goes down.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace examples {

/// Text as XML may hold it: no markup, no control characters.
inline std::string xml_escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '&') {
      escaped += "&amp;";
    } else if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '"') {
      escaped += "&quot;";
    } else {
      escaped += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return escaped;
}

/// What a picture calls the model at a path, which may end with a slash.
inline std::string name_of_model(const std::filesystem::path& path) {
  std::error_code error;
  const auto whole = std::filesystem::weakly_canonical(path, error);
  return (error ? path : whole).filename().string();
}

struct TextStyle {
  double size = 13;
  const char* anchor = "start";  ///< start, middle, end
  const char* colour = "#222222";
  bool bold = false;
  double turn = 0;  ///< degrees, clockwise
};

class Svg {
 public:
  Svg(double width, double height, std::string_view title) {
    body_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} "
        "{1:.0f}\" font-family=\"sans-serif\" role=\"img\">\n<title>{2}</title>\n",
        width, height, xml_escaped(title));
    rectangle(0, 0, width, height, "#ffffff");
  }

  void rectangle(double x, double y, double width, double height, std::string_view fill) {
    body_ += fmt::format("<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"{}\"/>\n", x, y,
                         width, height, fill);
  }
  void line(double x1, double y1, double x2, double y2, std::string_view colour, double width = 1) {
    path({{x1, y1}, {x2, y2}}, colour, width);
  }
  void path(const std::vector<std::pair<double, double>>& points, std::string_view colour, double width = 1.5) {
    body_ += "<polyline points=\"";
    for (const auto& [x, y] : points) body_ += fmt::format("{:.2f},{:.2f} ", x, y);
    body_ += fmt::format("\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"/>\n", colour, width);
  }
  void dot(double x, double y, double radius, std::string_view colour) {
    body_ += fmt::format("<circle cx=\"{:.2f}\" cy=\"{:.2f}\" r=\"{}\" fill=\"{}\"/>\n", x, y, radius, colour);
  }
  void text(double x, double y, std::string_view text, const TextStyle& style = {}) {
    body_ +=
        fmt::format("<text x=\"{:.2f}\" y=\"{:.2f}\" font-size=\"{}\" text-anchor=\"{}\" fill=\"{}\"{}{}>{}</text>\n",
                    x, y, style.size, style.anchor, style.colour, style.bold ? " font-weight=\"bold\"" : "",
                    style.turn != 0 ? fmt::format(" transform=\"rotate({} {:.2f} {:.2f})\"", style.turn, x, y) : "",
                    xml_escaped(text));
  }

  std::string page() const { return body_ + "</svg>\n"; }

 private:
  std::string body_;
};

/// From values [low, high] to pixels [from, to]; what lies outside is drawn at the edge.
struct Scale {
  double low = 0, high = 1, from = 0, to = 1;
  bool log = false;  ///< then low > 0

  double operator()(double value) const {
    const double v = std::clamp(value, low, high);
    return from + (to - from) * (log ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low));
  }

  /// Round numbers from low to high, about `wanted` of them.
  std::vector<double> ticks(int wanted = 5) const {
    std::vector<double> ticks;
    if (log) {
      const int first = static_cast<int>(std::ceil(std::log10(low) - 1e-9)),
                last = static_cast<int>(std::floor(std::log10(high) + 1e-9)), step = (last - first) / (wanted + 3) + 1;
      for (int e = first; e <= last; e += step) ticks.push_back(std::pow(10.0, e));
      if (ticks.size() >= 3) return ticks;
      ticks.clear();  // not even two decades
      for (int e = first - 1; e <= last; ++e) {
        for (const double digit : {1.0, 2.0, 5.0}) {
          const double value = digit * std::pow(10.0, e);
          if (value >= low * 0.999 && value <= high * 1.001) ticks.push_back(value);
        }
      }
      if (ticks.size() >= 3) return ticks;
      ticks.clear();  // so short that it is nearly linear
    }
    const double rough = (high - low) / wanted, power = std::pow(10.0, std::floor(std::log10(rough)));
    const double digits = rough / power, step = power * (digits < 1.5 ? 1 : digits < 3.5 ? 2 : digits < 7.5 ? 5 : 10);
    for (double i = std::ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; ++i)
      ticks.push_back(i * step + 0.0);  // no -0
    return ticks;
  }
};

/// "0.02", "5e-7"
inline std::string number_text(double value) {
  std::string text = fmt::format("{:.3g}", value);
  const std::size_t e = text.find('e');
  if (e == std::string::npos) return text;
  const std::string mantissa = text.substr(0, e);
  return fmt::format("{}e{}", mantissa, std::stoi(text.substr(e + 1)));
}

/// Powers of ten that are hard to count as such: "1e-4".
inline std::string power_text(double value) {
  return value < 0.01 ? fmt::format("1e{}", std::lround(std::log10(value))) : number_text(value);
}

/// Ticks and grid lines of a plot, and above it what its height means.
inline void vertical_axis(Svg& svg, const Scale& x, const Scale& y, std::string_view title, std::string_view unit) {
  for (const double tick : y.ticks()) {
    svg.line(x.from, y(tick), x.to, y(tick), "#e4e4e4");
    svg.text(x.from - 8, y(tick) + 4, y.log ? power_text(tick) : number_text(tick), {.size = 12, .anchor = "end"});
  }
  svg.line(x.from, y.from, x.from, y.to, "#888888");
  svg.line(x.from, y.from, x.to, y.from, "#888888");
  svg.text(24, y.to - 12, title, {.size = 14, .bold = true});
  svg.text(x.to, y.to - 12, unit, {.size = 12, .anchor = "end", .colour = "#666666"});
}

/// Depths 0, 1, ... under a plot, as many as have room.
inline void depth_axis(Svg& svg, const Scale& x, std::size_t depths, double y, std::string_view title) {
  const std::size_t step = depths > 24 ? 5 : 1;
  for (std::size_t l = 0; l < depths; l += step) {
    svg.text(x(static_cast<double>(l)), y + 16, fmt::format("{}", l), {.size = 12, .anchor = "middle"});
  }
  svg.text((x.from + x.to) / 2, y + 35, title, {.anchor = "middle"});
}

/// A colour for the i-th of a few things, told apart by colour-blind readers too.
inline const char* colour_of(std::size_t i) {
  static constexpr const char* colours[] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
                                            "#882255", "#999933", "#117733", "#332288", "#aa4499", "#999999"};
  return colours[i % std::size(colours)];
}

/// Light to dark for 0 to 1.
inline std::string shade(double amount) {
  static constexpr double stops[][3] = {{237, 243, 248}, {150, 190, 220}, {52, 120, 180}, {8, 40, 90}};
  const double at = std::clamp(amount, 0.0, 1.0) * 3;
  const auto i = std::min<std::size_t>(static_cast<std::size_t>(at), 2);
  const double part = at - static_cast<double>(i);
  const auto mixed = [&](int c) { return static_cast<int>(stops[i][c] + part * (stops[i + 1][c] - stops[i][c])); };
  return fmt::format("#{:02x}{:02x}{:02x}", mixed(0), mixed(1), mixed(2));
}

}  // namespace examples
