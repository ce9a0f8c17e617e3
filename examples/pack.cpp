// SPDX-License-Identifier: Apache-2.0
// Writes a model's PLE table into a file of its own: in other number types, folded, or for fewer tokens.
#include <ple/convert/pack_table.h>
#include <ple/models.h>

#include <fmt/core.h>

#include "arguments.h"
#include "progress.h"

#include <fstream>

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

void run(examples::Arguments& arguments) {
  const std::string model_path = arguments.first("MODEL"), out = arguments.first("OUT");
  const auto checkpoint = ple::Checkpoint::open(model_path);
  const auto dtype = arguments.text("--dtype"), vocabulary = arguments.text("--vocab"),
             substitute = arguments.text("--substitute");
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
    ple::pack_table(model, options, out, pool, examples::Progress());
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
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage.c_str(), argc, argv, run); }
