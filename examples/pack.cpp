// SPDX-License-Identifier: Apache-2.0
// Writes a model's PLE table into a file of its own: in other number types, of a lower rank, folded, or for fewer
// tokens.
#include <ple/convert/pack_table.h>
#include <ple/models.h>
#include <ple/table/spectrum.h>

#include <fmt/core.h>

#include "arguments.h"
#include "progress.h"
#include "ranks.h"

#include <fstream>
#include <functional>
#include <memory>

const std::string usage =
    "usage: pack MODEL OUT [options]\n"
    "\n"
    "  MODEL               a Hugging Face folder of a Gemma 4 model with PLE\n"
    "  OUT                 the file to write; `generate MODEL --table-file OUT` uses it\n"
    "  --dtype TYPES       one of " +
    ple::names_of_dtypes(true) +
    "\n"
    "                      or none (pruned) for all layers, or a list with one for each layer: bf16,q8_0,none,...\n"
    "                      (default: the original's type)\n"
    "  --rank RANKS        store so many numbers for a row of a depth, and the basis that turns them into its values:\n"
    "                      one rank for all depths, or a list: 64,96,full,... (full: the values). Rounded up to whole\n"
    "                      blocks of the depth's type; examples/spectrum shows what a rank leaves out\n"
    "  --error X           each depth in the lowest rank that leaves out at most X of its root mean square: 0.05.\n"
    "                      The number type has its own error beside it\n"
    "  --bytes SIZE        ranks such that rows and bases take at most so many bytes: 1000000, 512KiB, 64MiB, 1.5GiB\n"
    "  --fold              rows hold whole per-layer inputs: no token needs the context projection any more\n"
    "  --vocab FILE        keep the rows of these tokens only: numbers, apart from each other by white space\n"
    "  --substitute TOKEN  with --vocab: stands in for every other token, which is an error otherwise\n"
    "  --threads N         (default: all)\n";

namespace {

std::vector<ple::Token> read_tokens(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(fmt::format("{}: cannot read", path));
  std::vector<ple::Token> tokens;
  for (std::string word; file >> word;) {
    tokens.push_back(examples::number_of<ple::Token>(path, word, 0));
  }
  if (tokens.empty()) throw std::runtime_error(fmt::format("{}: no tokens", path));
  return tokens;
}

/// --rank, --error or --bytes: at most one of them.
struct RankOptions {
  std::optional<std::string> ranks;
  std::optional<double> error;
  std::optional<std::size_t> bytes;

