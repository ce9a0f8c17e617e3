// SPDX-License-Identifier: Apache-2.0
// The report of `inspect` as one page: inline CSS and SVG, nothing from elsewhere.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "inspect_report.h"

namespace examples {

/// Builds SVG text. Coordinates are pixels of a drawing 1000 wide.
class Svg {
 public:
  Svg(double height, std::string_view title) {
    put(R"(<svg viewBox="0 0 1000 {}" role="img" aria-label="{}">)", height, title);
  }
  template <class... Args>
  void put(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    text_ += '\n';
  }
  void box(double x, double y, double width, double height, std::string_view colour, std::string_view tip,
           std::string_view more = "") {
    put(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.2f}" height="{:.1f}" fill="{}" {}><title>{}</title></rect>)", x, y,
        width, height, colour, more, tip);
  }
  void label(double x, double y, std::string_view text, std::string_view more = "") {
    put(R"(<text x="{:.1f}" y="{:.1f}" {}>{}</text>)", x, y, more, text);
  }
  void line(double x1, double y1, double x2, double y2, std::string_view colour) {
    put(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}"/>)", x1, y1, x2, y2, colour);
  }
  std::string done() { return text_ + "</svg>\n"; }

 private:
  std::string text_;
};

namespace detail {

constexpr std::string_view grid = "#e3e7ec", middle = R"(text-anchor="middle")", right = R"(text-anchor="end")";

inline std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

/// The smallest step of 1, 2 or 5 times a power of ten of which at most six fit below `most`.
inline double axis_step(double most) {
  double power = 1;
  while (power > most / 6) power /= 10;
  while (power * 10 <= most / 6) power *= 10;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (power * factor * 6 >= most) return power * factor;
  }
  return power * 10;
}

struct Piece {
  std::string_view name, colour;
  std::uint64_t size;
  std::string text;
};

