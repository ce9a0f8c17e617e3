// SPDX-License-Identifier: Apache-2.0
// Writes a model with adapters merged into its weights.
#include <ple/convert/merge_adapter.h>

#include "adapters.h"
#include "arguments.h"
#include "progress.h"

#include <fmt/core.h>

#include <string>
#include <vector>

const std::string usage =
    "usage: merge MODEL ADAPTER[=SCALE]... --out DIR\n"
    "\n"
    "  MODEL            a Hugging Face folder; what the adapters change must be in f32, bf16 or f16\n"
    "  ADAPTER[=SCALE]  a folder that PEFT or ple wrote: LoRA, trained rows of the PLE table, or both; times SCALE\n"
    "                   (default 1). Several add up\n"
    "  --out DIR        the folder to write; new or empty\n"
    "\n"
    "W += SCALE * B A in f32, rounded to the type of W; rows of the PLE table are replaced. Everything else is "
    "copied.\n";

namespace {

void run(examples::Arguments& arguments) {
  const std::string from = arguments.first("MODEL");
  const auto to = arguments.text("--out");
  std::vector<std::string> words = {arguments.first("ADAPTER")};
  while (auto word = arguments.next()) words.push_back(*std::move(word));
  arguments.done();
  if (!to) examples::refuse("--out is missing: which folder to write");
  std::vector<ple::SessionAdapter> adapters;
  for (std::string& word : words) adapters.push_back(examples::adapter_of("ADAPTER", std::move(word)));
  const ple::MergedAdapters merged = ple::merge_adapters(from, adapters, *to, examples::Progress());
  fmt::print("{}: merged {} matrices and {} rows of the PLE table\n", *to, merged.matrices, merged.rows);
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage.c_str(), argc, argv, run); }