  explicit RankOptions(examples::Arguments& arguments) : ranks(arguments.text("--rank")) {
    if (const auto word = arguments.text("--error")) error = examples::number_of<double>("--error", *word, 0, 1);
    bytes = arguments.bytes("--bytes", 1);
    if (ranks.has_value() + error.has_value() + bytes.has_value() > 1)
      examples::refuse("--rank, --error, --bytes: expected one of them");
  }
  bool any() const { return ranks || error || bytes; }
};

/// Chooses the ranks, and the bases that lose the least.
template <class Model>
void add_bases(const Model& model, const RankOptions& wanted, ple::PackOptions& options, ple::Executor& executor,
               examples::Progress& progress) {
  const std::size_t width = model.table.width();
  examples::RankPlan plan{options.dtypes, {}, width, options.kept.empty() ? model.table.rows() : options.kept.size()};
  std::vector<std::size_t> ranks = plan.smallest();
  // What cannot be is said before the work.
  if (wanted.bytes && plan.bytes(ranks) > *wanted.bytes) {
    examples::refuse("--bytes: ", std::to_string(*wanted.bytes), ", but the lowest ranks in these types take ",
                     std::to_string(plan.bytes(ranks)));
  }
  if (wanted.ranks) {
    ranks = ple::RowLayout::parse_ranks(*wanted.ranks, ranks.size(), width, "--rank");
    for (std::size_t l = 0; l < ranks.size(); ++l) ranks[l] = ranks[l] > 0 ? plan.rounded(l, ranks[l]) : 0;
  }
  ple::packed_layout(options.dtypes, width, ranks).require_encodable();

  const ple::SecondMoments moments = ple::packed_second_moments(model, options, executor, std::ref(progress));
  std::vector<ple::Spectrum> spectra;
  for (std::size_t l = 0; l < moments.layers(); ++l) {
    spectra.push_back(ple::spectrum(moments, l));
    plan.eigenvalues.push_back(spectra[l].values);
    progress("depths solved", l + 1, moments.layers());
    if (wanted.error) ranks[l] = plan.worthwhile(l, spectra[l].rank_for(*wanted.error));
  }
  if (wanted.bytes) ranks = plan.for_bytes(*wanted.bytes);
  options.bases.resize(ranks.size());
  fmt::print("{:<8}{:>6}{:>7}   left out, of the root mean square\n", "depth", "type", "rank");
  for (std::size_t l = 0; l < ranks.size(); ++l) {
    const auto& dtype = options.dtypes[l];
    if (!dtype) {
      fmt::print("{:<8}{:>6}{:>7}{:>9.2f} %\n", l, "none", "-", 100.0);
    } else if (ranks[l] == 0) {
      fmt::print("{:<8}{:>6}{:>7}{:>9.2f} %\n", l, ple::name_of(*dtype), "full", 0.0);
    } else {
      fmt::print("{:<8}{:>6}{:>7}{:>9.2f} %\n", l, ple::name_of(*dtype), ranks[l], 100 * spectra[l].error(ranks[l]));
      options.bases[l] = std::make_shared<const ple::AlignedVector<float>>(spectra[l].basis(ranks[l]));
    }
  }
}

void run(examples::Arguments& arguments) {
  const std::string model_path = arguments.first("MODEL"), out = arguments.first("OUT");
  const auto checkpoint = ple::Checkpoint::open(model_path);
  if (!checkpoint.has(ple::Parameter::ple_table)) examples::refuse(model_path, " has no PLE table");
  const auto dtype = arguments.text("--dtype"), vocabulary = arguments.text("--vocab"),
             substitute = arguments.text("--substitute");
  const RankOptions wanted(arguments);
  ple::PackOptions options;
  options.fold = arguments.flag("--fold");
  if (vocabulary) options.kept = read_tokens(*vocabulary);
  if (substitute) options.substitute = examples::number_of<ple::Token>("--substitute", *substitute, 0);
  ple::ThreadPool pool(arguments.threads());
  arguments.done();
  std::vector<std::filesystem::path> inputs = checkpoint.files();
  if (vocabulary) inputs.emplace_back(*vocabulary);
  ple::check_output_path(out, ple::identities_of(inputs));

  const auto pack = [&](const auto& model) {
    const std::size_t layers = model.config.num_layers();
    options.dtypes = ple::RowLayout::parse(dtype.value_or(model.table.layout().text()), layers, "--dtype");
    examples::Progress progress;
    if (wanted.any()) add_bases(model, wanted, options, pool, progress);
    ple::pack_table(model, options, out, pool, std::ref(progress));
  };
  std::visit(
      [&]<class Config>(const Config& /*of its family*/) {
        pack(ple::Family<Config>::template Model<ple::Any, ple::DefaultBackend>::load(checkpoint));
      },
      checkpoint.any_config());

  const ple::TableSource before = {.tensor = checkpoint.tensor(ple::Parameter::ple_table)},
                         after = ple::read_packed_table(out);
  const auto mebibytes = [](std::size_t bytes) { return static_cast<double>(bytes) / 1048576; };
  fmt::print("{}: {} rows of {} bytes, {:.1f} MiB (the original: {:.1f} MiB){}\n", out, after.rows,
             after.layout.row_bytes(), mebibytes(after.tensor.bytes), mebibytes(before.tensor.bytes),
             after.folded ? ", folded" : "");
  if (const std::size_t ranks = after.layout.sum_of_ranks()) {
    fmt::print("bases: {:.2f} MiB\n", mebibytes(ranks * after.layout.width() * sizeof(float)));
  }
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage.c_str(), argc, argv, run); }
