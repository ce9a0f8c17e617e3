// SPDX-License-Identifier: Apache-2.0
// `--table`, `--budget` and `--direct` of the examples: where the PLE table lives.
#pragma once

#include <ple/table/ple_table.h>

#include <fmt/core.h>

#include <stdexcept>
#include <string>

#include "arguments.h"

namespace examples {

/// As `--table` spells it.
inline ple::TableStorage storage_of_name(const std::string& name) {
  if (name == "mapped") return ple::Mapped{};
  if (name == "resident") return ple::Resident{};
  if (name == "streamed") return ple::Streamed{};
  if (name == "none") return ple::Pruned{};
  throw std::runtime_error(fmt::format("a table is '{}', expected mapped, resident, streamed or none", name));
}

inline ple::TableStorage table_storage(Arguments& arguments) {
  ple::TableStorage storage = storage_of_name(arguments.text("--table").value_or("mapped"));
  auto* mapped = std::get_if<ple::Mapped>(&storage);
  auto* streamed = std::get_if<ple::Streamed>(&storage);
  if (const auto budget = arguments.text("--budget")) {
    if (!mapped && !streamed) throw std::runtime_error("--budget goes with --table streamed or mapped");
    (mapped ? mapped->budget : streamed->budget) = static_cast<std::size_t>(std::stod(*budget) * 1048576);
  }
  if (arguments.flag("--direct")) {
    if (!streamed) throw std::runtime_error("--direct goes with --table streamed");
    streamed->direct = true;
  }
  return storage;
}

/// On stderr, what a table has read; nothing for one that reads nothing itself.
inline void print_counters(const ple::TableCounters& counters) {
  if (counters.bytes_read == 0) return;
  fmt::print(stderr, "PLE table: {} rows asked for, {} of them hits, {:.1f} MiB read, {} waits\n", counters.rows_asked,
             counters.hits, static_cast<double>(counters.bytes_read) / 1048576, counters.waits);
}

}  // namespace examples