/// A bar to scale, with names and values inside the pieces that have room for them.
inline void stacked_bar(Svg& svg, double x, double y, double height, double per_unit,
                        const std::vector<Piece>& pieces) {
  for (const Piece& piece : pieces) {
    const double width = static_cast<double>(piece.size) * per_unit;
    svg.box(x, y, width, height, piece.colour, fmt::format("{}: {}", piece.name, piece.text),
            R"(stroke="#fff" stroke-width="1")");
    const std::string_view light = piece.colour == "#f3c178" || piece.colour == "#6aaed6" ? "" : R"(fill="#fff")";
    // About 8 pixels a letter.
    const bool fits = width > 8.0 * static_cast<double>(piece.text.size());
    if (width > 8.0 * static_cast<double>(std::max(piece.name.size(), piece.text.size()))) {
      svg.label(x + width / 2, y + height / 2 - 4, piece.name, fmt::format(R"(class="in" {} {})", middle, light));
      svg.label(x + width / 2, y + height / 2 + 14, piece.text, fmt::format(R"(class="in b" {} {})", middle, light));
    } else if (fits) {
      svg.label(x + width / 2, y + height / 2 + 5, piece.text, fmt::format(R"(class="in b" {} {})", middle, light));
    }
    x += width;
  }
}

inline std::string parameters_bar(const Report& report) {
  Svg svg(84, "Parameters by part, to scale");
  std::vector<Piece> pieces;
  for (const Share& part : report.parts)
    pieces.push_back({part.name, part.colour, part.parameters, parameters_text(part.parameters)});
  stacked_bar(svg, 0, 4, 76, 1000 / static_cast<double>(report.groups.total()), pieces);
  return svg.done();
}

inline std::string parameters_table(const Report& report) {
  std::string rows;
  for (const Share& part : report.parts) {
    std::string dtypes;
    for (const auto& [dtype, bytes] : part.by_dtype) dtypes += (dtypes.empty() ? "" : ", ") + escaped(dtype);
    rows += fmt::format(
        R"(<tr><td><i style="background:{}"></i>{}</td><td>{}</td><td>{:.1f} %</td><td>{}</td><td>{}</td></tr>)"
        "\n",
        part.colour, part.name, parameters_text(part.parameters),
        100 * static_cast<double>(part.parameters) / static_cast<double>(report.groups.total()), bytes_text(part.bytes),
        dtypes);
  }
  return "<table><tr><th>part</th><th>parameters</th><th>share</th><th>bytes</th><th>stored as</th></tr>\n" + rows +
         "</table>\n";
}

inline std::string google_table(const Report& report) {
  std::string rows;
  for (const Share& group : report.google) {
    const char* none = std::string_view(group.name) == "PLE" ? "none"
                       : report.has_files                    ? "not in the files"
                                                             : "not known without files";
    rows += fmt::format("<tr><td><i style=\"background:{}\"></i>{}</td><td>{}</td><td>{}</td></tr>\n", group.colour,
                        group.name, group.parameters > 0 ? parameters_text(group.parameters) : none,
                        group.parameters > 0 ? bytes_text(group.bytes) : "");
  }
  return "<table><tr><th>group</th><th>parameters</th><th>bytes</th></tr>\n" + rows + "</table>\n";
}

/// A column for every layer.
inline std::string layers_chart(const Report& report) {
  constexpr double left = 70, top = 26, height = 250, bottom = top + height;
  // From below: what is read for every token, then the slice of the table, of which a token reads one row.
  constexpr std::array order{ple::ParameterPart::feed_forward, ple::ParameterPart::experts,
                             ple::ParameterPart::attention,    ple::ParameterPart::ple_step,
                             ple::ParameterPart::streams,      ple::ParameterPart::other,
                             ple::ParameterPart::ple_table};
  constexpr std::array<std::string_view, 8> colours{"#8168b3", "#e58a2f", "#2c6aa8", "#6aaed6",
                                                    "#b6483f", "#f3c178", "#4f9d86", "#a3adb8"};
  constexpr std::array<std::string_view, 8> names{
      "token embedding", "slice of the PLE table", "attention",   "feed-forward", "experts",
      "PLE step",        "AltUp, LAuReL",          "norms, other"};
  std::uint64_t most = 1;
  for (const Layer& layer : report.layers) {
    std::uint64_t sum = 0;
    for (const std::uint64_t n : layer.parameters) sum += n;
    most = std::max(most, sum);
  }
  Svg svg(bottom + 62, "Parameters of every layer");
  const bool millions = most >= 2'000'000;
  const double unit = millions ? 1e6 : 1e3, scale = height / (static_cast<double>(most) / unit * 1.04);
  const double step = axis_step(static_cast<double>(most) / unit);
  svg.label(left, 14, millions ? "million parameters" : "thousand parameters", R"(class="axis")");
  for (double value = 0; value * scale <= height; value += step) {
    svg.line(left, bottom - value * scale, 1000, bottom - value * scale, grid);
    svg.label(left - 8, bottom - value * scale + 4, fmt::format("{:g}", value),
              fmt::format(R"(class="axis" {})", right));
  }
  const double pitch = (1000 - left) / static_cast<double>(report.layers.size());
  for (std::size_t l = 0; l < report.layers.size(); ++l) {
    const Layer& layer = report.layers[l];
    const double x = left + pitch * static_cast<double>(l) + pitch * 0.12;
    double y = bottom;
    for (const ple::ParameterPart part : order) {
      const auto i = static_cast<std::size_t>(part);
      const double size = static_cast<double>(layer.parameters[i]) / unit * scale;
      y -= size;
      if (size > 0) {
        svg.box(x, y, pitch * 0.76, size, colours[i],
                fmt::format("layer {}, {}: {}", l, names[i], parameters_text(layer.parameters[i])));
      }
    }
    const bool full = layer.attention == ple::AttentionType::full;
    svg.box(x, bottom + 5, pitch * 0.76, 7, full ? "#22303c" : "#c3ccd6",
            fmt::format("layer {}: {} attention", l, full ? "full" : "sliding"));
    if (layer.shares_kv) {
      svg.box(x, bottom + 15, pitch * 0.76, 7, "#b6483f", fmt::format("layer {} shares an earlier layer's K and V", l));
    }
    if (report.layers.size() <= 14 || l % 5 == 0)
      svg.label(x + pitch * 0.38, bottom + 40, fmt::format("{}", l), fmt::format(R"(class="axis" {})", middle));
  }
  svg.label(left + (1000 - left) / 2, bottom + 58, "layer", fmt::format(R"(class="axis" {})", middle));
  std::string legend = "<p class=\"legend\">";
  for (const ple::ParameterPart part : order) {
    const auto i = static_cast<std::size_t>(part);
    const auto has = [&](const Layer& layer) { return layer.parameters[i] > 0; };
    if (std::any_of(report.layers.begin(), report.layers.end(), has))
      legend += fmt::format("<span><i style=\"background:{}\"></i>{}</span>", colours[i], names[i]);
  }
  legend +=
      "<span><i style=\"background:#22303c\"></i>full attention</span>"
      "<span><i style=\"background:#c3ccd6\"></i>sliding attention</span>";
  if (report.layers.back().shares_kv)
    legend += "<span><i style=\"background:#b6483f\"></i>shares an earlier layer's K and V</span>";
  return svg.done() + legend + "</p>\n";
}

/// What a token reads, above everything there is, to one scale.
inline std::string reads_chart(const Report& report) {
  std::vector<Piece> all, read{{"layers", "#2c6aa8", report.reads.layers, bytes_text(report.reads.layers)},
                               {"head", "#8168b3", report.reads.head, bytes_text(report.reads.head)}};
  std::uint64_t bytes = 0;
  for (const Share& group : report.google) {
    bytes += group.bytes;
    if (group.bytes > 0) all.push_back({group.name, group.colour, group.bytes, bytes_text(group.bytes)});
  }
  const double per_byte = 1000 / static_cast<double>(bytes);
  Svg svg(182, "Bytes read for a token and bytes of the whole model, to scale");
  svg.label(0, 16, fmt::format("read for one token: {}", bytes_text(report.reads.weights())), R"(class="b")");
  stacked_bar(svg, 0, 24, 56, per_byte, read);
  const double end = static_cast<double>(report.reads.layers + report.reads.head) * per_byte;
  const std::string rows = report.has_ple()
                               ? fmt::format("+ one PLE row, {}, and one embedding row, {}",
                                             bytes_text(report.reads.table_row), bytes_text(report.reads.embedding_row))
                               : fmt::format("+ one embedding row, {}", bytes_text(report.reads.embedding_row));
  if (end < 640) {
    svg.label(end + 10, 57, rows);
  } else {
    svg.label(1000, 16, rows, right);
  }
  svg.label(0, 110, fmt::format("the whole model: {}", bytes_text(bytes)), R"(class="b")");
  stacked_bar(svg, 0, 118, 56, per_byte, all);
  return svg.done();
}

inline std::string memory_chart(const Report& report) {
  constexpr double left = 110, room = 700, row = 66;
  std::uint64_t most = 1;
  for (const Memory& memory : report.memory)
    most = std::max(most, memory.weights + memory.table + memory.may_grow + report.kv.total());
  const double per_byte = room / static_cast<double>(most);
  const double gib = 1 << 30, mib = 1 << 20;
  const bool large = static_cast<double>(most) > 2 * gib;
  const double unit = large ? gib : mib, step = axis_step(static_cast<double>(most) / unit);
  const double bottom = 24 + row * static_cast<double>(report.memory.size());
  Svg svg(bottom + 40, "Memory by where the PLE table lives");
  svg.put(
      R"svg(<defs><pattern id="hatch" width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">)svg"
      R"svg(<rect width="8" height="8" fill="#fdf1e2"/><rect width="3" height="8" fill="#e58a2f"/></pattern></defs>)svg");
  for (double value = 0; value * unit * per_byte <= room; value += step) {
    const double x = left + value * unit * per_byte;
    svg.line(x, 14, x, bottom, grid);
    svg.label(x, bottom + 16, fmt::format("{:g}", value), fmt::format(R"(class="axis" {})", middle));
  }
  svg.label(left + room / 2, bottom + 34, large ? "GiB" : "MiB", fmt::format(R"(class="axis" {})", middle));
  for (std::size_t i = 0; i < report.memory.size(); ++i) {
    const Memory& memory = report.memory[i];
    const double y = 20 + row * static_cast<double>(i);
    svg.label(left - 10, y + 24, memory.name, fmt::format(R"(class="b" {})", right));
    stacked_bar(svg, left, y, 40, per_byte,
                {{"weights", "#2c6aa8", memory.weights, bytes_text(memory.weights)},
                 {"K and V", "#4f9d86", report.kv.total(), bytes_text(report.kv.total())},
                 {"PLE table", "#e58a2f", memory.table, bytes_text(memory.table)}});
    const std::uint64_t now = memory.weights + memory.table + report.kv.total();
    const double x = left + static_cast<double>(now) * per_byte, more = static_cast<double>(memory.may_grow) * per_byte;
    if (memory.may_grow > 0) {
      svg.box(x, y, more, 40, "url(#hatch)", "pages of the table: they come as rows are touched");
      svg.label(x + more + 8, y + 17, fmt::format("{} to {}", bytes_text(now), bytes_text(now + memory.may_grow)),
                R"(class="b")");
    } else {
      svg.label(x + 8, y + 17, bytes_text(now), R"(class="b")");
    }
    svg.label(left, y + 54, memory.note, R"(class="axis")");
  }
  std::string legend =
      "<p class=\"legend\"><span><i style=\"background:#2c6aa8\"></i>weights</span>"
      "<span><i style=\"background:#4f9d86\"></i>K and V</span>";
  if (report.has_ple()) {
    legend +=
        "<span><i style=\"background:#e58a2f\"></i>PLE table</span>"
        "<span><i class=\"may\"></i>pages of the table that come as rows are touched</span>";
  }
  return svg.done() + legend + "</p>\n";
}

inline std::string kv_chart(const Report& report) {
  constexpr double left = 70, top = 30, height = 220, bottom = top + height;
  std::uint64_t most = 1;
  for (const KvCacheBytes& kv : report.kv_by_context) most = std::max(most, kv.total());
  const double mib = 1 << 20, gib = 1 << 30;
  const bool large = static_cast<double>(most) > 2 * gib;
  const double unit = large ? gib : static_cast<double>(most) > 2 * mib ? mib : 1024;
  const double scale = height / (static_cast<double>(most) / unit * 1.08);
  const double step = axis_step(static_cast<double>(most) / unit);
  Svg svg(bottom + 44, "Cache of keys and values by context");
  svg.label(left, 14, large ? "GiB" : unit == mib ? "MiB" : "KiB", R"(class="axis")");
  for (double value = 0; value * scale <= height; value += step) {
    svg.line(left, bottom - value * scale, 1000, bottom - value * scale, grid);
    svg.label(left - 8, bottom - value * scale + 4, fmt::format("{:g}", value),
              fmt::format(R"(class="axis" {})", right));
  }
  const double pitch = (1000 - left) / static_cast<double>(report.kv_by_context.size());
  const double width = std::min(pitch * 0.7, 110.0);
  for (std::size_t i = 0; i < report.kv_by_context.size(); ++i) {
    const KvCacheBytes& kv = report.kv_by_context[i];
    const double x = left + pitch * (static_cast<double>(i) + 0.5) - width / 2;
    const double sliding = static_cast<double>(kv.sliding) / unit * scale,
                 full = static_cast<double>(kv.full) / unit * scale;
    svg.box(x, bottom - sliding, width, sliding, "#8fc1b1", "sliding layers: " + bytes_text(kv.sliding));
    svg.box(x, bottom - sliding - full, width, full, "#2f7d68", "full layers: " + bytes_text(kv.full));
    svg.label(x + width / 2, bottom - sliding - full - 6, bytes_text(kv.total()),
              fmt::format(R"(class="b" {})", middle));
    svg.label(x + width / 2, bottom + 18, fmt::format("{}", kv.context), fmt::format(R"(class="axis" {})", middle));
  }
  svg.label(left + (1000 - left) / 2, bottom + 38, "context, positions", fmt::format(R"(class="axis" {})", middle));
  return svg.done() +
         "<p class=\"legend\"><span><i style=\"background:#2f7d68\"></i>full layers: a slot for every position</span>"
         "<span><i style=\"background:#8fc1b1\"></i>sliding layers: a ring of the window and one chunk</span></p>\n";
}

constexpr std::string_view style = R"(<style>
:root { color-scheme: light; }
body { margin: 0; background: #f4f6f8; color: #22303c; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 48px; }
h1 { font-size: 30px; margin: 0; } h2 { font-size: 20px; margin: 0 0 4px; }
p { margin: 4px 0 14px; color: #55636f; }
section { background: #fff; border: 1px solid #e3e7ec; border-radius: 10px; padding: 20px 24px; margin-top: 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin-top: 18px; }
.tiles div { background: #fff; border: 1px solid #e3e7ec; border-radius: 10px; padding: 12px 16px; font-size: 13px; color: #55636f; line-height: 1.35; }
.tiles b { display: block; font-size: 25px; color: #22303c; line-height: 1.3; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
svg text { font-size: 14px; fill: #22303c; } svg .in { font-size: 13px; } svg .b { font-weight: 600; }
svg text[fill="#fff"] { fill: #fff; } svg .axis { font-size: 13px; fill: #66737f; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, max-content)); gap: 8px 56px; margin-top: 14px; }
table { border-collapse: collapse; font-size: 14px; align-self: start; }
th { text-align: left; font-weight: 600; color: #66737f; } th, td { white-space: nowrap; padding: 4px 14px 4px 0; border-bottom: 1px solid #eef1f4; }
td:nth-child(n+2), th:nth-child(n+2) { text-align: right; font-variant-numeric: tabular-nums; }
i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 7px; }
.may { background: repeating-linear-gradient(45deg, #e58a2f 0 2px, #fdf1e2 2px 5px); }
.legend { font-size: 14px; margin: 10px 0 0; } .legend span { margin-right: 18px; white-space: nowrap; display: inline-block; }
</style>
)";

}  // namespace detail

inline std::string html_page(const Report& report) {
  const std::string name = detail::escaped(report.name);
  std::string page =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
  page += fmt::format("<title>{}: what it is made of</title>\n{}</head>\n<body>\n<main>\n", name, detail::style);
  page += fmt::format("<h1>{}</h1>\n<p>{}: {}. {}</p>\n", name, report.family, report.shape,
                      report.has_files ? "Counted from the headers of its files; no weight was read."
                                       : "No files: counted from the configuration alone, which leaves out vision and "
                                         "audio; bytes are those of bf16, as published.");
  const auto tile = [&](const std::string& value, std::string_view what) {
    page += fmt::format("<div><b>{}</b>{}</div>\n", value, what);
  };
  page += "<div class=\"tiles\">\n";
  tile(parameters_text(report.groups.total()),
       report.has_files ? "parameters" : "parameters, without vision and audio");
  if (report.has_ple()) tile(parameters_text(report.groups.embeddings()), "embeddings: token embedding + PLE table");
  tile(parameters_text(report.groups.effective_documentation()),
       "effective: " + std::string(ple::ParameterGroups::documentation_definition));
  if (report.has_ple()) {
    tile(parameters_text(report.groups.effective_report()),
         "effective: " + std::string(ple::ParameterGroups::report_definition));
  }
  tile(bytes_text(report.reads.weights()), "of weights read for every token that is written");
  page += "</div>\n";
  const auto section = [&](std::string_view title, const std::string& text, const std::string& body) {
    page += fmt::format("<section>\n<h2>{}</h2>\n<p>{}</p>\n{}</section>\n", title, text, body);
  };
  std::string notes;
  if (report.unused > 0) {
    notes = fmt::format(
        " {} of attention are K and V of layers that share another layer's: in the published files and counts, used by "
        "no token.",
        parameters_text(report.unused));
  }
  section("Parameters", "To scale. Below: by part, and in the four groups that Google counts." + notes,
          detail::parameters_bar(report) + "<div class=\"tables\">" + detail::parameters_table(report) +
              detail::google_table(report) + "</div>\n");
  section("Layer by layer",
          report.has_ple() ? "What stands in every layer, and the slice of the PLE table that belongs to it: of that "
                             "slice, a token reads one row."
                           : "What stands in every layer.",
          detail::layers_chart(report));
  section("Read for every token",
          fmt::format("Every weight of the layers once, the head once, and one row of each table. Memory bandwidth "
                      "divided by this is the "
                      "most tokens per second. Not in the bars: {} of cached keys and values at position {}.",
                      bytes_text(report.reads.kv_cache), report.kv.context),
          detail::reads_chart(report));
  section("Memory",
          fmt::format("By where the PLE table lives, with a cache for {} positions. Weights are mapped pages of their "
                      "files, all touched.",
                      report.kv.context),
          detail::memory_chart(report));
  section("Keys and values by context",
          fmt::format("In {}, read in chunks of up to {} tokens; layers that share K and V take nothing.",
                      report.kv_dtype, report.chunk),
          detail::kv_chart(report));
  return page + "</main>\n</body>\n</html>\n";
}

}  // namespace examples
