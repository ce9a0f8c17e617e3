// SPDX-License-Identifier: Apache-2.0
// `--table`, `--budget` and `--direct` of the examples: where the PLE table lives.
#pragma once

#include <ple/table/ple_table.h>

#include <fmt/core.h>

#include <stdexcept>
#include <string>

#include "arguments.h"

namespace examples {

inline ple::TableStorage table_storage(Arguments& arguments) {
  const std::string table = arguments.text("--table").value_or("mapped");
  const auto budget = arguments.text("--budget");
  const bool direct = arguments.flag("--direct");
  std::size_t bytes = 0;
  if (budget) bytes = static_cast<std::size_t>(std::stod(*budget) * 1048576);
  if (direct && table != "streamed") throw std::runtime_error("--direct goes with --table streamed");
  if (budget && table != "streamed" && table != "mapped") {
    throw std::runtime_error("--budget goes with --table streamed or mapped");
  }
  if (table == "mapped") return ple::Mapped{.budget = bytes};
  if (table == "resident") return ple::Resident{};
  if (table == "none") return ple::Pruned{};
  if (table != "streamed") {
    throw std::runtime_error(fmt::format("--table is '{}', expected mapped, resident, streamed or none", table));
  }
  ple::Streamed streamed;
  if (budget) streamed.budget = bytes;
  streamed.direct = direct;
  return streamed;
}

/// On stderr, what a table has read; nothing for one that reads nothing itself.
inline void print_counters(const ple::TableCounters& counters) {
  if (counters.bytes_read == 0) return;
  fmt::print(stderr, "PLE table: {} rows asked for, {} of them hits, {:.1f} MiB read, {} waits\n", counters.rows_asked,
             counters.hits, static_cast<double>(counters.bytes_read) / 1048576, counters.waits);
}

}  // namespace examples
