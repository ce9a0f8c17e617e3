// SPDX-License-Identifier: Apache-2.0
// Command lines of the examples: a first word, then options `--name value` or `--name`.
#pragma once

#include <fmt/core.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace examples {

class Arguments {
 public:
  Arguments(int argc, char** argv) : words_(argv + 1, argv + argc) {}

  /// Whether `--name` was given; removes it.
  bool flag(std::string_view name) {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      if (words_[i] == name) {
        words_.erase(words_.begin() + static_cast<std::ptrdiff_t>(i));
        return true;
      }
    }
    return false;
  }

  /// The word after `--name`; removes both.
  std::optional<std::string> text(std::string_view name) {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      if (words_[i] != name) continue;
      if (i + 1 == words_.size()) throw std::runtime_error(fmt::format("{} needs a value", name));
      const std::string value = words_[i + 1];
      words_.erase(words_.begin() + static_cast<std::ptrdiff_t>(i),
                   words_.begin() + static_cast<std::ptrdiff_t>(i) + 2);
      return value;
    }
    return std::nullopt;
  }

  template <class Number>
  Number number(std::string_view name, Number otherwise) {
    const auto word = text(name);
    if (!word) return otherwise;
    Number value{};
    const auto [end, error] = std::from_chars(word->data(), word->data() + word->size(), value);
    if (error != std::errc() || end != word->data() + word->size()) {
      throw std::runtime_error(fmt::format("{}: '{}' is not a number it can take", name, *word));
    }
    return value;
  }

  /// The first word, which is no option; removes it.
  std::string first(std::string_view what) {
    if (words_.empty() || words_[0].starts_with("--"))
      throw std::runtime_error(fmt::format("{} is missing; it comes first", what));
    const std::string word = words_[0];
    words_.erase(words_.begin());
    return word;
  }

  /// Once everything was taken: refuses what is left.
  void done() const {
    if (!words_.empty()) throw std::runtime_error(fmt::format("what is '{}'? --help lists the options", words_[0]));
  }

 private:
  std::vector<std::string> words_;
};

/// Runs a program and turns an exception into a message and an exit code.
template <class F>
int run(const char* usage, int argc, char** argv, F&& program) {
  try {
    Arguments arguments(argc, argv);
    if (argc < 2 || arguments.flag("--help") || arguments.flag("-h")) {
      fmt::print("{}", usage);
      return argc < 2 ? 2 : 0;
    }
    program(arguments);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}

}  // namespace examples
