// SPDX-License-Identifier: Apache-2.0
// What the tests of adapters share: the golden ones, and what sessions compute with them.
#pragma once

#include "../chosen_backend.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/checkpoint/load_model.h"
#include "ple/checkpoint/peft_adapter.h"
#include "ple/formats/safetensors.h"
#include "ple/run/session.h"

namespace ple::adapter_cases {

inline const std::filesystem::path data = PLE_TEST_DATA, adapters = data / "golden_adapters";

inline std::shared_ptr<const Adapter> open(const std::filesystem::path& folder) {
  return std::make_shared<const Adapter>(open_peft_adapter(folder));
}

inline std::vector<float> floats(const std::filesystem::path& file, const std::string& name) {
  const Tensor tensor = SafetensorsFile::open(file).tensor(name);
  const auto* values = reinterpret_cast<const float*>(tensor.data);
  return {values, values + tensor.bytes / sizeof(float)};
}

inline std::filesystem::path base_of(const std::filesystem::path& folder) {
  const Json config = read_json_file(folder / "adapter_config.json");
  return folder.parent_path() / std::string(config.find("base_model_name_or_path")->text());
}

inline std::vector<Token> tokens_of(const std::filesystem::path& base) {
  const std::vector<float> values = floats(base / "expected.safetensors", "tokens");
  return {values.begin(), values.end()};
}

inline std::vector<float> all_logits(const LanguageModel& model, std::span<const Token> tokens,
                                     SessionOptions options) {
  options.context = tokens.size();
  Session session(model, options);
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

inline float largest_difference(std::span<const float> a, std::span<const float> b) {
  REQUIRE(a.size() == b.size());
  float most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::isnan(a[i]) ? INFINITY : std::max(most, std::abs(a[i] - b[i]));
  return most;
}

/// As golden_test: 1e-4 of the range of the logits.
inline float tolerance(std::span<const float> logits) {
  const auto [least, most] = std::minmax_element(logits.begin(), logits.end());
  return 1e-4f * (*most - *least);
}

struct E2b {
  Checkpoint checkpoint = Checkpoint::open(data / "golden" / "e2b_like");
  std::unique_ptr<LanguageModel> model = load_model<Any, testing::ChosenBackend>(checkpoint);
  std::vector<Token> tokens = tokens_of(data / "golden" / "e2b_like");
  std::shared_ptr<const Adapter> first = open(adapters / "e2b_all_linear"), second = open(adapters / "e2b_second");
};

/// A copy of an adapter's folder, to change.
class Copy {
 public:
  explicit Copy(const std::string& name) {
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
      std::filesystem::copy_file(adapters / name / file, folder_ / file);
    }
  }
  std::filesystem::path path() const { return folder_ / ""; }

  /// Replaces `from` by `to` in a file: of the same length in the one with tensors.
  void replace(const std::string& file, const std::string& from, const std::string& to) const {
    std::stringstream all;
    all << std::ifstream(folder_ / file, std::ios::binary).rdbuf();
    std::string text = all.str();
    std::size_t count = 0;
    for (std::size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size(), ++count) {
      text.replace(at, from.size(), to);
    }
    REQUIRE(count > 0);
    std::ofstream(folder_ / file, std::ios::binary) << text;
  }
  void config(const std::string& from, const std::string& to) const { replace("adapter_config.json", from, to); }
  void tensors(const std::string& from, const std::string& to) const {
    REQUIRE(from.size() == to.size());
    replace("adapter_model.safetensors", from, to);
  }
  std::filesystem::path operator/(const std::string& name) const { return folder_ / name; }

  /// What opening it says.
  void check_error(ErrorCode code, const std::string& part) const {
    CAPTURE(part);
    std::string message = "no error";
    try {
      open_peft_adapter(path());
    } catch (const Error& error) {
      CHECK(error.code() == code);
      message = error.what();
    }
    CAPTURE(message);
    CHECK(message.find(part) != message.npos);
    CHECK(message.find("adapter_") != message.npos);  // the file
  }

 private:
  testing::TemporaryFolder folder_;
};

}  // namespace ple::adapter_cases
