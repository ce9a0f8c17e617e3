// SPDX-License-Identifier: Apache-2.0
// What the harnesses share. A harness is a plain function of bytes: it feeds them to the library and lets nothing out
// but what is a find. libFuzzer calls it (fuzz.cpp), and so do the ordinary tests (regressions_test.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "../temporary.h"
#include "ple/core/error.h"

namespace ple::fuzz {

/// What an input of at most 64 kB may take of memory at a time: more is a find. (And so is 5 s, to scripts/fuzz.)
inline constexpr std::size_t most_bytes = std::size_t{256} << 20;

struct Target {
  std::string_view name;
  void (*run)(std::string_view data);
  std::vector<std::string> (*seeds)();  ///< valid inputs to begin with
};

/// Bad input has to end in a ple::Error, and in nothing else.
template <class F>
void may_refuse(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    if (std::string_view(error.what()).empty()) throw std::logic_error("an error without a message");
  }
}

inline void require(bool good, const char* what) {
  if (!good) throw std::logic_error(what);
}

/// Every byte is looked at, so that a sanitizer sees where they lie.
inline void touch(const void* data, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) static_cast<void>(static_cast<const volatile unsigned char*>(data)[i]);
}

/// One folder per harness and process, whose files are written anew for every input.
inline std::filesystem::path write_input(const testing::TemporaryFolder& folder, const std::string& name,
                                         std::string_view bytes) {
  return folder.write(name, std::as_bytes(std::span(bytes)));
}

/// Up to `most` parts that zero bytes separate; the last has the rest.
inline std::vector<std::string_view> split(std::string_view data, std::size_t most) {
  std::vector<std::string_view> parts;
  while (parts.size() + 1 < most && data.find('\0') != std::string_view::npos) {
    parts.push_back(data.substr(0, data.find('\0')));
    data.remove_prefix(data.find('\0') + 1);
  }
  parts.push_back(data);
  return parts;
}

}  // namespace ple::fuzz
