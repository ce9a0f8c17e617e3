// SPDX-License-Identifier: Apache-2.0
// What an adapter changes, as text.
#pragma once

#include <ple/checkpoint/peft_adapter.h>
#include <ple/core/file.h>
#include <ple/formats/json_field.h>
#include <ple/model/parameter.h>

#include "inspect_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace examples {

inline bool is_adapter(const std::filesystem::path& folder) { return ple::file_exists(folder / "adapter_config.json"); }

/// "0-3, 7"
inline std::string layers_text(const std::set<std::size_t>& layers) {
  std::string text;
  for (auto l = layers.begin(); l != layers.end();) {
    const std::size_t first = *l;
    std::size_t last = first;
    while (++l != layers.end() && *l == last + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ", ", first);
    if (last > first) text += fmt::format("-{}", last);
  }
  return text;
}

/// "4", or "2 to 5"
template <class Number>
std::string range_text(const std::set<Number>& values) {
  const Number least = *values.begin(), most = *values.rbegin();
  return least == most ? fmt::format("{:.4g}", double(least))
                       : fmt::format("{:.4g} to {:.4g}", double(least), double(most));
}

inline void print_adapter(const std::string& folder) {
  const ple::Adapter adapter = ple::open_peft_adapter(folder);
  const std::filesystem::path config = std::filesystem::path(folder) / "adapter_config.json";
  const ple::Json json = ple::read_json_file(config);
  const std::string base = ple::JsonField(json, config.string()).text("base_model_name_or_path", "not said");
  const ple::TrainedRows& rows = adapter.rows();
  const bool has_parts = !adapter.parts().empty();
  fmt::print("{}: {}, an adapter\nfor the model {}\n", folder,
             !has_parts     ? "rows of a PLE table"
             : rows.empty() ? "LoRA"
                            : "LoRA and rows of a PLE table",
             base);

  struct Kind {
    std::set<std::size_t> layers, ranks;
    std::set<float> scales;
    std::uint64_t matrices = 0, parameters = 0;
  };
  std::map<ple::Parameter, Kind> kinds;
  std::uint64_t parameters = rows.values.size();
  for (const ple::Adapter::Part& part : adapter.parts()) {
    Kind& kind = kinds[part.parameter];
    const std::uint64_t count = part.a.size() + part.b.size();
    kind.layers.insert(part.layer);
    kind.ranks.insert(part.rank);
    kind.scales.insert(part.scale);
    kind.parameters += count;
    parameters += count;
    ++kind.matrices;
  }
  if (has_parts) {
    fmt::print("\nMATRICES\n  {:<28}{:>9}{:>10}{:>16}{:>12}   {}\n", "kind", "number", "rank", "alpha / rank",
               "parameters", "layers");
  }
  for (const auto& [parameter, kind] : kinds) {
    std::string name(ple::role_of(parameter).hf);
    name.resize(name.size() - std::string(".weight").size());
    fmt::print("  {:<28}{:>9}{:>10}{:>16}{:>12}   {}\n", name, kind.matrices, range_text(kind.ranks),
               range_text(kind.scales), parameters_text(kind.parameters),
               ple::is_of_layer(parameter) ? layers_text(kind.layers) : "of the model");
  }
  if (!rows.empty()) {
    fmt::print("\nROWS of the PLE table\n  {:<28}{:>9}   tokens {} to {}\n  {:<28}{:>9}   each, {} in f32\n", "rows",
               rows.ids.size(), rows.ids.front(), rows.ids.back(), "values", rows.width,
               bytes_text(rows.width * sizeof(float)));
    fmt::print("  {:<28}{:>9}\n", "together", bytes_text(rows.values.size() * sizeof(float)));
  }
  fmt::print("\n  {:<28}{:>9}   {} of memory in f32, once for all sessions that use it\n", "parameters",
             parameters_text(parameters), bytes_text(parameters * sizeof(float)));
}

}  // namespace examples
