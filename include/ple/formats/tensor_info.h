// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

/// A tensor as a file's header describes it.
struct TensorInfo {
  std::string name;
  std::string dtype;                 ///< as the format spells it: "BF16"
  std::vector<std::uint64_t> shape;  ///< row-major: a matrix is [rows, columns]
  std::uint64_t offset = 0;          ///< bytes from the start of the file
  std::uint64_t bytes = 0;
};

}  // namespace ple::inline PLE_ABI
