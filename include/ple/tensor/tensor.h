// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/mapped_file.h"
#include "ple/dtype/dtype.h"

namespace ple::inline PLE_ABI {

/// A tensor as a file holds it: type and shape known at run time. `data` is aligned for its type (but for that of a PLE
/// table, which is decoded from anywhere), and readable while
/// `owner` lives. A reader of files guarantees that shape, dtype and bytes agree.
struct Tensor {
  std::string file;  ///< for messages
  std::string name;  ///< as the file calls it
  Dtype dtype = Dtype::f32;
  std::vector<std::uint64_t> shape;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::shared_ptr<const void> owner;
  std::shared_ptr<const MappedFile> map = nullptr;  ///< the file it lies in, if it lies in one
  std::uint64_t offset = 0;                         ///< and where
};

/// "[262144, 1536]"
inline std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace ple::inline PLE_ABI
