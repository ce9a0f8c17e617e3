// SPDX-License-Identifier: Apache-2.0
// Prompt and decode speed of a model, with its memory both ways and the share of what the machine can do at most.
// Several storages of the PLE table are measured in one run, turn by turn, each in a process of its own.
#include "bench/machine.h"

#include <ple/models.h>

#include <fmt/core.h>

#include "bench/work.h"
#include "examples/arguments.h"
#include "examples/kv_cache.h"
#include "examples/table.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <thread>

namespace {

constexpr const char* usage =
    "usage: bench_throughput MODEL [options]\n"
    "\n"
    "  MODEL               a Hugging Face folder or a GGUF file of a Gemma 4, 3n or 3 model\n"
    "  --prompt N          tokens of the prompt (default: 512)\n"
    "  --generate N        tokens written after it (default: 64)\n"
    "  --repeat N          (default: 5)\n"
    "  --threads N         (default: all)\n"
    "  --chunk N           tokens of the prompt computed at once (default: 128)\n"
    "  --kv TYPE           keys and values are kept in: f32 (default), bf16, f16, q8_0\n"
    "  --tables A,B,...    mapped, resident, streamed, none: measured in turn (default: mapped)\n"
    "  --budget MIB        of a streamed table (default: 64)\n"
    "  --json              one line of JSON for each storage instead of a table\n"
    "\n"
    "The prompt is random, and the same each time. Before what is measured comes one prompt that brings the weights\n"
    "into memory; 'start' is the time from opening the file to that prompt's first token.\n"
    "\n"
    "'GB/token' is what a token needs: every matrix, but for what a sparse feed-forward leaves out, its row of the\n"
    "table, and the K and V it attends over, halfway through what is written. 'of read' is the rate at which decoding\n"
    "reads them, as a share of the rate at which this machine reads memory. 'of peak' is the time that the prompt's\n"
    "multiply-adds would take at the machine's peak, as a share of the time it took: products with quantised weights\n"
    "at the peak of bytes, with bf16 weights at that of bf16 where the CPU multiplies these, everything else at the\n"
    "peak of f32.\n"
    "The machine's rates are measured on as many threads: what it computes before and after each prompt, what memory\n"
    "gives before and after every eighth of what is decoded.\n";

using bench::now;

struct Options {
  std::string model;
  std::size_t prompt, generate, threads, chunk;
  ple::Dtype kv_cache_dtype;
};

/// What is decoded is measured in so many parts: a virtual machine's memory is twice as fast in one second as in the
/// next. None of them is empty.
std::size_t parts_of(std::size_t tokens) { return std::clamp<std::size_t>(tokens, 1, 8); }

/// What a process says of a prompt.
struct Prompt {
  double load_seconds = 0, start_seconds = 0, first_token_seconds = 0;
  std::uint64_t sum = 0;
  bench::Work work = {};
  bench::Machine machine = {};  // beside it
};

/// And of a part of what is decoded after it.
struct Part {
  double tokens = 0, seconds = 0;
  std::uint64_t resident = 0, anonymous = 0;
  std::uint64_t bytes = 0, sparse_bytes = 0;  // of a token, halfway through what is decoded: read, and left out
  bench::Machine machine = {};                // beside it
};

double ratio(double part, double whole) { return whole > 0 ? part / whole : std::nan(""); }

/// Of the rate at which memory, or a mapped file, is read: what decoding reads.
double share_of_read(const Part& part, double bench::Machine::*rate) {
  return ratio(part.tokens * static_cast<double>(part.bytes), part.seconds * (part.machine.*rate));
}

/// The time that the prompt would take at the machine's peaks, as a share of what it took.
double share_of_peak(const Prompt& prompt) {
  const bench::Work& work = prompt.work;
  const double seconds =
      ratio(static_cast<double>(work.integer_multiply_adds), prompt.machine.int8) +
      ratio(static_cast<double>(work.float_multiply_adds), prompt.machine.f32) +
      (work.bf16_multiply_adds == 0 ? 0 : ratio(static_cast<double>(work.bf16_multiply_adds), prompt.machine.bf16));
  return seconds / prompt.first_token_seconds;
}

/// Computes a prompt when a byte arrives, and a part of what follows it with each of the next; until the pipe is
/// closed.
template <class Model>
void serve(const ple::Checkpoint& checkpoint, double opened, const Options& options, const ple::TableStorage& storage,
           int in, int out) {
  const auto told = [in] {
    char go;
    return ::read(in, &go, 1) == 1;
  };
  const auto tell = [out](const auto& what) {
    if (::write(out, &what, sizeof what) != sizeof what) throw std::runtime_error("cannot write to a pipe");
  };
  auto model = Model::load(checkpoint, {.table = storage});
  Prompt of_prompt = {.load_seconds = now() - opened,
                      .work = bench::work_of_prompt(model, options.prompt, options.chunk)};
  const bench::Work token = bench::work_of(model, options.prompt + options.generate / 2, 1, 1);
  std::vector<ple::Token> prompt(options.prompt);
  std::uint64_t seed = 1;
  for (ple::Token& next : prompt) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    next = static_cast<ple::Token>((seed >> 33) % model.vocab_size());
    of_prompt.sum += static_cast<std::uint64_t>(next);
  }
  ple::Session session(model, {.context = options.prompt + options.generate + 1,
                               .chunk = options.chunk,
                               .threads = options.threads,
                               .kv_cache_dtype = options.kv_cache_dtype});
  const double ready = now();
  while (told()) {
    session.reset();
    double start = now();
    session.read(prompt);
    ple::Generation generation(session, {.sampling = {}, .stop_tokens = {}, .max_tokens = options.generate + 1});
    generation.next();
    of_prompt.first_token_seconds = now() - start;
    if (of_prompt.start_seconds == 0) of_prompt.start_seconds = ready - opened + of_prompt.first_token_seconds;
    tell(of_prompt);
    const std::size_t parts = parts_of(options.generate);
    for (std::size_t i = 0; i < parts && told(); ++i) {
      const std::size_t tokens = options.generate * (i + 1) / parts - options.generate * i / parts;
      start = now();
      for (std::size_t t = 0; t < tokens; ++t) generation.next();
      const double seconds = now() - start;
      const ple::MemoryUse memory = ple::memory_use();
      tell(Part{.tokens = static_cast<double>(tokens),
                .seconds = seconds,
                .resident = memory.resident,
                .anonymous = memory.anonymous,
                .bytes = token.weight_bytes + ple::bytes_of(options.kv_cache_dtype, token.cached_values),
                .sparse_bytes = token.sparse_bytes});
    }
  }
}

