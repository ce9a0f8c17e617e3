// SPDX-License-Identifier: Apache-2.0
// Logits of every position as raw f32, for comparisons with other programs.
#include "backend.h"

#include <ple/ple.h>

#include "arguments.h"
#include "slice_options.h"

#include <fstream>

const std::string usage = std::string(
                              "usage: logits MODEL --tokens 2,17,4 --out FILE [--chunk N] [--threads N] "
                              "[--backend scalar|native|auto]\n"
                              "\n"
                              "Writes [tokens, vocabulary] little-endian f32 to FILE.\n"
                              "  --chunk N                read N tokens at once (0: all)\n") +
                          examples::slice_usage;

namespace {

std::vector<ple::Token> parse_tokens(const std::string& list) {
  std::vector<ple::Token> tokens;
  const char* end = list.data() + list.size();
  for (const char* p = list.data(); p < end;) {
    const auto [next, error] = std::from_chars(p, end, tokens.emplace_back());
    if (error != std::errc() || (next != end && *next != ',')) {
      throw std::runtime_error(fmt::format("--tokens: '{}' is not a list such as 2,17,4", list));
    }
    p = next + 1;
  }
  return tokens;
}

}  // namespace

int main(int argc, char** argv) {
  return examples::run(usage.c_str(), argc, argv, [](examples::Arguments& arguments) {
    const std::string folder = arguments.first("MODEL");
    const auto tokens = parse_tokens(arguments.text("--tokens").value_or(""));
    const std::string out = arguments.text("--out").value_or("");
    const auto chunk = arguments.number<std::size_t>("--chunk", 0);
    const auto threads = arguments.number<std::size_t>("--threads", 0);
    const std::string backend = arguments.text("--backend").value_or("auto");
    const ple::MatformerOptions slice = examples::slice_options(arguments);
    arguments.done();
    if (tokens.empty() || out.empty()) throw std::runtime_error("--tokens and --out are needed");

    const auto checkpoint = ple::Checkpoint::open(folder, {.slice = slice});
    examples::with_backend(backend, [&]<ple::Backend B>() {
      const auto loaded = ple::load_model<ple::Any, B>(checkpoint);
      const ple::LanguageModel& model = *loaded;
      ple::Session session(model,
                           {.context = tokens.size(), .chunk = chunk ? chunk : tokens.size(), .threads = threads});
      std::ofstream file(out, std::ios::binary);
      session.evaluate(tokens, [&](std::size_t, std::span<const float> logits) {
        file.write(reinterpret_cast<const char*>(logits.data()), static_cast<std::streamsize>(logits.size_bytes()));
      });
      file.close();
      if (!file) throw std::runtime_error(fmt::format("{}: cannot write", out));
      fmt::print("{} tokens, {} logits each, on {}\n", tokens.size(), model.vocab_size(), B::name());
    });
  });
}
