// SPDX-License-Identifier: Apache-2.0
// In how many dimensions the depths of a PLE table live: the eigenvalues of their second moments.
#include <ple/models.h>
#include <ple/table/spectrum.h>

#include <fmt/core.h>

#include "arguments.h"
#include "output.h"
#include "progress.h"
#include "svg.h"

#include <chrono>

constexpr const char* usage =
    "usage: spectrum MODEL [options]\n"
    "\n"
    "For every depth (layer) of the PLE table: how much of its rows' energy (the sum of squares) lies in its first 1, "
    "2,\n"
    "4, ... principal directions, and how many of these give the rows with a relative error of 10, 5 and 1 %. The "
    "table\n"
    "is read once, from its file's beginning to its end.\n"
    "\n"
    "  MODEL              a Hugging Face folder or GGUF file of a model with PLE\n"
    "  --table-file FILE  take the PLE table from a file that `pack` wrote\n"
    "  --rows N           look at N rows only, evenly spread\n"
    "  --svg FILE         the picture (default: spectrum.svg)\n"
    "  --threads N        (default: all)\n";

namespace {

using B = ple::DefaultBackend;

constexpr double errors[] = {0.1, 0.05, 0.01};

/// A depth that is not pruned.
struct Depth {
  std::size_t number;
  ple::Spectrum spectrum;
};

struct Report {
  std::string model;
  std::uint64_t rows = 0, all_rows = 0;
  std::size_t depths = 0, width = 0;
  double scale = 1;
  std::vector<Depth> spectra;
};

void print(const Report& report) {
  std::vector<std::size_t> counts;
  for (std::size_t k = 1; k < report.width; k *= 2) counts.push_back(k);
  fmt::print("{} of {} rows, {} depths of {} numbers\n\n", report.rows, report.all_rows, report.depths, report.width);
  fmt::print("{:<8}{:>9}   {:<{}}{:<21}{:>7}\n", "depth", "RMS", "% of the energy in the first ...",
             std::max<std::size_t>(7 * counts.size() + 3, 33), "rank for an error of", "PR");
  fmt::print("{:<17}", "");
  for (const std::size_t k : counts) fmt::print("{:>7}", k);
  fmt::print("{:>{}}", "", counts.size() < 5 ? 37 - 7 * counts.size() : 4);
  for (const double error : errors) fmt::print("{:>6.0f} %", 100 * error);
  fmt::print("\n");
  for (const Depth& depth : report.spectra) {
    fmt::print("{:<8}{:>9.4g}", depth.number, report.scale * depth.spectrum.rms());
    for (const std::size_t k : counts) fmt::print("{:>7.2f}", 100 * depth.spectrum.share(k));
    fmt::print("{:>{}}", "", counts.size() < 5 ? 37 - 7 * counts.size() : 4);
    for (const double error : errors) fmt::print("{:>8}", depth.spectrum.rank_for(error));
    fmt::print("{:>8.1f}\n", depth.spectrum.participation_ratio());
  }
  fmt::print(
      "\nRMS: of the numbers as layers get them, times {:.4g}. The error is relative: what is left out, root mean\n"
      "square, over the RMS. PR, the participation ratio: {} if all directions had equal energy, 1 if one had all.\n",
      report.scale, report.width);
}

void draw(const Report& report, const examples::Output& out) {
  examples::Svg svg(900, 726, "The spectrum of the PLE table");
  svg.text(24, 34, "In how many dimensions the PLE table lives", {.size = 20, .bold = true});
  svg.text(24, 56,
           fmt::format("{}, {} of {} rows, {} depths of {} numbers", examples::name_of_model(report.model), report.rows,
                       report.all_rows, report.depths, report.width),
           {.colour = "#666666"});
  const double last = report.depths > 1 ? static_cast<double>(report.depths - 1) : 1;
  const auto p = static_cast<double>(report.width);
  const auto colour = [&](std::size_t depth) {
    return examples::shade(0.25 + 0.75 * static_cast<double>(depth) / last);
  };

  // Every depth's error, by the number of its directions that are kept.
  const examples::Scale x{0, p, 84, 730}, y{0, 100, 376, 106};
  examples::vertical_axis(svg, x, y, "What the first R directions leave out", "relative error, %");
  for (const double tick : x.ticks(8)) {
    svg.text(x(tick), y.from + 16, fmt::format("{:.0f}", tick), {.size = 12, .anchor = "middle"});
  }
  svg.text((x.from + x.to) / 2, y.from + 35, "R, directions kept", {.anchor = "middle"});
  std::vector<std::pair<double, double>> flat;
  for (std::size_t k = 0; k <= report.width; ++k) {
    flat.emplace_back(x(static_cast<double>(k)), y(100 * std::sqrt(1 - static_cast<double>(k) / p)));
  }
  svg.path(flat, "#d55e00", 2);
  for (const Depth& depth : report.spectra) {
    std::vector<std::pair<double, double>> points;
    for (std::size_t k = 0; k <= report.width; ++k) {
      points.emplace_back(x(static_cast<double>(k)), y(100 * depth.spectrum.error(k)));
    }
    svg.path(points, colour(depth.number), 1.5);
  }
  svg.text(748, 116, "depth", {.size = 12, .colour = "#666666"});
  const std::size_t keys = std::min<std::size_t>(report.depths, 8);
  for (std::size_t i = 0; i < keys; ++i) {
    const std::size_t depth = keys > 1 ? i * (report.depths - 1) / (keys - 1) : 0;
    const double top = 126 + 22 * static_cast<double>(i);
    svg.rectangle(748, top, 14, 14, colour(depth));
    svg.text(768, top + 12, fmt::format("{}", depth));
  }
  const double flat_key = 133 + 22 * static_cast<double>(keys);
  svg.line(748, flat_key, 762, flat_key, "#d55e00", 2);
  svg.text(768, flat_key + 4, "no direction", {.size = 12});
  svg.text(768, flat_key + 19, "better than others", {.size = 12});

  // The rank that an error needs, depth by depth.
  const examples::Scale d{-0.5, last + 0.5, 84, 730}, r{0, p, 664, 470};
  examples::vertical_axis(svg, d, r, "Directions that a relative error needs", "");
  for (std::size_t e = 0; e < std::size(errors); ++e) {
    std::vector<std::pair<double, double>> points;
    for (const Depth& depth : report.spectra) {
      points.emplace_back(d(static_cast<double>(depth.number)),
                          r(static_cast<double>(depth.spectrum.rank_for(errors[e]))));
    }
    svg.path(points, examples::colour_of(e), 2);
    for (const auto& [px, py] : points) svg.dot(px, py, 3, examples::colour_of(e));
    const double top = 482 + 22 * static_cast<double>(e);
    svg.rectangle(748, top, 14, 14, examples::colour_of(e));
    svg.text(768, top + 12, fmt::format("{:.0f} %", 100 * errors[e]));
  }
  examples::depth_axis(svg, d, report.depths, r.from, "depth (layer)");
  out.write(svg.page());
}

void run(examples::Arguments& arguments) {
  const std::string model_path = arguments.first("MODEL");
  const auto sample = arguments.number<std::uint64_t>("--rows", 0, 1);
  const std::string svg_path = arguments.text("--svg").value_or("spectrum.svg");
  const auto table_file = arguments.text("--table-file");
  ple::ThreadPool pool(arguments.threads());
  arguments.done();

  const auto checkpoint = ple::Checkpoint::open(model_path, {.table = table_file.value_or("")});
  const examples::Output svg(svg_path, checkpoint.files());
  const auto [rows, depths, p] = std::visit(
      [](const auto& config) {
        return std::array{config.vocab_size_per_layer_input, config.num_layers(), config.hidden_size_per_layer_input};
      },
      checkpoint.any_config());
  if (p == 0) throw std::runtime_error(fmt::format("{}: the model has no PLE table", model_path));
  ple::PleTable<ple::Any, B> table(rows, depths, p);  // checks that it is the model's
  ple::TableSource source;
  if (checkpoint.ple_table()) {
    source = *checkpoint.ple_table();
    table.load(source, ple::Pruned{});
  } else {
    const ple::Tensor tensor = checkpoint.tensor(ple::Parameter::ple_table);
    table.load(tensor, ple::Pruned{});
    source = ple::stored_table(tensor, depths);
  }
  if (sample > source.rows) examples::refuse("--rows: the table has ", std::to_string(source.rows));

  examples::Progress progress;
  const auto start = std::chrono::steady_clock::now();
  const auto show = [&](std::uint64_t done, std::uint64_t total) { progress("rows read", done, total); };
  const ple::SecondMoments moments = sample > 0 ? ple::sample_second_moments<B>(source, sample, pool, show)
                                                : ple::scan_second_moments<B>(source, pool, show);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  Report report;
  report.model = model_path;
  report.rows = moments.rows();
  report.all_rows = source.rows;
  report.depths = moments.layers();
  report.width = moments.width();
  report.scale = source.scale;
  for (std::size_t l = 0; l < report.depths; ++l) {
    if (source.layout.has(l)) report.spectra.push_back({l, ple::spectrum(moments, l)});
    progress("depths solved", l + 1, report.depths);
  }
  print(report);
  draw(report, svg);
  fmt::print("\n{:.2f} s for the rows ({:.3g} MiB/s). {} shows it.\n", seconds,
             static_cast<double>(report.rows * source.layout.row_bytes()) / 1048576 / seconds, svg.path());
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
