// SPDX-License-Identifier: Apache-2.0
// `--table`, `--budget` and `--direct` of the examples: where the PLE table lives.
#pragma once

#include <ple/table/streamed.h>
#include <ple/table/table_storage.h>

#include <fmt/core.h>

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>

#include "arguments.h"

namespace examples {

/// As `--table` spells it. `budget` is for streamed and mapped, `direct` for streamed.
inline ple::TableStorage storage_of_name(const std::string& name, std::optional<std::size_t> budget = {},
                                         bool direct = false) {
  if (budget && name != "mapped" && name != "streamed") {
    throw std::runtime_error("--budget goes with --table streamed or mapped");
  }
  if (direct && name != "streamed") throw std::runtime_error("--direct goes with --table streamed");
  if (name == "mapped") return ple::Mapped{.budget = budget.value_or(0)};
  if (name == "resident") return ple::Resident{};
  if (name == "streamed") return ple::Streamed{.budget = budget.value_or(ple::Streamed{}.budget), .direct = direct};
  if (name == "none") return ple::Pruned{};
  throw std::runtime_error(fmt::format("a table is '{}', expected mapped, resident, streamed or none", name));
}

inline ple::TableStorage table_storage(Arguments& arguments) {
  const std::string name = arguments.text("--table").value_or("mapped");
  std::optional<std::size_t> budget;
  if (const auto mib = arguments.text("--budget")) budget = static_cast<std::size_t>(std::stod(*mib) * 1048576);
  return storage_of_name(name, budget, arguments.flag("--direct"));
}

/// On stderr, what a table has read; nothing for one that reads nothing itself.
inline void print_counters(const ple::TableCounters& counters) {
  if (counters.bytes_read == 0) return;
  fmt::print(stderr, "PLE table: {} rows asked for, {} of them hits, {:.1f} MiB read, {} waits\n", counters.rows_asked,
             counters.hits, static_cast<double>(counters.bytes_read) / 1048576, counters.waits);
}

}  // namespace examples
