// SPDX-License-Identifier: Apache-2.0
// Writes a model as a GGUF file, with its matrices in fewer bits.
#include <ple/convert/gguf_export.h>
#include <ple/convert/gguf_requantize.h>
#include <ple/convert/gguf_tokenizer_keys.h>
#include <ple/core/thread_pool.h>

#include <fmt/core.h>

#include "arguments.h"
#include "progress.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

const std::string usage =
    "usage: quantize MODEL OUT.gguf [options]\n"
    "\n"
    "  MODEL                a Hugging Face folder of a Gemma 4 model, or a GGUF file of any family: its keys and the\n"
    "                       tensors that ple does not know are copied\n"
    "  OUT.gguf             the file to write; `generate OUT.gguf` and llama.cpp read it\n"
    "  --type TYPE          of the matrices of attention and feed-forward (default: q4_0)\n"
    "  --attention TYPE, --feed-forward TYPE\n"
    "                       of one of them\n"
    "  --embedding TYPE     of the token embedding, and of a head of its own (default: q6_k)\n"
    "  --table TYPE         of the PLE table (default: q6_k)\n"
    "  --ple TYPE           of the PLE projections (default: q8_0)\n"
    "  --all TYPE           of all matrices: the default of everything above\n"
    "  --tensor NAME=TYPE   of one tensor, by its name in the file: blk.0.ffn_down.weight=q8_0; may be repeated\n"
    "  --fallback TYPE      where rows are no whole blocks of a type (default: q8_0; bf16 where not of that either)\n"
    "  --threads N          (default: all)\n"
    "  TYPE is one of " +
    ple::names_of_dtypes(true) + "\n";

namespace {

ple::Dtype type_of_name(const std::string& option, const std::string& name) {
  const auto type = ple::dtype_of_name(name);
  if (!type || !ple::is_encodable(*type)) {
    throw std::runtime_error(fmt::format("{}: '{}' is no type that can be written, expected one of {}", option, name,
                                         ple::names_of_dtypes(true)));
  }
  return *type;
}

ple::GgufTypes read_types(examples::Arguments& arguments) {
  ple::GgufTypes types;
  const auto read = [&](const char* option, std::initializer_list<ple::Dtype*> which) {
    if (const auto name = arguments.text(option)) {
      for (ple::Dtype* type : which) *type = type_of_name(option, *name);
    }
  };
  read("--all",
       {&types.attention, &types.feed_forward, &types.token_embedding, &types.ple_table, &types.ple_projections});
  read("--type", {&types.attention, &types.feed_forward});
  read("--attention", {&types.attention});
  read("--feed-forward", {&types.feed_forward});
  read("--embedding", {&types.token_embedding});
  read("--table", {&types.ple_table});
  read("--ple", {&types.ple_projections});
  read("--fallback", {&types.fallback});
  return types;
}

/// One NAME=TYPE of `--tensor`.
void change_type(std::vector<ple::GgufPlanEntry>& plan, const std::string& change) {
  const std::size_t equals = change.find('=');
  if (equals == std::string::npos) throw std::runtime_error(fmt::format("--tensor: '{}' is no NAME=TYPE", change));
  const std::string name = change.substr(0, equals);
  const auto found =
      std::find_if(plan.begin(), plan.end(), [&](const auto& entry) { return entry.tensor.name == name; });
  if (found == plan.end()) throw std::runtime_error(fmt::format("--tensor: the model has no '{}'", name));
  found->tensor.dtype = found->wanted = type_of_name("--tensor", change.substr(equals + 1));
}

/// Says which tensors got another type than was asked for; once for all layers.
void print_fallbacks(const std::vector<ple::GgufPlanEntry>& plan) {
  std::map<std::pair<ple::Dtype, ple::Dtype>, std::set<std::string_view>> changed;
  for (const ple::GgufPlanEntry& entry : plan) {
    if (entry.tensor.dtype != entry.wanted) {
      changed[{entry.wanted, entry.tensor.dtype}].insert(ple::role_of(*entry.parameter).gguf);
    }
  }
  for (const auto& [types, names] : changed) {
    fmt::print(stderr, "rows are no whole blocks of {}, which have {} values: {} instead, for",
               ple::name_of(types.first), ple::values_per_block(types.first), ple::name_of(types.second));
    for (const std::string_view name : names) fmt::print(stderr, " {}", name);
    fmt::print(stderr, "\n");
  }
}

const char* group_of(const ple::GgufPlanEntry& entry) {
  if (entry.tensor.shape.size() == 1) return "norms, scalars";
  if (!entry.parameter) return "other";
  if (entry.parameter == ple::Parameter::router) return "router";
  switch (ple::part_of(*entry.parameter)) {
    case ple::ParameterPart::token_embedding: return "token embedding";
    case ple::ParameterPart::ple_table: return "PLE table";
    case ple::ParameterPart::attention: return "attention";
    case ple::ParameterPart::feed_forward: return "feed-forward";
    case ple::ParameterPart::experts: return "experts";
    case ple::ParameterPart::ple_step: return "PLE projections";
    case ple::ParameterPart::streams: return "streams";
    case ple::ParameterPart::other: break;
  }
  return "head";
}

void print_table(const std::vector<ple::GgufPlanEntry>& plan, const std::vector<ple::StoredSums>& sums) {
  struct Line {
    std::uint64_t values = 0, bytes = 0;
    ple::StoredSums sums;
  };
  std::map<std::pair<std::string, ple::Dtype>, Line> lines;
  Line total;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    for (Line* line : {&lines[{group_of(plan[i]), plan[i].tensor.dtype}], &total}) {
      std::uint64_t values = 1;
      for (const std::uint64_t n : plan[i].tensor.shape) values *= n;
      line->values += values;
      line->bytes += plan[i].tensor.bytes();
      line->sums.squares += sums[i].squares;
      line->sums.squared_errors += sums[i].squared_errors;
    }
  }
  const auto print = [](const std::string& group, std::string_view type, const Line& line) {
    fmt::print("{:16} {:6} {:>14} {:>14} {:>10.2f} {:>11.2e}\n", group, type, line.values, line.bytes,
               8.0 * static_cast<double>(line.bytes) / static_cast<double>(line.values),
               line.sums.squares > 0 ? std::sqrt(line.sums.squared_errors / line.sums.squares) : 0.0);
  };
  fmt::print("{:16} {:6} {:>14} {:>14} {:>10} {:>11}\n", "group", "type", "values", "bytes", "bits/value", "error");
  for (const auto& [key, line] : lines) print(key.first, ple::name_of(key.second), line);
  print("all", "", total);
  fmt::print("error: root mean square of what was stored less the value, relative to that of the values\n");
}

