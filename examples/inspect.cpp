// SPDX-License-Identifier: Apache-2.0
// What a model is made of and what it costs, without loading it: parameters, bytes, memory. Or what an adapter changes.
#include <ple/checkpoint/packed_table.h>
#include <ple/convert/inspect.h>

#include "arguments.h"
#include "inspect_adapter.h"
#include "inspect_html.h"
#include "inspect_report.h"
#include "kv_cache.h"
#include "output.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

const std::string usage =
    "usage: inspect MODEL [options]\n"
    "\n"
    "  MODEL          a Hugging Face folder: config.json, and the headers of its safetensors if it has any (weights\n"
    "                 are not read); or a published model, whose shapes are built in:\n"
    "                 " +
    ple::published_models() +
    ";\n"
    "                 or the folder of an adapter, whose rank, matrices and rows are shown; it has no options\n"
    "  --table-file FILE  the types and ranks of a PLE table that `pack` wrote, too\n"
    "  --context N    positions for the cache of keys and values (default 4096, or the model's longest)\n"
    "  --kv TYPE      what keys and values are kept in: f32 (default), bf16, f16, q8_0\n"
    "  --html FILE    the same as one self-contained page\n";

namespace {

using examples::bytes_text;
using examples::parameters_text;
using examples::Report;

std::string dtypes_text(const examples::Share& share) {
  std::string text;
  for (const auto& [dtype, bytes] : share.by_dtype) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", dtype, bytes_text(bytes));
  }
  return text;
}

void print_parameters(const Report& report) {
  fmt::print("\nPARAMETERS\n  {:<18}{:>12}{:>9}{:>13}   {}\n", "group", "parameters", "share", "bytes", "stored as");
  const auto total = static_cast<double>(report.groups.total());
  std::uint64_t bytes = 0;
  for (const examples::Share& group : report.google) {
    bytes += group.bytes;
    if (group.parameters == 0) {
      fmt::print("  {:<18}{:>12}   {}\n", group.name, "-",
                 std::string_view(group.name) == "PLE" ? "the model has none"
                 : report.has_files                    ? "not in the files"
                                                       : "not known without files");
      continue;
    }
    fmt::print("  {:<18}{:>12}{:>8.1f}%{:>13}   {}\n", group.name, parameters_text(group.parameters),
               100 * static_cast<double>(group.parameters) / total, bytes_text(group.bytes), dtypes_text(group));
  }
  fmt::print("  {:<18}{:>12}{:>9}{:>13}\n\n", "total", parameters_text(report.groups.total()), "", bytes_text(bytes));
  for (const examples::Share& part : report.parts) {
    fmt::print("    {:<16}{:>12}{:>8.1f}%{:>13}\n", part.name, parameters_text(part.parameters),
               100 * static_cast<double>(part.parameters) / total, bytes_text(part.bytes));
  }
  if (report.unused > 0) {
    fmt::print(
        "\n  {} of the text are K and V of layers that share another layer's: in the published files and\n"
        "  counts, but used by no token.\n",
        parameters_text(report.unused));
  }
  if (report.rest > 0) {
    fmt::print("\n  The files have {} ({}) more, which belong to no part of the model.\n", parameters_text(report.rest),
               bytes_text(report.rest_bytes));
  }
  const auto line = [](std::string_view name, std::uint64_t count, std::string_view definition) {
    fmt::print("  {:<11}{}\n             {}\n", name, examples::exact_text(count), definition);
  };
  fmt::print("\n");
  if (report.has_ple()) line("embeddings", report.groups.embeddings(), "token embedding + PLE table");
  line("effective", report.groups.effective_documentation(), ple::ParameterGroups::documentation_definition);
  if (report.has_ple()) {
    line("effective", report.groups.effective_report(), ple::ParameterGroups::report_definition);
  }
  if (report.groups.experts > 0) {
    line("experts", report.groups.experts, "of the text, in all layers");
    line("active", report.groups.active(), "text with only the experts that one token goes to");
  }
}

void print_reads(const Report& report) {
  const auto& reads = report.reads;
  fmt::print("\nREAD FOR EVERY TOKEN THAT IS WRITTEN\n");
  fmt::print("  {:<18}{:>12}   every weight of the layers once{}\n", "layers", bytes_text(reads.layers),
             report.groups.experts > 0 ? "; of the experts, those that the token goes to" : "");
  fmt::print("  {:<18}{:>12}   [vocabulary, width] once, for the logits\n", "head", bytes_text(reads.head));
  if (report.has_ple()) {
    fmt::print("  {:<18}{:>12}   one row of {} values, of {} the table has\n", "PLE row", bytes_text(reads.table_row),
               report.table_row_values, bytes_text(report.google[3].bytes));
  }
  fmt::print("  {:<18}{:>12}   one row\n", "token embedding", bytes_text(reads.embedding_row));
  fmt::print("  {:<18}{:>12}   memory bandwidth / this = the most tokens per second\n", "weights, together",
             bytes_text(reads.weights()));
  fmt::print("  {:<18}{:>12}   keys and values in {}, by the token at position {}\n", "and of the cache",
             bytes_text(reads.kv_cache), report.kv_dtype, report.kv.context);
}

