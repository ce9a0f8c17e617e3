// SPDX-License-Identifier: Apache-2.0
// `--table`, `--budget` and `--direct` of the examples: where the PLE table lives.
#pragma once

#include <ple/table/streamed.h>
#include <ple/table/table_storage.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>

#include "arguments.h"

namespace examples {

/// As `--table` spells it. `budget` is for streamed and mapped, `direct` for streamed.
inline ple::TableStorage storage_of_name(const std::string& name, std::optional<std::size_t> budget = {},
                                         bool direct = false) {
  const bool mapped = name == "mapped", streamed = name == "streamed";
  if (!mapped && !streamed && name != "resident" && name != "none") {
    refuse("where the PLE table lives is '", name, "', expected mapped, resident, streamed or none");
  }
  if (budget && !mapped && !streamed) refuse("--budget goes with --table streamed or mapped");
  if (direct && !streamed) refuse("--direct goes with --table streamed");
  if (mapped) return ple::Mapped{.budget = budget.value_or(0)};
  if (streamed) return ple::Streamed{.budget = budget.value_or(ple::Streamed{}.budget), .direct = direct};
  if (name == "resident") return ple::Resident{};
  return ple::Pruned{};
}

inline ple::TableStorage table_storage(Arguments& arguments) {
  const std::string name = arguments.text("--table").value_or("mapped");
  std::error_code error;
  if (std::filesystem::is_regular_file(name, error)) {
    refuse("--table says where the PLE table lives; to take it from a file: --table-file ", name);
  }
  const auto budget = arguments.bytes("--budget");
  return storage_of_name(name, budget, arguments.flag("--direct"));
}

}  // namespace examples
