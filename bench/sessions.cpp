// SPDX-License-Identifier: Apache-2.0
// Several sessions advanced together, beside one: tokens per second of all of them. Greedy, each after a prompt of its
// own; the numbers of sessions take turns.
#include <ple/models.h>

#include "examples/arguments.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

namespace {

constexpr const char* usage =
    "sessions MODEL [options]\n"
    "\n"
    "  --prompt N    tokens each session reads first (default: 32)\n"
    "  --generate N  tokens each writes (default: 24)\n"
    "  --repeat N    (default: 5)\n"
    "  --threads N   (default: all)\n";

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void run(examples::Arguments& arguments) {
  const std::string path = arguments.first("MODEL");
  const auto prompt = arguments.number<std::size_t>("--prompt", 32);
  const auto generate = arguments.number<std::size_t>("--generate", 24);
  const auto repeat = std::max<std::size_t>(1, arguments.number<std::size_t>("--repeat", 5));
  ple::ThreadPool pool(arguments.threads());
  arguments.done();
  const auto model =
      ple::load_model(ple::Checkpoint::open(path), {.table = ple::Streamed{.budget = std::size_t{64} << 20}});
  constexpr std::size_t most = 16;
  std::vector<std::unique_ptr<ple::Session>> sessions;
  std::vector<ple::Session*> pointers;
  ple::Batch batch(*model, {.sessions = most, .executor = &pool});
  for (std::size_t i = 0; i < most; ++i) {
    sessions.push_back(std::make_unique<ple::Session>(
        *model, ple::SessionOptions{
                    .context = prompt + generate, .chunk = std::max<std::size_t>(prompt, 1), .executor = &pool}));
    pointers.push_back(sessions.back().get());
  }
  const std::size_t counts[] = {1, 2, 4, 8, 16};
  std::vector<std::vector<double>> rates(std::size(counts));
  for (std::size_t r = 0; r < repeat; ++r) {
    for (std::size_t k = 0; k < std::size(counts); ++k) {
      fmt::print(stderr, "\rround {} of {}: {} sessions  ", r + 1, repeat, counts[k]);
      std::vector<ple::Token> tokens(counts[k]);
      for (std::size_t i = 0; i < counts[k]; ++i) {
        sessions[i]->reset();
        std::vector<ple::Token> text(prompt);
        for (std::size_t t = 0; t < prompt; ++t) {
          text[t] = static_cast<ple::Token>((i * 7919 + t * 104729 + 17) % model->vocab_size());
        }
        sessions[i]->read(text);
      }
      const double start = now();
      for (std::size_t step = 0; step < generate; ++step) {
        for (std::size_t i = 0; i < counts[k]; ++i) {
          const auto logits = sessions[i]->logits();
          tokens[i] = static_cast<ple::Token>(std::max_element(logits.begin(), logits.end()) - logits.begin());
        }
        batch.read(std::span(pointers).first(counts[k]), tokens);
      }
      rates[k].push_back(static_cast<double>(generate * counts[k]) / (now() - start));
    }
  }
  fmt::print(stderr, "\r{:40}\r", "");
  fmt::print("tokens per second of all sessions together, medians of {}, {} threads\n\n", repeat, pool.concurrency());
  fmt::print("sessions   t/s     of one\n");
  for (std::size_t k = 0; k < std::size(counts); ++k) {
    fmt::print("{:8} {:6.1f} {:8.2f}\n", counts[k], median(rates[k]), median(rates[k]) / median(rates[0]));
  }
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