void print_memory(const Report& report) {
  fmt::print("\nKEYS AND VALUES at a context of {}, {}, read in chunks of up to {} tokens\n", report.kv.context,
             report.kv_dtype, report.chunk);
  fmt::print("  {:<18}{:>12}   a slot for every position\n", "full layers", bytes_text(report.kv.full));
  fmt::print("  {:<18}{:>12}   a ring: the window and one chunk; layers that share take nothing\n", "sliding layers",
             bytes_text(report.kv.sliding));
  fmt::print("  {:<18}{:>12}\n", "together", bytes_text(report.kv.total()));

  fmt::print("\nMEMORY, by where the PLE table lives; weights are mapped pages of their files, all touched\n");
  fmt::print("  {:<14}{:>12}{:>13}{:>13}{:>13}\n", "table", "weights", "table", "K and V", "together");
  for (const examples::Memory& memory : report.memory) {
    fmt::print("  {:<14}{:>12}{:>13}{:>13}{:>13}   {}\n", memory.name, bytes_text(memory.weights),
               bytes_text(memory.table), bytes_text(report.kv.total()),
               bytes_text(memory.weights + memory.table + report.kv.total()), memory.note);
    if (memory.may_grow > 0) {
      fmt::print("  {:<14}{:>12}{:>13}{:>13}{:>13}   every row touched\n", "", bytes_text(memory.weights),
                 bytes_text(memory.may_grow), bytes_text(report.kv.total()),
                 bytes_text(memory.weights + memory.may_grow + report.kv.total()));
    }
  }
}

/// What `pack` wrote for this model.
void print_packed(const ple::PackedTable& table, const std::string& path, const ple::ModelConfig& config) {
  const ple::RowLayout& layout = table.layout;
  const auto [layers, width] =
      std::visit([](const auto& c) { return std::pair(c.num_layers(), c.hidden_size_per_layer_input); }, config);
  if (layout.layers() != layers || layout.width() != width) {
    examples::refuse(path, fmt::format(": rows of {} layers of {} values, expected {} of {}: was it made for another "
                                       "model?",
                                       layout.layers(), layout.width(), layers, width));
  }
  fmt::print("\nPACKED TABLE {}\n  {} rows of {}, {} together{}{}\n", path, table.rows, bytes_text(layout.row_bytes()),
             bytes_text(table.rows * layout.row_bytes()), table.folded ? ", folded" : "",
             table.vocabulary ? ", of a cut-down vocabulary" : "");
  fmt::print("  types: {}\n", layout.text());
  if (const std::size_t ranks = layout.sum_of_ranks()) {
    fmt::print("  ranks: {} (of {}); bases take {}\n", layout.ranks_text(), width,
               bytes_text(ranks * width * sizeof(float)));
  }
}

}  // namespace

int main(int argc, char** argv) {
  return examples::run(usage.c_str(), argc, argv, [](examples::Arguments& arguments) {
    const std::string name = arguments.first("MODEL");
    if (examples::is_adapter(name)) {
      arguments.done();
      return examples::print_adapter(name);
    }
    const auto html_path = arguments.text("--html"), table_file = arguments.text("--table-file");
    const auto found = ple::inspect(name);
    const std::size_t longest = std::visit([](const auto& c) { return c.max_position_embeddings; }, found.config);
    const auto context = arguments.number<std::size_t>("--context", std::min<std::size_t>(4096, longest), 1);
    const ple::Dtype kv_cache_dtype = examples::kv_cache_dtype(arguments);
    arguments.done();
    std::optional<examples::Output> html;
    if (html_path) {
      const std::filesystem::path folder = name;
      html.emplace(*html_path, std::vector{folder / "config.json", folder / "model.safetensors",
                                           folder / "model.safetensors.index.json"});
    }
    std::optional<ple::PackedTable> packed;
    if (table_file) packed = ple::read_packed_table(*table_file);
    const Report report = examples::make_report(found, context, kv_cache_dtype);
    fmt::print("{}: {}\n{}\n", report.name, report.family, report.shape);
    fmt::print("{}\n", report.has_files ? "Counted from the headers of its files; no weight was read."
                                        : "No files: counted from the configuration alone, without vision and audio; "
                                          "bytes are those of bf16, as published.");
    print_parameters(report);
    print_reads(report);
    print_memory(report);
    if (packed) print_packed(*packed, *table_file, found.config);
    if (!html) return;
    html->write(examples::html_page(report));
    fmt::print("\nwrote {}\n", html->path());
  });
}
