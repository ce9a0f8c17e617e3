// SPDX-License-Identifier: Apache-2.0
// Writes a smaller model that lies inside a Gemma 3n as a checkpoint of its own.
#include <ple/convert/slice_writer.h>
#include <ple/model/parameter_groups.h>

#include <fmt/core.h>

#include "arguments.h"
#include "progress.h"
#include "slice_options.h"

const std::string usage =
    std::string(
        "usage: slice MODEL OUT [options]\n"
        "\n"
        "  MODEL                    a Hugging Face folder of a Gemma 3n model\n"
        "  OUT                      the folder to write; new or empty\n") +
    examples::slice_usage +
    "\n"
    "A layer keeps its type and its sparsity. A layer whose K and V a kept layer shares cannot be left out.\n";

namespace {

void print(const char* name, const ple::Gemma3nConfig& config) {
  const ple::ParameterGroups groups = ple::parameter_groups(ple::parameter_shapes(config));
  fmt::print("{:8}{:>8}{:>8}{:>16}{:>16}{:>16}\n", name, config.num_layers(), config.num_kv_shared_layers,
             groups.total(), groups.ple, groups.effective_documentation());
}

void run(examples::Arguments& arguments) {
  const std::string from = arguments.first("MODEL"), to = arguments.first("OUT");
  const ple::MatformerOptions options = examples::slice_options(arguments);
  arguments.done();
  if (options.empty()) throw std::runtime_error("which slice? --slice, --skip or --width say so");
  const ple::MatformerSlice slice = ple::write_slice(from, options, to, examples::Progress());
  fmt::print("{:8}{:>8}{:>8}{:>16}{:>16}{:>16}\n", "", "layers", "shared", "parameters", "of them PLE", "effective");
  print("model", ple::HfFolder(from).config<ple::Gemma3nConfig>());
  print("slice", slice.config);
  fmt::print("parameters: of the text model; effective: {}\n", ple::ParameterGroups::documentation_definition);
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage.c_str(), argc, argv, run); }