/// As above, whatever family the model is of.
void serve(const Options& options, const ple::TableStorage& storage, int in, int out) {
  const double opened = now();
  const auto checkpoint = ple::Checkpoint::open(options.model);
  std::visit(
      [&]<class Config>(const Config& /*of its family*/) {
        using Model = typename ple::Family<Config>::template Model<ple::Any, ple::DefaultBackend>;
        serve<Model>(checkpoint, opened, options, storage, in, out);
      },
      checkpoint.any_config());
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

  void measure(bench::MachineMeter& meter, std::size_t parts) {
    bench::Machine before = meter.measure_products();
    auto prompt = answer<Prompt>();
    prompt.machine = bench::mean_of(before, meter.measure_products());
    prompts_.push_back(prompt);
    double seconds = 0, tokens = 0;
    before = meter.measure_memory();
    for (std::size_t i = 0; i < parts; ++i) {
      auto part = answer<Part>();
      const bench::Machine after = meter.measure_memory();
      part.machine = bench::mean_of(before, after);
      before = after;
      seconds += part.seconds;
      tokens += part.tokens;
      parts_.push_back(part);
    }
    decode_per_second_.push_back(tokens / seconds);
  }

  void forget() {
    prompts_.clear();
    parts_.clear();
    decode_per_second_.clear();
  }

  const std::string& name() const { return name_; }
  const Prompt& last_prompt() const { return prompts_.back(); }
  const Part& last_part() const { return parts_.back(); }
  double decode_per_second() const { return median(decode_per_second_); }
  /// Medians of f over all repetitions: of their prompts, or of the parts of what was decoded.
  template <class F>
  double of_prompts(F&& f) const {
    return median(prompts_, f);
  }
  template <class F>
  double of_parts(F&& f) const {
    return median(parts_, f);
  }

 private:
  template <class T>
  T answer() {
    T result;
    if (::write(go_, "g", 1) != 1 || ::read(answer_, &result, sizeof result) != sizeof result) {
      throw std::runtime_error(name_ + ": the measuring process ended");
    }
    return result;
  }

  static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }
  template <class T, class F>
  static double median(const std::vector<T>& results, F&& f) {
    std::vector<double> values;
    for (const T& result : results) values.push_back(std::invoke(f, result));
    return median(std::move(values));
  }

  std::string name_;
  pid_t child_ = -1;
  int go_ = -1, answer_ = -1;
  std::vector<Prompt> prompts_;
  std::vector<Part> parts_;
  std::vector<double> decode_per_second_;
};

