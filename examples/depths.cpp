// SPDX-License-Identifier: Apache-2.0
// What each depth of a PLE table is worth: how predictions change when its slice is stored in fewer bits, or pruned.
#include <ple/models.h>
#include <ple/run/evaluation.h>
#include <ple/table/row_sample.h>

#include <fmt/core.h>

#include "arguments.h"
#include "output.h"
#include "plan.h"
#include "progress.h"
#include "svg.h"

#include <fstream>
#include <iterator>

constexpr const char* usage =
    "usage: depths MODEL TEXT [options]\n"
    "\n"
    "For every depth (layer) of the PLE table: what happens to the predictions of a text when that depth alone is\n"
    "stored in a smaller type, or pruned. Then a type for every depth such that the table fits a budget.\n"
    "\n"
    "  MODEL         a Hugging Face folder or a GGUF file of a model with PLE\n"
    "  TEXT          a text, or @FILE; its first 256 tokens are used, and fewer than 100 say little\n"
    "  --budget MIB  of the whole packed table (default: half of what it has); or with a unit: 100KiB, 1.5GiB\n"
    "  --table-file FILE\n"
    "                instead: what each depth costs as a file that `pack` wrote has it, in fewer bits or of a lower "
    "rank\n"
    "  --dtypes LIST try only these: q8_0,q4_0,none (default: all types that are smaller)\n"
    "  --svg FILE    the picture (default: depths.svg)\n"
    "  --threads N   (default: all)\n";

