// SPDX-License-Identifier: Apache-2.0
// A PLE table need not be keyed by single tokens. Here a model writes stories, the program counts which token followed
// each pair and each triple of tokens, and keeps the counts in the rows of a table that are the hashes of those 2- and
// 3-grams. Then the table continues a text by itself, read from disk row by row: it is larger than the memory it may
// use.
#include <ple/models.h>

#include <fmt/core.h>

#include "arguments.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <unordered_map>

constexpr const char* usage =
    "usage: ngrams MODEL [options]\n"
    "\n"
    "  MODEL          a Hugging Face folder: examples/models/storyteller\n"
    "  --prompt TEXT  what the table continues (default: \"Once upon a time there was a fox\")\n"
    "  --learn N      tokens that the model writes for the table to count (default: 20000)\n"
    "  --rows N       of the table (default: 131072)\n"
    "  --budget KIB   of rows kept in memory (default: 1024); or with a unit: 4MiB\n"
    "  --file FILE    where the table is written (default: ngrams.table, removed at the end)\n"
    "  --max-tokens N (default: 60)\n";

namespace {

/// Stories by the model that begin with the same words, one behind the other, and a progress line.
std::vector<ple::Token> write_stories(const ple::LanguageModel& model, std::span<const ple::Token> begin,
                                      const std::vector<ple::Token>& stop, std::size_t count) {
  std::vector<ple::Token> tokens;
  ple::Session session(model, {.context = 512});
  for (std::uint64_t story = 0; tokens.size() < count; ++story) {
    session.reset();
    session.read(begin);
    tokens.insert(tokens.end(), begin.begin(), begin.end());
    ple::Generation generation(session, {.sampling = {.temperature = 1, .seed = story}, .stop_tokens = stop});
    while (const auto token = generation.next()) tokens.push_back(*token);
    if (story % 16 == 0) fmt::print(stderr, "\rthe model writes: {} of {} tokens ", tokens.size(), count);
  }
  fmt::print(stderr, "\r{:60}\r", "");
  return tokens;
}

/// A file of rows [rows, vocabulary] in f16: in the row of an n-gram, log(1 + how often each token followed it). A
/// 3-gram that was seen says more than its 2-gram and counts four times as much. Returns the rows that are not empty.
std::size_t write_table(const std::string& path, std::span<const ple::Token> text, const ple::RowKeys& keys,
                        std::uint64_t rows, std::size_t vocabulary) {
  std::unordered_map<ple::RowId, std::vector<float>> counts;
  std::vector<ple::RowId> ids(keys.per_token);
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    const std::size_t begin = i - std::min(i, keys.history);
    keys.ids(text.subspan(begin, i + 1 - begin), ids);
    for (const ple::RowId id : ids) {
      auto& row = counts[id];
      row.resize(vocabulary);
      ++row[static_cast<std::size_t>(text[i + 1])];
    }
  }
  ple::OutputFile(path, path);  // refuses a file that has come meanwhile
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  std::vector<ple::f16> stored(vocabulary);
  for (const auto& [id, row] : counts) {
    const float weight = id >= rows / 2 ? 4 : 1;
    for (std::size_t i = 0; i < vocabulary; ++i) stored[i] = ple::to_f16(weight * std::log1p(row[i]));
    file.seekp(static_cast<std::streamoff>(id * vocabulary * sizeof(ple::f16)));
    file.write(reinterpret_cast<const char*>(stored.data()),
               static_cast<std::streamsize>(vocabulary * sizeof(ple::f16)));
  }
  file.close();
  if (!file) throw std::runtime_error(fmt::format("{}: cannot write", path));
  std::filesystem::resize_file(path, rows * vocabulary * sizeof(ple::f16));
  return counts.size();
}

ple::TableSource open_table(const std::string& path, std::uint64_t rows, std::size_t vocabulary) {
  const auto map = ple::MappedFile::open(path);
  const ple::Tensor tensor{
      path, "counts", ple::Dtype::f16, {rows, vocabulary}, map->bytes().data(), map->bytes().size(), map, map};
  return {.tensor = tensor, .layout = ple::RowLayout(1, vocabulary, ple::Dtype::f16), .rows = rows};
}

void run(examples::Arguments& arguments) {
  const auto checkpoint = ple::Checkpoint::open(arguments.first("MODEL"));
  const std::string prompt = arguments.text("--prompt").value_or("Once upon a time there was a fox");
  const std::string path = arguments.text("--file").value_or("ngrams.table");
  const auto learn = arguments.number<std::size_t>("--learn", 20000, 1, 1u << 30);
  const auto rows = arguments.number<std::uint64_t>("--rows", 131072, 2, std::uint64_t{1} << 32);
  const auto budget = arguments.bytes("--budget", 1024).value_or(1 << 20);
  const auto max_tokens = arguments.number<std::size_t>("--max-tokens", 60);
  arguments.done();
  if (rows % 2 != 0) examples::refuse("--rows: ", std::to_string(rows), " is odd, and half of them are for each n");

  ple::check_output_path(path);
  if (ple::file_exists(path))
    examples::refuse(path, ": is there already, expected a new file: it is removed at the end");
  const auto model = ple::Gemma4<>::load(checkpoint);
  const auto tokenizer = ple::open_tokenizer(checkpoint);
  const std::size_t vocabulary = model.vocab_size();
  const ple::RowKeys keys = ple::hashed_ngrams(3, rows);
  std::vector<ple::Token> text = tokenizer.encode(prompt);
  const auto stories = write_stories(model, text, checkpoint.stop_tokens(), learn);
  const std::size_t used = write_table(path, stories, keys, rows, vocabulary);

  ple::PleTable<ple::f16, ple::DefaultBackend> table(rows, 1, vocabulary);
  table.load(open_table(path, rows, vocabulary), ple::Streamed{.budget = budget});
  table.set_keys(keys);
  std::filesystem::remove(path);  // the open file stays readable

  ple::InlineExecutor executor;
  ple::RowSelection selection = table.make_selection(1);
  ple::Sampler sampler({.temperature = 1.0f, .top_k = 3, .seed = 1}, vocabulary);
  std::vector<float> scores(vocabulary);
  ple::StreamDecoder decoder(tokenizer);
  fmt::print("{}", prompt);
  for (std::size_t i = 0; i < max_tokens; ++i) {
    table.select(text, 1, 0, selection);  // the last token, after what came before it
    table.gather(executor, selection, 0, 0, 1, {scores.data(), 1, vocabulary, vocabulary});
    if (*std::max_element(scores.begin(), scores.end()) == 0) break;  // the model never wrote these two tokens
    for (float& score : scores) {
      if (score == 0) score = -std::numeric_limits<float>::infinity();  // what never followed is not drawn
    }
    text.push_back(sampler.sample(scores));
    fmt::print("{}", decoder.push(text.back()));
  }
  const ple::TableCounters counters = table.counters();
  fmt::print("{}\n", decoder.finish());
  fmt::print(stderr,
             "\ntable: {} rows of {} bytes, {:.0f} MiB, {} of them used; budget: {} KiB\n"
             "rows asked for: {}, hits: {}, read: {:.0f} KiB\n",
             rows, table.layout().row_bytes(), static_cast<double>(rows * table.layout().row_bytes()) / 1048576, used,
             budget >> 10, counters.rows_asked, counters.hits, static_cast<double>(counters.bytes_read) / 1024);
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