/// What the machine could do beside a process, in the middle.
bench::Machine machine_beside(const Process& process) {
  const auto memory = [&](double bench::Machine::*rate) {
    return process.of_parts([rate](const Part& part) { return part.machine.*rate; });
  };
  const auto products = [&](double bench::Machine::*rate) {
    return process.of_prompts([rate](const Prompt& prompt) { return prompt.machine.*rate; });
  };
  return {memory(&bench::Machine::read), memory(&bench::Machine::mapped_read), products(&bench::Machine::int8),
          products(&bench::Machine::f32), products(&bench::Machine::bf16)};
}

void print(const Process& process, const Options& options, bool json) {
  const double decode = process.decode_per_second(), first = process.of_prompts(&Prompt::first_token_seconds),
               prompt = static_cast<double>(options.prompt) / first;
  const auto share_of = [&](double bench::Machine::*rate) {
    return process.of_parts([rate](const Part& part) { return share_of_read(part, rate); });
  };
  const double of_read = share_of(&bench::Machine::read), of_peak = process.of_prompts(share_of_peak);
  const Prompt& last = process.last_prompt();
  const Part& part = process.last_part();
  const auto mebibytes = [](std::uint64_t bytes) { return static_cast<double>(bytes) / 1048576; };
  if (!json) {
    fmt::print("{:10}{:>12.1f}{:>12.2f}{:>13.2f}{:>8.2f}{:>9.2f}{:>14.0f}{:>11.0f}{:>10.3f}{:>8.0f}%{:>8.0f}%\n",
               process.name(), prompt, decode, first, last.load_seconds, last.start_seconds, mebibytes(part.resident),
               mebibytes(part.anonymous), static_cast<double>(part.bytes) * 1e-9, 100 * of_read, 100 * of_peak);
    return;
  }
  const bench::Machine machine = machine_beside(process);
  const auto number = [](double value) { return std::isnan(value) ? "null" : fmt::format("{:.6g}", value); };
  fmt::print(
      "{{\"table\":\"{}\",\"prompt_tokens_per_second\":{},\"decode_tokens_per_second\":{},"
      "\"first_token_seconds\":{},\"load_seconds\":{},\"start_seconds\":{},\"resident_bytes\":{},"
      "\"anonymous_bytes\":{},\"prompt_sum\":{},\"bytes_per_token\":{},\"sparse_bytes_per_token\":{},"
      "\"prompt_int8_multiply_adds\":{},"
      "\"prompt_bf16_multiply_adds\":{},\"prompt_f32_multiply_adds\":{},\"machine_read\":{},"
      "\"machine_mapped_read\":{},\"machine_int8_multiply_adds\":{},\"machine_bf16_multiply_adds\":{},"
      "\"machine_f32_multiply_adds\":{},\"share_of_read\":{},"
      "\"share_of_mapped_read\":{},\"share_of_peak\":{}}}\n",
      process.name(), number(prompt), number(decode), number(first), number(last.load_seconds),
      number(last.start_seconds), part.resident, part.anonymous, last.sum, part.bytes, part.sparse_bytes,
      last.work.integer_multiply_adds, last.work.bf16_multiply_adds, last.work.float_multiply_adds,
      number(machine.read), number(machine.mapped_read), number(machine.int8), number(machine.bf16),
      number(machine.f32), number(of_read), number(share_of(&bench::Machine::mapped_read)), number(of_peak));
}

