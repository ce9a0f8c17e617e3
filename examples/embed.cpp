// SPDX-License-Identifier: Apache-2.0
// Vectors of the lines of a file, and the lines nearest to a question.

#include <ple/checkpoint/hf_folder.h>
#include <ple/core/checked_writer.h>
#include <ple/family/embedding_gemma2/block.h>
#include <ple/run/embedder.h>

#include <fmt/core.h>

#include "arguments.h"
#include "progress.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <iostream>
#include <numeric>

constexpr const char* usage =
    "usage: embed MODEL FILE [options]\n"
    "\n"
    "Makes a vector of each line of FILE, as a document that may answer a question. Then prints the lines nearest to\n"
    "each question, nearest first: the cosine of the two vectors, the line's number, the line. Questions come from\n"
    "--query; without it, and without --out, from the lines of standard input.\n"
    "\n"
    "  MODEL          a Hugging Face folder of EmbeddingGemma 2\n"
    "  --query TEXT   a question\n"
    "  --top N        lines for each question (default: 5)\n"
    "  --size N       keep the first N numbers of a vector (default: all, 768; trained are also 512, 256 and 128)\n"
    "  --out FILE     write the lines' vectors: for NumPy if FILE ends in .npy, else as little-endian f32\n"
    "  --threads N    (default: all)\n";

namespace {

static_assert(std::endian::native == std::endian::little, "--out writes f32 as it is in memory");

std::vector<std::string> read_lines(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (line.ends_with('\r')) line.pop_back();
    lines.push_back(line);
  }
  if (!file.eof()) examples::refuse(path, ": cannot read");
  if (lines.empty()) examples::refuse(path, ": has no lines");
  return lines;
}

/// The beginning of a .npy file, version 1.0: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
std::string npy_header(std::size_t rows, std::size_t cols) {
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  constexpr std::size_t before = 10, multiple = 64;
  header.append(multiple - 1 - (before + header.size()) % multiple, ' ').push_back('\n');
  const auto size = static_cast<unsigned>(header.size());
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(size % 256) + static_cast<char>(size / 256) + header;
}

struct Options {
  std::string file;
  std::optional<std::string> query, out;
  std::size_t top, size, threads;
};

/// The lines and their vectors: [lines, size].
struct Documents {
  std::vector<std::string> lines;
  std::vector<float> memory;
  ple::Rows vectors;

  void write(const std::string& path, std::span<const ple::FileIdentity> inputs) const {
    ple::CheckedWriter out(path, inputs);
    if (path.ends_with(".npy")) {
      const std::string header = npy_header(vectors.rows, vectors.cols);
      out.write(header.data(), header.size());
    }
    out.write(memory.data(), memory.size() * sizeof(float));
    out.finish({});
    fmt::print(stderr, "{}: {} vectors of {} numbers\n", path, vectors.rows, vectors.cols);
  }

  /// Of the `top` nearest lines.
  void print_nearest(std::span<const float> query, std::size_t top) const {
    std::vector<float> cosines(lines.size());
    for (std::size_t i = 0; i < lines.size(); ++i)
      cosines[i] = std::inner_product(query.begin(), query.end(), vectors.row(i), 0.0f);
    std::vector<std::size_t> order(lines.size());
    std::iota(order.begin(), order.end(), 0);
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(top, order.size()));
    std::partial_sort(order.begin(), end, order.end(), [&](std::size_t a, std::size_t b) {
      return cosines[a] != cosines[b] ? cosines[a] > cosines[b] : a < b;
    });
    for (auto i = order.begin(); i != end; ++i) fmt::print("{:7.4f} {:>6}  {}\n", cosines[*i], *i + 1, lines[*i]);
  }
};

void embed(const ple::HfFolder& folder, const Options& options, std::span<const ple::FileIdentity> inputs) {
  const auto model = ple::EmbeddingGemma2<>::load(folder);
  const ple::Embedder embedder(model, folder, {.size = options.size, .threads = options.threads});

  Documents documents{read_lines(options.file), {}, {}};
  documents.memory.resize(documents.lines.size() * embedder.size());
  documents.vectors = {documents.memory.data(), documents.lines.size(), embedder.size(), embedder.size()};
  try {
    embedder.documents(
        documents.lines, documents.vectors,
        [progress = examples::Progress()](auto done, auto total) mutable { return progress("lines", done, total); });
  } catch (const ple::Error& error) {  // names the line
    examples::refuse(options.file, ": ", error.what());
  }
  if (options.out) documents.write(*options.out, inputs);
  const auto answer = [&](const std::string& query) {
    documents.print_nearest(embedder.query(query), options.top);
    std::fflush(stdout);
  };
  if (options.query) return answer(*options.query);
  if (options.out) return;
  for (std::string query; std::getline(std::cin, query);) {
    answer(query);
    fmt::print("\n");
  }
}

void run(examples::Arguments& arguments) {
  const std::string path = arguments.first("MODEL");
  Options options;
  options.query = arguments.text("--query");
  options.out = arguments.text("--out");
  options.top = arguments.number<std::size_t>("--top", 5, 1);
  options.size = arguments.number<std::size_t>("--size", 0, 1);
  options.threads = arguments.threads();
  options.file = arguments.first("FILE");
  arguments.done();

  const ple::HfFolder folder(path);
  std::vector<std::filesystem::path> read = folder.files();
  read.emplace_back(options.file);
  const std::vector<ple::FileIdentity> inputs = ple::identities_of(read);
  if (options.out) ple::check_output_path(*options.out, inputs);
  embed(folder, options, inputs);
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
