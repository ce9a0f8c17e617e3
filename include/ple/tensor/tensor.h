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

/// A tensor of a file; type and shape are known at run time. `data` is readable while `owner` lives, and aligned for
/// its type, except a PLE table's, which is decoded from any address. File readers make shape, dtype and bytes agree.
struct Tensor {
  std::string file;  ///< for messages
  std::string name;  ///< as the file calls it
  Dtype dtype = Dtype::f32;
  std::vector<std::uint64_t> shape;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::shared_ptr<const void> owner;
  std::shared_ptr<const MappedFile> map = nullptr;  ///< the file that holds it, if one does
  std::uint64_t offset = 0;                         ///< the place in that file, in bytes
};

/// "[262144, 1536]"
inline std::string shape_text(const std::vector<std::uint64_t>& shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace ple::inline PLE_ABI
