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
    "  --error X           each depth in the lowest rank that leaves out at most X of its root mean square: 0.05\n"
    "  --bytes SIZE        ranks such that the whole table takes at most so many bytes: 1000000, 512KiB, 64MiB, "
    "1.5GiB\n"
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

/// What the options ask for, in numbers.
std::vector<std::size_t> ranks_of(const RankOptions& wanted, const std::vector<ple::Spectrum>& spectra,
                                  const examples::RankPlan& plan) {
  if (wanted.bytes) {
    if (const auto ranks = plan.for_bytes(*wanted.bytes)) return *ranks;
    examples::refuse("--bytes: ", std::to_string(*wanted.bytes), ", but the lowest ranks in these types take ",
                     std::to_string(plan.bytes(plan.smallest())));
  }
  std::vector<std::size_t> ranks(spectra.size());
  if (wanted.ranks) ranks = ple::RowLayout::parse_ranks(*wanted.ranks, spectra.size(), plan.width, "--rank");
  for (std::size_t l = 0; l < ranks.size(); ++l) {
    if (wanted.error) ranks[l] = spectra[l].rank_for(*wanted.error);
    if (wanted.error || ranks[l] > 0) ranks[l] = plan.rounded(l, ranks[l]);
  }
  return ranks;
}

template <class Model>
void add_bases(const Model& model, const RankOptions& wanted, ple::PackOptions& options, ple::Executor& executor,
               examples::Progress& progress) {
  if (wanted.ranks) {  // what is wrong with them is said before the work
    ple::RowLayout::parse_ranks(*wanted.ranks, model.config.num_layers(), model.table.width(), "--rank");
  }
  const ple::SecondMoments moments = ple::packed_second_moments(model, options, executor, std::ref(progress));
  std::vector<ple::Spectrum> spectra;
  examples::RankPlan plan{options.dtypes, {}, moments.width(), moments.rows()};
  for (std::size_t l = 0; l < moments.layers(); ++l) {
    spectra.push_back(ple::spectrum(moments, l));
    plan.eigenvalues.push_back(spectra[l].values);
    progress("depths solved", l + 1, moments.layers());
  }
  const std::vector<std::size_t> ranks = ranks_of(wanted, spectra, plan);
  options.bases.resize(ranks.size());
  fmt::print("{:<8}{:>6}{:>7}   left out, of the root mean square\n", "depth", "type", "rank");
  for (std::size_t l = 0; l < ranks.size(); ++l) {
    if (ranks[l] > 0) options.bases[l] = std::make_shared<const ple::AlignedVector<float>>(spectra[l].basis(ranks[l]));
    const auto& dtype = options.dtypes[l];
    fmt::print("{:<8}{:>6}{:>7}{:>9.2f} %\n", l, dtype ? ple::name_of(*dtype) : "none",
               !dtype          ? "-"
               : ranks[l] == 0 ? "full"
                               : std::to_string(ranks[l]),
               !dtype          ? 100.0
               : ranks[l] == 0 ? 0.0
                               : 100 * spectra[l].error(ranks[l]));
  }
}

void run(examples::Arguments& arguments) {
  const std::string model_path = arguments.first("MODEL"), out = arguments.first("OUT");
  const auto checkpoint = ple::Checkpoint::open(model_path);
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