namespace {

using Types = std::vector<std::optional<ple::Dtype>>;

constexpr std::size_t gemv = 100;         // means over so few predictions say little
constexpr std::size_t most_tokens = 256;  // of which every prediction of the original is kept

std::string type_name(const std::optional<ple::Dtype>& dtype) { return dtype ? std::string(name_of(*dtype)) : "none"; }

double mebibytes(double bytes) { return bytes / 1048576; }

std::string size_text(double bytes) {
  const double mib = mebibytes(bytes);
  return mib < 100 ? fmt::format("{:.3g} MiB", mib) : fmt::format("{:.0f} MiB", mib);
}

std::string read_text(const std::string& text) {
  if (!text.starts_with("@")) return text;
  std::ifstream file(text.substr(1), std::ios::binary);
  if (!file) throw std::runtime_error(fmt::format("{}: cannot read", text.substr(1)));
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The model as it is, with other types in its table.
template <class Model>
class Experiment {
 public:
  Experiment(const Model& model, std::span<const ple::Token> tokens, ple::Executor& executor)
      : executor_(&executor),
        reference_(model, tokens, executor),
        rows_(model.table, tokens, executor),
        changed_(model) {}

  double loss() const { return reference_.loss(); }
  ple::Evaluation measure(const Types& types) {
    changed_.table = rows_.table(types);
    return reference_.evaluate(changed_, *executor_);
  }

 private:
  ple::Executor* executor_;
  ple::ReferencePredictions reference_;
  ple::RowSample<ple::DefaultBackend> rows_;
  Model changed_;
};

/// A table with some types, whole.
struct Candidate {
  std::string name;
  Types types;
  double bytes = 0;
  ple::Evaluation effect = {};
};

/// Everything that was measured.
struct Report {
  std::string model, text;
  std::size_t tokens = 0, all_tokens = 0;
  Types original;
  std::vector<std::optional<ple::Dtype>> choices;                   // columns; none is pruning
  std::vector<std::vector<std::optional<ple::Evaluation>>> effect;  // [depth][choice], where that makes it smaller
  double loss = 0, original_bytes = 0, budget = 0;
  std::vector<Candidate> whole;  // all depths in one type; the last one is the proposal

  const Candidate& proposal() const { return whole.back(); }
};

/// All types that `width` values can be written in, the largest first, and pruning.
Types all_choices(std::size_t width) {
  Types choices;
  for (const ple::Dtype type : ple::all_dtypes) {
    if (width % ple::values_per_block(type) == 0 && ple::is_encodable(type)) choices.emplace_back(type);
  }
  std::stable_sort(choices.begin(), choices.end(),
                   [&](const auto& a, const auto& b) { return ple::bytes_of(*a, width) > ple::bytes_of(*b, width); });
  choices.push_back(std::nullopt);
  return choices;
}

template <class Model>
Report measure(const Model& model, std::span<const ple::Token> tokens, ple::Executor& executor, const Types& choices,
               const std::optional<std::size_t>& budget) {
  const ple::RowLayout& layout = model.table.layout();
  const std::size_t layers = layout.layers(), width = layout.width();
  Report report;
  for (std::size_t l = 0; l < layers; ++l) report.original.push_back(layout.slice(l).dtype);
  const auto smaller = [&](std::size_t l, const std::optional<ple::Dtype>& choice) {
    return report.original[l] && (!choice || ple::bytes_of(*choice, width) < ple::bytes_of(*report.original[l], width));
  };
  for (const auto& choice : choices) {  // those that make something smaller
    bool useful = false;
    for (std::size_t l = 0; l < layers; ++l) useful |= smaller(l, choice);
    if (useful) report.choices.push_back(choice);
  }

  examples::Progress progress;
  const std::size_t total = 2 + (layers + 1) * report.choices.size();
  std::size_t done = 0;
  const auto step = [&] { progress("texts evaluated", done++, total); };
  step();
  Experiment<Model> experiment(model, tokens, executor);
  report.loss = experiment.loss();
  std::vector<std::vector<examples::DepthChoice>> plan_choices;
  for (std::size_t l = 0; l < layers; ++l) {
    report.effect.emplace_back();
    plan_choices.push_back({{report.original[l], 0.0}});
    for (const auto& choice : report.choices) {
      step();
      report.effect[l].emplace_back();
      if (!smaller(l, choice)) continue;
      Types types = report.original;
      types[l] = choice;
      report.effect[l].back() = experiment.measure(types);
      plan_choices[l].push_back({choice, report.effect[l].back()->kl});
    }
  }

  const auto rows = static_cast<double>(model.table.rows());
  const auto add = [&](const std::string& name, const Types& types) {
    step();
    report.whole.push_back({name, types, rows * static_cast<double>(ple::packed_layout(types, width).row_bytes()),
                            experiment.measure(types)});
  };
  for (const auto& choice : report.choices) {
    Types types = report.original;
    for (std::size_t l = 0; l < layers; ++l) {
      if (smaller(l, choice)) types[l] = choice;
    }
    add("all " + type_name(choice), types);
  }
  report.original_bytes = rows * static_cast<double>(layout.row_bytes());
  report.budget = budget ? static_cast<double>(*budget) : report.original_bytes / 2;
  const auto plan = examples::plan_depths(plan_choices, width, static_cast<std::size_t>(report.budget / rows));
  Types types;
  for (std::size_t l = 0; l < layers; ++l) types.push_back(plan_choices[l][plan[l]].dtype);
  add("proposal", types);
  progress("texts evaluated", total, total);
  return report;
}

void print(const Report& report) {
  const auto table = [&](const char* title, auto&& text_of) {
    fmt::print("{}\n{:<12}", title, "depth");
    for (const auto& choice : report.choices) fmt::print("{:>10}", type_name(choice));
    for (std::size_t l = 0; l < report.effect.size(); ++l) {
      fmt::print("\n{:<12}", fmt::format("{} ({})", l, type_name(report.original[l])));
      for (const auto& effect : report.effect[l]) fmt::print("{:>10}", effect ? text_of(*effect) : "");
    }
    fmt::print("\n{:<12}", "all");
    for (std::size_t c = 0; c < report.choices.size(); ++c) fmt::print("{:>10}", text_of(report.whole[c].effect));
    fmt::print("\n\n");
  };
  table("KL(original || changed), nats per token",
        [](const ple::Evaluation& effect) { return fmt::format("{:.2e}", effect.kl); });
  table("Change of the loss, nats per token",
        [&](const ple::Evaluation& effect) { return fmt::format("{:+.5f}", effect.loss - report.loss); });

  fmt::print("{:<12}{:>12}{:>12}{:>12}{:>12}\n", "whole table", "MiB", "KL, nats", "loss, nats", "change");
  const auto whole = [&](const std::string& name, double bytes, const ple::Evaluation& effect) {
    fmt::print("{:<12}{:>12.3f}{:>12.2e}{:>12.4f}{:>+12.5f}\n", name, mebibytes(bytes), effect.kl, effect.loss,
               effect.loss - report.loss);
  };
  whole("original", report.original_bytes, {report.loss, 0});
  for (const Candidate& candidate : report.whole) whole(candidate.name, candidate.bytes, candidate.effect);
}

void print_proposal(const Report& report) {
  const Candidate& proposal = report.proposal();
  double sum = 0;
  for (std::size_t l = 0; l < report.effect.size(); ++l) {
    for (std::size_t c = 0; c < report.choices.size(); ++c) {
      if (report.choices[c] == proposal.types[l] && report.effect[l][c]) sum += report.effect[l][c]->kl;
    }
  }
  std::string list;
  for (const auto& type : proposal.types) list += (list.empty() ? "" : ",") + type_name(type);
  fmt::print(
      "\nThe proposal, for {:.3f} MiB: every depth starts as it is; while the table is too large, the step to a "
      "smaller\n"
      "type that costs the least KL per byte is taken; then, what room is left goes to the steps back that regain the\n"
      "most. That adds up what depths cost alone: {:.2e} nats; measured together they cost {:.2e}.\n\n"
      "  pack {} OUT --dtype {}\n\n",
      mebibytes(report.budget), sum, proposal.effect.kl, report.model, list);
  if (proposal.bytes > report.budget) fmt::print("No packing is that small; this is the smallest.\n");
}

/// Every depth alone, then all of them, as a packed table of the model has them.
template <class Model>
void measure_file(const Model& model, std::span<const ple::Token> tokens, ple::Executor& executor,
                  const std::string& path) {
  const ple::PackedTable source = ple::read_packed_table(path);
  if (source.folded || source.vocabulary) {
    examples::refuse("--table-file: ", path, source.folded ? " is folded" : " has a cut-down vocabulary",
                     ", so its depths cannot be measured one by one");
  }
  const ple::RowLayout &layout = source.layout, &before = model.table.layout();
  ple::PleTable<ple::Any, ple::DefaultBackend> table(static_cast<std::size_t>(model.table.rows()), before.layers(),
                                                     before.width());
  table.load(source, ple::Mapped{});
  if (table.scale() != model.table.scale()) {
    examples::refuse("--table-file: ", path, ": its scale is ", ple::number_text(table.scale()), ", the model's ",
                     ple::number_text(model.table.scale()));
  }
  const ple::ReferencePredictions reference(model, tokens, executor);
  const ple::RowSample<ple::DefaultBackend> original(model.table, tokens, executor), packed(table, tokens, executor);
  Model changed = model;
  const auto measured = [&](const std::vector<bool>& wanted) {
    // f32 holds the values of every type.
    Types types(layout.layers(), ple::Dtype::f32);
    for (std::size_t l = 0; l < types.size(); ++l) {
      if (!(wanted[l] ? layout : before).has(l)) types[l] = std::nullopt;
    }
    changed.table = original.with_layers(packed, wanted).table(types);
    return reference.evaluate(changed, executor);
  };
  fmt::print("{:<8}{:>8}{:>7}{:>13}{:>12}{:>12}\n", "depth", "type", "rank", "bytes a row", "KL, nats", "change");
  const auto line = [&](const std::string& depth, const std::string& type, const std::string& rank, std::size_t bytes,
                        const ple::Evaluation& effect) {
    fmt::print("{:<8}{:>8}{:>7}{:>13}{:>12.2e}{:>+12.5f}\n", depth, type, rank, bytes, effect.kl,
               effect.loss - reference.loss());
  };
  for (std::size_t l = 0; l < layout.layers(); ++l) {
    std::vector<bool> one(layout.layers(), false);
    one[l] = true;
    const auto& dtype = layout.slice(l).dtype;
    line(fmt::format("{}", l), type_name(dtype), layout.rank(l) > 0 ? fmt::format("{}", layout.rank(l)) : "full",
         dtype ? ple::bytes_of(*dtype, layout.stored(l)) : 0, measured(one));
  }
  line("all", "", "", layout.row_bytes(), measured(std::vector<bool>(layout.layers(), true)));
  fmt::print(
      "\nchange: of the loss, which is {:.4f} nats per token. The table: {:.3f} MiB and {:.3f} of bases, instead of "
      "{:.3f}.\n",
      reference.loss(), mebibytes(static_cast<double>(source.tensor.bytes)),
      mebibytes(static_cast<double>(layout.sum_of_ranks() * layout.width() * sizeof(float))),
      mebibytes(static_cast<double>(model.table.rows() * before.row_bytes())));
}

void draw(const Report& report, const examples::Output& out) {
  const std::size_t depths = report.effect.size();
  const double lines = std::ceil(static_cast<double>(report.choices.size()) / 3);
  examples::Svg svg(900, 706 + 20 * lines, "What each depth of the PLE table is worth");
  svg.text(24, 34, "What each depth of the PLE table is worth", {.size = 20, .bold = true});
  svg.text(
      24, 56,
      fmt::format("One depth at a time is stored in fewer bits or pruned (none). {}, {} tokens{}, loss {:.4f} nats "
                  "per token",
                  examples::name_of_model(report.model), report.tokens, report.tokens < gemv ? " (too few)" : "",
                  report.loss),
      {.colour = "#666666"});

  const auto colour = [&](const std::optional<ple::Dtype>& type) -> const char* {
    for (std::size_t c = 0; c < report.choices.size(); ++c) {
      if (report.choices[c] == type) return type ? examples::colour_of(c) : "#333333";
    }
    return "#c8c8c8";
  };
  double low = 1e300, high = 0, least = 0, most = 0;
  for (const auto& effects : report.effect) {
    for (const auto& effect : effects) {
      if (!effect) continue;
      if (effect->kl > 0) low = std::min(low, effect->kl);
      high = std::max(high, effect->kl);
      least = std::min(least, effect->loss - report.loss);
      most = std::max(most, effect->loss - report.loss);
    }
  }
  if (high <= 0) low = 1e-9, high = 1;  // nothing changes anything
  if (most <= least) most = least + 1e-9;
  const double last = depths > 1 ? static_cast<double>(depths - 1) : 1, margin = 0.08 * (most - least);
  const examples::Scale x{-0.5, last + 0.5, 84, 790},
      y{std::pow(10, std::floor(std::log10(low))), std::pow(10, std::ceil(std::log10(high * 1.01))), 346, 106, true},
      z{least - margin, most + margin, 536, 398};
  examples::vertical_axis(svg, x, y, "How far predictions move: KL(original || changed)", "nats per token, log scale");
  examples::vertical_axis(svg, x, z, "How much worse the text is predicted: change of the loss", "nats per token");
  svg.line(x.from, z(0), x.to, z(0), "#888888");
  for (std::size_t c = 0; c < report.choices.size(); ++c) {
    std::vector<std::pair<double, double>> kl, loss;
    for (std::size_t l = 0; l < depths; ++l) {
      const auto& effect = report.effect[l][c];
      if (!effect) continue;
      kl.emplace_back(x(static_cast<double>(l)), y(std::max(effect->kl, y.low)));
      loss.emplace_back(x(static_cast<double>(l)), z(effect->loss - report.loss));
    }
    for (const auto& points : {kl, loss}) {
      svg.path(points, colour(report.choices[c]), 2);
      for (const auto& [px, py] : points) svg.dot(px, py, 3.5, colour(report.choices[c]));
    }
  }
  std::vector<std::optional<ple::Dtype>> keys(report.choices.rbegin(), report.choices.rend());
  for (const auto& type : report.proposal().types) {  // some depths may stay as they are
    if (std::find(keys.begin(), keys.end(), type) == keys.end()) keys.push_back(type);
  }
  svg.text(808, 116, "stored as", {.size = 12, .colour = "#666666"});
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const double top = 126 + 22 * static_cast<double>(i);
    svg.rectangle(808, top, 14, 14, colour(keys[i]));
    svg.text(828, top + 12, type_name(keys[i]));
  }

  const double cell = (x.to - x.from) / (last + 1), top = 582;
  svg.text(24, top - 12, fmt::format("A packing for a budget of {}", size_text(report.budget)),
           {.size = 14, .bold = true});
  for (std::size_t l = 0; l < depths; ++l) {
    const auto& type = report.proposal().types[l];
    svg.rectangle(x(static_cast<double>(l)) - cell / 2 + 1, top, cell - 2, 26, colour(type));
    if (cell < 44) continue;
    const bool dark = std::find(report.choices.begin(), report.choices.end(), type) != report.choices.end();
    svg.text(x(static_cast<double>(l)), top + 18, type_name(type),
             {.size = 12, .anchor = "middle", .colour = dark ? "#ffffff" : "#222222"});
  }
  examples::depth_axis(svg, x, depths, top + 26, "depth (layer)");
  svg.text(
      24, 682,
      fmt::format("Packed like this, the table has {} instead of {}. All depths together: KL {} nats, "
                  "loss {:+.2g} nats per token.",
                  size_text(report.proposal().bytes), size_text(report.original_bytes),
                  examples::number_text(report.proposal().effect.kl), report.proposal().effect.loss - report.loss));
  for (std::size_t i = 0; i + 1 < report.whole.size(); ++i) {  // three on a line
    const Candidate& candidate = report.whole[i];
    svg.text(24 + 280 * static_cast<double>(i % 3), 706 + 20 * static_cast<double>(i / 3),
             fmt::format("{}: {}, KL {}", candidate.name, size_text(candidate.bytes),
                         examples::number_text(candidate.effect.kl)),
             {.size = 12, .colour = "#666666"});
  }
  out.write(svg.page());
}

void run(examples::Arguments& arguments) {
  const std::string model_path = arguments.first("MODEL"), text = read_text(arguments.first("TEXT"));
  const std::string svg_path = arguments.text("--svg").value_or("depths.svg");
  const auto budget = arguments.bytes("--budget");
  const auto types = arguments.text("--dtypes"), table_file = arguments.text("--table-file");
  if (table_file && (budget || types)) examples::refuse("--table-file goes without --budget and --dtypes");
  ple::ThreadPool pool(arguments.threads());
  arguments.done();

  const auto checkpoint = ple::Checkpoint::open(model_path);
  const examples::Output svg(svg_path, checkpoint.files());
  if (!checkpoint.has(ple::Parameter::ple_table))
    throw std::runtime_error(fmt::format("{}: the model has no PLE table", model_path));
  const auto tokenizer = ple::open_tokenizer(checkpoint);
  std::vector<ple::Token> tokens = tokenizer.encode(text);
  const std::size_t all_tokens = tokens.size();
  const std::size_t longest =
      std::visit([](const auto& config) { return config.max_position_embeddings; }, checkpoint.any_config());
  tokens.resize(std::min({tokens.size(), most_tokens, longest}));

  if (tokens.size() < 2) throw std::runtime_error("TEXT has no token that could be predicted");
  if (tokens.size() < gemv) {
    fmt::print(stderr, "note: {} tokens are too few to tell depths apart; give a text of {} or more (@FILE)\n",
               tokens.size(), gemv);
  }
  std::optional<Report> measured;
  std::visit(
      [&]<class Config>(const Config& config) {
        const auto model = ple::Family<Config>::template Model<ple::Any, ple::DefaultBackend>::load(checkpoint);
        if (table_file) return measure_file(model, tokens, pool, *table_file);
        const Types choices =
            types ? ple::RowLayout::parse(
                        *types, static_cast<std::size_t>(std::count(types->begin(), types->end(), ',')) + 1, "--dtypes")
                  : all_choices(config.hidden_size_per_layer_input);
        measured = measure(model, tokens, pool, choices, budget);
      },
      checkpoint.any_config());
  if (!measured) return;
  Report& report = *measured;
  report.model = model_path;
  report.tokens = tokens.size();
  report.all_tokens = all_tokens;
  print(report);
  print_proposal(report);
  draw(report, svg);
  fmt::print("{} shows it.\n", svg.path());
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