/// The file that most of the weights are in.
std::filesystem::path largest_file(const std::filesystem::path& model) {
  std::filesystem::path largest = model;
  std::uintmax_t size = 0;
  if (!std::filesystem::is_directory(model)) return largest;
  for (const auto& entry : std::filesystem::directory_iterator(model)) {
    if (!entry.is_regular_file() || entry.file_size() <= size) continue;
    largest = entry.path();
    size = entry.file_size();
  }
  return largest;
}

void run(examples::Arguments& arguments) {
  Options options;
  options.model = arguments.first("MODEL");
  options.prompt = arguments.number<std::size_t>("--prompt", 512);
  options.generate = arguments.number<std::size_t>("--generate", 64);
  options.threads =
      arguments.number<std::size_t>("--threads", std::max(1u, std::thread::hardware_concurrency()), 1, 1024);
  options.chunk = arguments.number<std::size_t>("--chunk", 128);
  options.kv_cache_dtype = examples::kv_cache_dtype(arguments);
  const auto repeat = std::max<std::size_t>(1, arguments.number<std::size_t>("--repeat", 5));
  const auto budget = arguments.bytes("--budget").value_or(64 << 20);
  const std::string tables = arguments.text("--tables").value_or("mapped");
  const bool json = arguments.flag("--json");
  arguments.done();

  std::vector<std::unique_ptr<Process>> processes;
  for (std::size_t begin = 0; begin <= tables.size();) {
    const std::size_t end = std::min(tables.find(',', begin), tables.size());
    const std::string name = tables.substr(begin, end - begin);
    const ple::TableStorage storage =
        examples::storage_of_name(name, name == "streamed" ? std::optional(budget) : std::nullopt);
    processes.push_back(std::make_unique<Process>(name, options, storage));
    begin = end + 1;
  }
  bench::MachineMeter meter(options.threads, largest_file(options.model));
  for (std::size_t i = 0; i <= repeat; ++i) {
    for (const auto& process : processes) {
      fmt::print(stderr, "\r{} of {}: {:20}", i, repeat, process->name());
      process->measure(meter, parts_of(options.generate));
      if (i == 0) process->forget();  // the first time brings the weights into memory
    }
  }
  fmt::print(stderr, "\r{:40}\r", "");
  if (!json) {
    fmt::print("prompt of {} tokens, {} written after it; {} threads; medians of {}, in turn\n\n", options.prompt,
               options.generate, options.threads, repeat);
    fmt::print("{:10}{:>12}{:>12}{:>13}{:>8}{:>9}{:>14}{:>11}{:>10}{:>9}{:>9}\n", "table", "prompt t/s", "decode t/s",
               "1st token s", "load s", "start s", "resident MiB", "anon. MiB", "GB/token", "of read", "of peak");
  }
  for (const auto& process : processes) print(*process, options, json);
  if (!json) {
    const bench::Machine machine = machine_beside(*processes[0]);
    if (const std::uint64_t sparse = processes[0]->last_part().sparse_bytes; sparse > 0) {
      fmt::print("\nsparse feed-forwards leave out {:.3f} GB/token\n", static_cast<double>(sparse) * 1e-9);
    }
    fmt::print(
        "\nthe machine beside it, {} threads: reads {:.1f} GB/s of memory, {:.1f} GB/s of the mapped file;\n"
        "multiply-adds: {:.0f} billion a second of bytes, {:.0f} of bf16, {:.0f} of f32\n",
        options.threads, machine.read * 1e-9, machine.mapped_read * 1e-9, machine.int8 * 1e-9, machine.bf16 * 1e-9,
        machine.f32 * 1e-9);
  }
  while (!processes.empty()) processes.pop_back();  // a later one holds the earlier ones' pipes open
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
