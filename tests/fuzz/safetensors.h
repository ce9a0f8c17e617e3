// SPDX-License-Identifier: Apache-2.0
// A safetensors file, header and data.
#pragma once

#include "harness.h"
#include "models.h"
#include "ple/formats/safetensors.h"

namespace ple::fuzz {

inline void safetensors(std::string_view data) {
  static const testing::TemporaryFolder folder;
  may_refuse([&] {
    const auto file = SafetensorsFile::open(write_input(folder, "model.safetensors", data));
    for (const TensorInfo& info : file.list()) {
      const Tensor raw = file.raw(info.name);
      touch(raw.data, raw.bytes);
      may_refuse([&] { file.tensor(info.name); });
    }
  });
}

inline std::vector<std::string> safetensors_seeds() {
  return {
      testing::safetensors("{}", ""),
      testing::safetensors(
          R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
          R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[24,30]},"c":{"dtype":"U8","shape":[],"data_offsets":[30,31]}})",
          std::string(31, 'x')),
      testing::safetensors(R"({"q":{"dtype":"I4","shape":[4],"data_offsets":[0,2]}})", "ab")};
}

}  // namespace ple::fuzz