void run(examples::Arguments& arguments) {
  const std::string model = arguments.first("MODEL"), out = arguments.first("OUT.gguf");
  const ple::GgufTypes types = read_types(arguments);
  std::vector<std::string> changes;
  while (const auto change = arguments.text("--tensor")) changes.push_back(*change);
  ple::ThreadPool pool(arguments.threads());
  arguments.done();
  const auto changed = [&](std::vector<ple::GgufPlanEntry> plan) {
    for (const std::string& change : changes) change_type(plan, change);
    print_fallbacks(plan);
    return plan;
  };
  std::vector<ple::GgufPlanEntry> plan;
  std::vector<ple::StoredSums> sums;
  if (!std::filesystem::is_directory(model) && ple::GgufFile::is_one(model)) {
    const auto file = ple::GgufShards::open(model);
    ple::check_output_path(out, ple::identities_of(file.paths()));
    plan = changed(ple::plan_requantized(file, types));
    sums = ple::write_requantized(file, plan, out, pool, examples::Progress());
  } else {
    const auto checkpoint = ple::Checkpoint::open(model);
    ple::check_output_path(out, ple::identities_of(checkpoint.files()));
    plan = changed(ple::plan_gguf(checkpoint, types));
    ple::GgufKeys tokenizer;
    if (std::filesystem::exists(checkpoint.tokenizer_file())) {
      tokenizer =
          ple::gguf_tokenizer_keys(checkpoint.tokenizer_file(), checkpoint.config<ple::Gemma4Config>().vocab_size);
    } else {
      fmt::print(stderr, "{}: is not there: the file will be without a tokenizer\n",
                 checkpoint.tokenizer_file().string());
    }
    sums = ple::write_gguf(checkpoint, tokenizer, plan, out, pool, examples::Progress());
  }
  print_table(plan, sums);
  fmt::print("{}: {} bytes\n", out, std::filesystem::file_size(out));
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage.c_str(), argc, argv, run); }
