// SPDX-License-Identifier: Apache-2.0
// Logits of every position as raw f32, for comparisons with other programs.
#include "backend.h"

#include <ple/core/checked_writer.h>
#include <ple/models.h>

#include <fmt/core.h>

#include "arguments.h"
#include "slice_options.h"

#include <vector>

const std::string usage = std::string(
                              "usage: logits MODEL --tokens 2,17,4 --out FILE [--chunk N] [--threads N] "
                              "[--backend scalar|native|auto]\n"
                              "\n"
                              "Writes [tokens, vocabulary] little-endian f32 to FILE.\n"
                              "  --chunk N                read N tokens at once (0: all)\n") +
                          examples::slice_usage;

int main(int argc, char** argv) {
  return examples::run(usage.c_str(), argc, argv, [](examples::Arguments& arguments) {
    const std::string folder = arguments.first("MODEL");
    const auto list = arguments.text("--tokens"), out = arguments.text("--out");
    const auto chunk = arguments.number<std::size_t>("--chunk", 0);
    const std::size_t threads = arguments.threads();
    const std::string backend = arguments.text("--backend").value_or("auto");
    const ple::MatformerOptions slice = examples::slice_options(arguments);
    arguments.done();
    if (!list || !out) examples::refuse("--tokens and --out are needed");
    const auto tokens = examples::numbers_of<ple::Token>("--tokens", *list);

    const auto checkpoint = ple::Checkpoint::open(folder, {.slice = slice});
    const std::vector<ple::FileIdentity> inputs = ple::identities_of(checkpoint.files());
    ple::check_output_path(*out, inputs);
    const auto model = examples::load_model(checkpoint, backend);
    ple::Session session(*model,
                         {.context = tokens.size(), .chunk = chunk ? chunk : tokens.size(), .threads = threads});
    ple::CheckedWriter file(*out, inputs);
    session.evaluate(
        tokens, [&](std::size_t, std::span<const float> logits) { file.write(logits.data(), logits.size_bytes()); });
    file.finish({});
    fmt::print("{} tokens, {} logits each, on {}\n", tokens.size(), model->vocab_size(),
               examples::backend_name(backend));
  });
}
