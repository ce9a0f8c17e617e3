// SPDX-License-Identifier: Apache-2.0
// Puts Per-Layer Embeddings into a Gemma 3, to be trained by finetune.
#include <ple/train/graft.h>

#include "arguments.h"
#include "progress.h"

#include <fmt/core.h>

#include <string>

const std::string usage =
    "usage: graft MODEL --out OUT [options]\n"
    "\n"
    "  MODEL       a Gemma 3: a Hugging Face folder or a GGUF file of any number types\n"
    "  --out OUT   the new folder, or file, of the same kind\n"
    "  --width N   numbers of a row for each layer (default: 64)\n"
    "  --seed N    of the random gates and projections (default: 1)\n"
    "\n"
    "The new model answers as the old one does: rows of its table, [vocabulary, layers * N] in bf16, are zeros, and "
    "the\n"
    "last norm of each PLE step, too. finetune --graft trains both, and the gates and projections.\n";

namespace {

void run(examples::Arguments& arguments) {
  const std::string from = arguments.first("MODEL");
  const auto to = arguments.text("--out");
  ple::GraftOptions options;
  options.width = arguments.number<std::size_t>("--width", options.width, 1, 65536);
  options.seed = arguments.number<std::uint64_t>("--seed", options.seed);
  arguments.done();
  if (!to) examples::refuse("--out is missing: what to write");
  ple::graft_ple(from, options, *to, examples::Progress());
  fmt::print("{}: a PLE table of width {}\n", *to, options.width);
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage.c_str(), argc, argv, run); }
