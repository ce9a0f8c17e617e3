// SPDX-License-Identifier: Apache-2.0
// Prompt and decode speed of a model, with its memory both ways and what the machine's limits would allow. Several
// storages of the PLE table are measured in one run, turn by turn, each in a process of its own.
#include "../examples/backend.h"

#include <ple/ple.h>

#include "../examples/arguments.h"
#include "../examples/kv_cache.h"
#include "../examples/table.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>

namespace {

constexpr const char* usage =
    "usage: bench_throughput MODEL [options]\n"
    "\n"
    "  MODEL               a Hugging Face folder of a Gemma 4 model\n"
    "  --prompt N          tokens of the prompt (default: 512)\n"
    "  --generate N        tokens written after it (default: 64)\n"
    "  --repeat N          (default: 5)\n"
    "  --threads N         (default: all)\n"
    "  --chunk N           tokens of the prompt computed at once (default: 128)\n"
    "  --kv TYPE           keys and values are kept in: f32 (default), bf16, f16, q8_0\n"
    "  --tables A,B,...    mapped, resident, streamed, none: measured in turn (default: mapped)\n"
    "  --budget MIB        of a streamed table (default: 64)\n"
    "  --json              one line of JSON for each storage instead of a table\n";

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Options {
  std::string model, backend;
  std::size_t prompt, generate, threads, chunk;
  ple::Dtype kv_cache_dtype;
};

/// What a process says of one repetition.
struct Result {
  double load_seconds = 0, first_token_seconds = 0, prompt_per_second = 0, decode_per_second = 0;
  std::uint64_t resident = 0, anonymous = 0, bytes_per_token = 0;
};

/// Bytes of weights that every token reads: all matrices, and of the embedding only what the head does not read anyway.
template <class Model>
std::uint64_t bytes_per_token(Model& model) {
  std::uint64_t bytes = 0;
  model.parameters([&](ple::Parameter parameter, std::size_t, auto& values) {
    if constexpr (requires { values.cols(), values.bytes(); }) {
      if (parameter != ple::Parameter::token_embedding || model.config.tie_word_embeddings) bytes += values.bytes();
    }
  });
  return bytes + model.table.layout().row_bytes();
}

/// Measures whenever a byte arrives, until the pipe is closed.
void serve(const Options& options, const ple::TableStorage& storage, int in, int out) {
  examples::with_backend(options.backend, [&]<ple::Backend B>() {
    Result result;
    double start = now();
    const auto checkpoint = ple::Checkpoint::open(options.model);
    auto model = ple::Gemma4<ple::Any, B>::load(checkpoint, {.table = storage});
    result.load_seconds = now() - start;
    result.bytes_per_token = bytes_per_token(model);
    std::vector<ple::Token> prompt(options.prompt);
    std::uint64_t seed = 1;
    for (ple::Token& token : prompt) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      token = static_cast<ple::Token>((seed >> 33) % model.vocab_size());
    }
    ple::Session session(model, {.context = options.prompt + options.generate + 1,
                                 .chunk = options.chunk,
                                 .threads = options.threads,
                                 .kv_cache_dtype = options.kv_cache_dtype});
    for (char go; ::read(in, &go, 1) == 1;) {
      session.reset();
      start = now();
      session.read(prompt);
      ple::Generation generation(session, {.sampling = {}, .stop_tokens = {}, .max_tokens = options.generate + 1});
      generation.next();
      result.first_token_seconds = now() - start;
      result.prompt_per_second = static_cast<double>(options.prompt) / result.first_token_seconds;
      start = now();
      while (generation.next()) {
      }
      result.decode_per_second = static_cast<double>(options.generate) / (now() - start);
      const ple::MemoryUse memory = ple::memory_use();
      result.resident = memory.resident;
      result.anonymous = memory.anonymous;
      if (::write(out, &result, sizeof result) != sizeof result) return;
    }
  });
}

/// A process that measures one storage when told to.
class Process {
 public:
  Process(std::string name, const Options& options, const ple::TableStorage& storage) : name_(std::move(name)) {
    int down[2], up[2];
    if (::pipe(down) != 0 || ::pipe(up) != 0) throw std::runtime_error("cannot make a pipe");
    child_ = ::fork();
    if (child_ == 0) {
      ::close(down[1]);
      ::close(up[0]);
      try {
        serve(options, storage, down[0], up[1]);
      } catch (const std::exception& error) {
        fmt::print(stderr, "error: {}\n", error.what());
        std::_Exit(1);
      }
      std::_Exit(0);
    }
    ::close(down[0]);
    ::close(up[1]);
    go_ = down[1];
    answer_ = up[0];
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    ::close(go_);
    ::close(answer_);
    ::waitpid(child_, nullptr, 0);
  }

