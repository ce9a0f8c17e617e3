// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/json_text.h"
#include "ple/tensor/tensor.h"

namespace ple::inline PLE_ABI {

/// The header of a new safetensors file, padded so that the data begin on a page.
class SafetensorsHeader {
 public:
  void metadata(const std::string& name, const std::string& value) {
    metadata_ += (metadata_.empty() ? "" : ",") + detail::json_string(name) + ":" + detail::json_string(value);
  }
  /// Tensors lie in the file in the order of these calls.
  void tensor(const std::string& name, std::string_view dtype, const std::vector<std::uint64_t>& shape,
              std::uint64_t bytes) {
    tensors_ += "," + detail::json_string(name) + ":{\"dtype\":" + detail::json_string(dtype) +
                ",\"shape\":" + shape_text(shape) + ",\"data_offsets\":[" + std::to_string(at_) + "," +
                std::to_string(at_ + bytes) + "]}";
    at_ += bytes;
  }
  std::string bytes() const {
    std::string text = "{\"__metadata__\":{" + metadata_ + "}" + tensors_ + "}";
    text.resize((text.size() + 8 + 4095) / 4096 * 4096 - 8, ' ');
    const std::uint64_t size = text.size();
    std::string length(8, '\0');
    std::memcpy(length.data(), &size, 8);
    return length + text;
  }

 private:
  std::string metadata_, tensors_;
  std::uint64_t at_ = 0;
};

}  // namespace ple::inline PLE_ABI
