// SPDX-License-Identifier: Apache-2.0
// model.safetensors.index.json next to two shards.
#pragma once

#include "harness.h"
#include "models.h"
#include "ple/formats/safetensors_folder.h"

namespace ple::fuzz {

inline void safetensors_index(std::string_view data) {
  static const testing::TemporaryFolder* const folder = [] {
    auto* made = new testing::TemporaryFolder;
    const auto shard = [](const std::string& name) {
      return testing::safetensors("{\"" + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234");
    };
    write_input(*made, "1.safetensors", shard("a"));
    write_input(*made, "2.safetensors", shard("b"));
    return made;
  }();
  may_refuse([&] {
    write_input(*folder, "model.safetensors.index.json", data);
    for (const auto& [name, file] : open_safetensors(*folder / ".")) {
      const Tensor tensor = file->tensor(name);
      touch(tensor.data, tensor.bytes);
    }
  });
}

inline std::vector<std::string> safetensors_index_seeds() {
  return {R"({"metadata":{"total_size":8},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})",
          R"({"weight_map":{}})"};
}

}  // namespace ple::fuzz