  void measure() {
    Result result;
    if (::write(go_, "g", 1) != 1 || ::read(answer_, &result, sizeof result) != sizeof result) {
      throw std::runtime_error(name_ + ": the measuring process ended");
    }
    results_.push_back(result);
  }

  void forget() { results_.clear(); }

  const std::string& name() const { return name_; }
  const Result& last() const { return results_.back(); }
  double median(double Result::*field) const {
    std::vector<double> values;
    for (const Result& result : results_) values.push_back(result.*field);
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }

 private:
  std::string name_;
  pid_t child_ = -1;
  int go_ = -1, answer_ = -1;
  std::vector<Result> results_;
};

void print(const Process& process, bool json) {
  const double prompt = process.median(&Result::prompt_per_second), decode = process.median(&Result::decode_per_second),
               first = process.median(&Result::first_token_seconds);
  const Result& last = process.last();
  const auto mebibytes = [](std::uint64_t bytes) { return static_cast<double>(bytes) / 1048576; };
  fmt::print(
      fmt::runtime(json ? "{{\"table\":\"{}\",\"prompt_tokens_per_second\":{:.2f},\"decode_tokens_per_second\":{:.3f},"
                          "\"first_token_seconds\":{:.3f},\"load_seconds\":{:.3f},\"resident_mib\":{:.1f},"
                          "\"anonymous_mib\":{:.1f},\"gb_per_token\":{:.4f}}}\n"
                        : "{:10}{:>12.1f}{:>12.2f}{:>14.2f}{:>10.2f}{:>12.0f}{:>12.0f}{:>12.3f}\n"),
      process.name(), prompt, decode, first, last.load_seconds, mebibytes(last.resident), mebibytes(last.anonymous),
      static_cast<double>(last.bytes_per_token) * 1e-9);
}

void run(examples::Arguments& arguments) {
  Options options;
  options.model = arguments.first("MODEL");
  options.prompt = arguments.number<std::size_t>("--prompt", 512);
  options.generate = arguments.number<std::size_t>("--generate", 64);
  options.threads = arguments.number<std::size_t>("--threads", 0);
  options.chunk = arguments.number<std::size_t>("--chunk", 128);
  options.kv_cache_dtype = examples::kv_cache_dtype(arguments);
  options.backend = arguments.text("--backend").value_or("auto");
  const auto repeat = arguments.number<std::size_t>("--repeat", 5);
  const auto budget = arguments.number<std::size_t>("--budget", 64) << 20;
  const std::string tables = arguments.text("--tables").value_or("mapped");
  const bool json = arguments.flag("--json");
  arguments.done();

  std::vector<std::unique_ptr<Process>> processes;
  for (std::size_t begin = 0; begin <= tables.size();) {
    const std::size_t end = std::min(tables.find(',', begin), tables.size());
    const std::string name = tables.substr(begin, end - begin);
    ple::TableStorage storage = examples::storage_of_name(name);
    if (auto* streamed = std::get_if<ple::Streamed>(&storage)) streamed->budget = budget;
    processes.push_back(std::make_unique<Process>(name, options, storage));
    begin = end + 1;
  }
  for (std::size_t i = 0; i <= repeat; ++i) {
    for (const auto& process : processes) {
      fmt::print(stderr, "\r{} of {}: {:20}", i, repeat, process->name());
      process->measure();
      if (i == 0) process->forget();  // the first time brings the weights into memory
    }
  }
  fmt::print(stderr, "\r{:40}\r", "");
  if (!json) {
    fmt::print("prompt of {} tokens, {} written after it; medians of {}, in turn\n\n", options.prompt, options.generate,
               repeat);
    fmt::print("{:10}{:>12}{:>12}{:>14}{:>10}{:>12}{:>12}{:>12}\n", "table", "prompt t/s", "decode t/s", "1st token s",
               "load s", "resident MiB", "anon. MiB", "GB/token");
  }
  for (const auto& process : processes) print(*process, json);
  while (!processes.empty()) processes.pop_back();  // a later one holds the earlier ones' pipes open
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
