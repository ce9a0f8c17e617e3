// SPDX-License-Identifier: Apache-2.0
// Tokens per second of training, beside what the machine can multiply. bench/compare_training does the same with
// PyTorch.
#include "bench/machine.h"

#include <ple/core/memory_use.h>
#include <ple/models.h>
#include <ple/train/language_trainer.h>

#include <fmt/core.h>

#include "examples/arguments.h"

#include <algorithm>
#include <random>
#include <vector>

constexpr const char* usage =
    "usage: training MODEL [options]\n"
    "\n"
    "  MODEL           a Hugging Face folder or a GGUF file of a Gemma 4 or 3 model\n"
    "  --length N      tokens of a sequence, all of which count (default: 512)\n"
    "  --steps N       (default: 3, after one that is not timed)\n"
    "  --rank N        of adapters on the seven matrices of each layer (default: 16); 0: none\n"
    "  --rows          train the PLE table's rows, too\n"
    "  --keep MIB      memory for activations, which are computed again beyond it (default: 256)\n"
    "  --threads N     (default: all)\n";

namespace {

void run(examples::Arguments& arguments) {
  const std::string path = arguments.first("MODEL");
  const auto length = arguments.number<std::size_t>("--length", 512, 2, 65536),
             steps = arguments.number<std::size_t>("--steps", 3, 1), rank = arguments.number<std::size_t>("--rank", 16),
             keep = arguments.bytes("--keep").value_or(std::size_t{256} << 20);
  ple::TrainingOptions options{.rank = rank, .alpha = static_cast<double>(rank), .schedule = {1000, 5}};
  if (rank == 0) options.adapters.clear();
  options.rows = arguments.flag("--rows");
  const std::size_t threads = arguments.threads();
  arguments.done();
  ple::ThreadPool pool(threads);
  options.gradient = {.max_tokens = length, .threads = pool.concurrency(), .activation_budget = keep};
  const auto trainer = ple::load_trainer(ple::Checkpoint::open(path), options);
  std::mt19937 random(1);
  std::vector<ple::Token> tokens(length);
  for (ple::Token& token : tokens) token = static_cast<ple::Token>(2 + random() % (trainer->model().token_limit() - 2));
  const std::vector<std::uint8_t> learnt(length, 1);
  const ple::TrainingSequence sequence{tokens, learnt};
  std::vector<double> seconds;
  for (std::size_t i = 0; i <= steps; ++i) {
    const double start = bench::now();
    const ple::TrainingStep step = trainer->step(pool, std::span(&sequence, 1));
    const double taken = bench::now() - start;
    fmt::print("step {}: loss {:.4f}, gradient norm {:.3f}, {:.2f} s\n", i, step.loss, step.gradient_norm, taken);
    if (i > 0) seconds.push_back(taken);
  }
  std::sort(seconds.begin(), seconds.end());
  const ple::MemoryUse memory = ple::memory_use();
  fmt::print("{:.1f} tokens/s | memory: {:.0f} MiB, {:.0f} MiB of it not backed by a file\n",
             static_cast<double>(length) / seconds[seconds.size() / 2], static_cast<double>(memory.resident) / 1048576,
             static_cast<double>(memory.anonymous) / 1048576);
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
