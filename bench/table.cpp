// SPDX-License-Identifier: Apache-2.0
// How long the rows of a token, and of a prompt of 512 tokens, take to gather from full-size PLE tables: every storage,
// with what it needs in the system's page cache and without, uniform and Zipf-distributed tokens, and the memory the
// process holds afterwards. The limit beside it: a plain copy of as many bytes of rows from memory.
#include <ple/dispatch.h>
#include <ple/ple.h>

#include <fmt/core.h>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "../examples/arguments.h"

namespace {

constexpr const char* usage =
    "usage: bench_table FOLDER [--shape e2b|e4b] [--budget MIB] [--threads N]\n"
    "\n"
    "  FOLDER    where the tables' files are, or are made: 4.4 GiB for E2B, 5.3 GiB for E4B\n"
    "  --budget  of the streamed table, in MiB (default: 64)\n";

struct Shape {
  const char* name;
  std::size_t layers;
};
constexpr Shape shapes[] = {{"e2b", 35}, {"e4b", 42}};
constexpr std::size_t vocabulary = 262144, width = 256, prompt = 512;

using Table = ple::PleTable<ple::bf16, ple::BestSimd>;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> times) {
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

/// Random rows, all finite, written once.
void make_file(const std::filesystem::path& path, std::size_t row_bytes) {
  if (std::filesystem::exists(path) && std::filesystem::file_size(path) == vocabulary * row_bytes) return;
  std::ofstream file(path, std::ios::binary);
  std::vector<std::uint64_t> rows(row_bytes * 256 / sizeof(std::uint64_t));
  std::mt19937_64 generator(1);
  for (std::size_t done = 0; done < vocabulary; done += 256) {
    // 7 random bits of fraction and a sign for each value, between 1 and 2.
    for (std::uint64_t& four : rows) four = (generator() & 0x807f807f807f807fu) | 0x3f803f803f803f80u;
    file.write(reinterpret_cast<const char*>(rows.data()), static_cast<std::streamsize>(256 * row_bytes));
    if (done % 8192 == 0) fmt::print(stderr, "\rwriting {}: {} of {} rows ", path.string(), done, vocabulary);
  }
  file.close();
  fmt::print(stderr, "\r{:70}\r", "");
  if (!file) throw std::runtime_error(fmt::format("{}: cannot write: is the disk full?", path.string()));
}

/// Tokens by their frequency: uniform, or the k-th most frequent with weight 1/k, and no two neighbours alike.
class Tokens {
 public:
  Tokens(bool zipf, unsigned seed) : zipf_(zipf), generator_(seed) {}
  std::vector<ple::Token> draw(std::size_t count) {
    std::vector<ple::Token> tokens(count);
    for (ple::Token& token : tokens) {
      const double u = static_cast<double>(generator_() >> 11) * 0x1p-53;
      const double rank = zipf_ ? std::exp(u * std::log(double{vocabulary})) - 1 : u * vocabulary;
      // Frequent tokens are not neighbours in the file: multiply by a number without common factors.
      token = static_cast<ple::Token>(static_cast<std::uint64_t>(rank) * 0x9e3779b1u % vocabulary);
    }
    return tokens;
  }

 private:
  bool zipf_;
  std::mt19937_64 generator_;
};

/// Median microseconds of a gather.
double measure(const Table& table, const ple::InputFile& file, ple::Executor& executor, std::size_t layers, bool zipf,
               bool cold, std::size_t count, std::size_t repeats) {
  Tokens tokens(zipf, cold ? 1 : 2);
  ple::Rows rows;
  const ple::RowsRequest request[] = {{&rows, count, layers * width}};
  const auto memory = ple::allocate_rows(request);
  ple::RowSelection selection = table.make_selection(count);
  std::vector<double> times;
  for (std::size_t i = 0; i < repeats; ++i) {
    const auto text = tokens.draw(count);
    if (cold) file.drop_cache();
    const double start = now();
    table.select(text, text.size(), 0, selection);
    table.request(selection);
    table.gather(executor, selection, 0, 0, layers, rows);
    times.push_back(now() - start);
  }
  return median(std::move(times)) * 1e6;
}

/// The same bytes of random rows copied from memory to memory.
double measure_copy(const std::vector<std::byte>& from, std::size_t row_bytes, std::size_t count, std::size_t repeats) {
  Tokens tokens(false, 3);
  std::vector<std::byte> to(count * row_bytes);
  std::vector<double> times;
  for (std::size_t i = 0; i < repeats; ++i) {
    const auto text = tokens.draw(count);
    const double start = now();
    for (std::size_t t = 0; t < count; ++t) {
      const std::size_t row = static_cast<std::size_t>(text[t]) % (from.size() / row_bytes);
      std::copy_n(from.data() + row * row_bytes, row_bytes, to.data() + t * row_bytes);
    }
    times.push_back(now() - start);
  }
  return median(std::move(times)) * 1e6;
}

void print_line(const std::string& name, const std::vector<double>& microseconds) {
  fmt::print("{:26}", name);
  for (const double t : microseconds) fmt::print("{:>10}", std::isnan(t) ? "-" : fmt::format("{:.1f}", t));
}

/// One storage in a process of its own, so that its memory is its own.
void measure_storage(const std::string& name, const std::filesystem::path& path, std::size_t layers,
                     const ple::TableStorage& storage, std::size_t threads) {
  std::fflush(stdout);
  const pid_t child = ::fork();
  if (child != 0) {
    int status = 0;
    ::waitpid(child, &status, 0);
    if (status != 0) throw std::runtime_error(name + ": failed");
    return;
  }
  try {
    const auto map = ple::MappedFile::open(path);
    ple::TableSource source;
    source.tensor = {
        path.string(), "rows", ple::Dtype::bf16, {vocabulary, layers * width}, map->bytes().data(), map->bytes().size(),
        map,           map};
    source.layout = ple::RowLayout(layers, width, ple::Dtype::bf16);
    source.rows = vocabulary;
    ple::ThreadPool pool(threads);
    const ple::MemoryUse before = ple::memory_use();
    Table table(vocabulary, layers, width);
    table.load(source, storage);
    const bool in_memory = name == "resident";
    std::vector<double> times;
    for (const std::size_t count : {std::size_t{1}, prompt}) {
      const std::size_t repeats = count == 1 ? 400 : 15;
      for (const bool zipf : {false, true}) {
        for (const bool cold : {true, false}) {
          if (!cold) {  // everything in the page cache, but for what a direct read ignores
            std::vector<std::byte> piece(std::size_t{8} << 20);
            for (std::uint64_t at = 0; at < map->file()->size(); at += piece.size()) map->file()->read(at, piece);
          }
          times.push_back(cold && in_memory ? std::nan("")
                                            : measure(table, *map->file(), pool, layers, zipf, cold, count, repeats));
        }
      }
    }
    const ple::MemoryUse after = ple::memory_use();
    print_line(name, times);
    const auto mebibytes = [](std::uint64_t a, std::uint64_t b) {
      return (static_cast<double>(a) - static_cast<double>(b)) / 1048576;
    };
    fmt::print("{:>10.0f}{:>10.0f}\n", mebibytes(after.resident, before.resident),
               mebibytes(after.anonymous, before.anonymous));
    std::fflush(stdout);
  } catch (const ple::Error& error) {
    fmt::print("{:26}{}\n", name, error.what());
    std::fflush(stdout);
    std::_Exit(error.code() == ple::ErrorCode::not_supported ? 0 : 1);
  }
  std::_Exit(0);
}

void run(examples::Arguments& arguments) {
  const std::filesystem::path folder = arguments.first("FOLDER");
  const auto only = arguments.text("--shape");
  const std::size_t budget = arguments.bytes("--budget").value_or(64 << 20);
  const auto threads = arguments.threads();
  arguments.done();
  for (const Shape& shape : shapes) {
    if (only && *only != shape.name) continue;
    const std::size_t row_bytes = shape.layers * width * sizeof(ple::bf16);
    const auto path = folder / fmt::format("table_{}.bf16", shape.name);
    make_file(path, row_bytes);
    fmt::print("\n{}: {} rows of {:.1f} KiB, {:.2f} GiB; microseconds, medians; MiB the process grew by\n", shape.name,
               vocabulary, static_cast<double>(row_bytes) / 1024,
               static_cast<double>(vocabulary * row_bytes) / 1073741824);
    fmt::print("{:26}{:>40}{:>40}{:>20}\n", "", "1 token        ", "512 tokens       ", "memory    ");
    fmt::print("{:26}", "");
    for (int i = 0; i < 2; ++i) fmt::print("{:>20}{:>20}", "uniform  ", "Zipf   ");
    fmt::print("\n{:26}", "");
    for (int i = 0; i < 4; ++i) fmt::print("{:>10}{:>10}", "cold", "warm");
    fmt::print("{:>10}{:>10}\n", "resident", "anonymous");
    {
      std::vector<std::byte> rows(std::size_t{1} << 30, std::byte{1});
      const double nothing = std::nan(""), one = measure_copy(rows, row_bytes, 1, 400),
                   many = measure_copy(rows, row_bytes, prompt, 15);
      print_line("memcpy of the rows", {nothing, one, nothing, nothing, nothing, many, nothing, nothing});
      fmt::print("\n");
    }
    measure_storage("resident", path, shape.layers, ple::Resident{}, threads);
    measure_storage("mapped", path, shape.layers, ple::Mapped{}, threads);
    measure_storage("mapped, budget", path, shape.layers, ple::Mapped{.budget = budget}, threads);
    measure_storage("streamed, io_uring", path, shape.layers,
                    ple::Streamed{.budget = budget, .engine = ple::ReadEngine::io_uring}, threads);
    measure_storage("streamed, threads", path, shape.layers,
                    ple::Streamed{.budget = budget, .engine = ple::ReadEngine::threads}, threads);
    measure_storage("streamed, direct", path, shape.layers, ple::Streamed{.budget = budget, .direct = true}, threads);
  }
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
