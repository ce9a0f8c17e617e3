// SPDX-License-Identifier: Apache-2.0
// Command lines of the examples: first words, then options `--name value`, `--name=value` or `--name`.
#pragma once

#include <ple/core/number_text.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace examples {

/// An error at the command line: its parts, one behind the other.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::string message;
  ((message += parts), ...);
  throw std::runtime_error(message);
}

/// `word` as a number from `least` to `most`, in digits that mean the same in every locale; `what` names it in errors.
template <class Number>
Number number_of(std::string_view what, std::string_view word, Number least = std::numeric_limits<Number>::lowest(),
                 Number most = std::numeric_limits<Number>::max()) {
  if constexpr (std::integral<Number>) {
    Number value{};
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    const bool whole_word = end == word.data() + word.size() && error == std::errc();
    if (!whole_word || value < least || value > most) {
      refuse(what, ": '", word, "' is not a whole number from ", std::to_string(least), " to ", std::to_string(most));
    }
    return value;
  } else {
    const auto value = ple::parse_number<Number>(word);
    if (!value || !std::isfinite(*value) || *value < least || *value > most) {
      std::string limits;
      if (most < std::numeric_limits<Number>::max()) {
        limits = " from " + ple::number_text(least) + " to " + ple::number_text(most);
      } else if (least > std::numeric_limits<Number>::lowest()) {
        limits = " from " + ple::number_text(least) + " up";
      }
      refuse(what, ": '", word, "' is not a number", limits);
    }
    return *value;
  }
}

/// "20,21,22": one number or more.
template <class Number>
std::vector<Number> numbers_of(std::string_view what, std::string_view list, Number least = 0,
                               Number most = std::numeric_limits<Number>::max()) {
  std::vector<Number> numbers;
  for (std::size_t begin = 0, end = 0; end < list.size() || begin == 0; begin = end + 1) {
    end = std::min(list.find(',', begin), list.size());
    numbers.push_back(number_of(what, list.substr(begin, end - begin), least, most));
  }
  return numbers;
}

/// A number of bytes: "64" of `unit`, or "512KiB", "64MiB", "1.5GiB".
inline std::size_t bytes_of_text(std::string_view what, std::string_view word, double unit = 1 << 20) {
  std::string_view digits = word;
  for (const auto& [suffix, factor] : {std::pair("KiB", 0x1p10), std::pair("MiB", 0x1p20), std::pair("GiB", 0x1p30)}) {
    if (!word.ends_with(suffix)) continue;
    digits.remove_suffix(3);
    unit = factor;
  }
  const double bytes = unit * number_of<double>(what, digits, 0);
  if (!(bytes < 0x1p62)) refuse(what, ": '", word, "' is more than any machine has");
  return static_cast<std::size_t>(bytes);
}

class Arguments {
 public:
  Arguments(int argc, const char* const* argv) : words_(argv + 1, argv + argc) {}

  /// Whether `--name` was given; removes it.
  bool flag(std::string_view name) {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      if (words_[i] == name) {
        remove(i, 1);
        return true;
      }
    }
    return false;
  }

  /// What follows `--name`; removes both. Text that begins with -- is written --name=TEXT.
  std::optional<std::string> text(std::string_view name) {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      std::string& word = words_[i];
      if (word.starts_with(name) && word.substr(name.size()).starts_with('=')) {
        std::string value = word.substr(name.size() + 1);
        remove(i, 1);
        taken_.emplace_back(name);
        return value;
      }
      if (word != name) continue;
      if (i + 1 == words_.size() || words_[i + 1].starts_with("--")) refuse(name, " needs a value");
      std::string value = words_[i + 1];
      remove(i, 2);
      taken_.emplace_back(name);
      return value;
    }
    return std::nullopt;
  }

  template <class Number>
  Number number(std::string_view name, Number otherwise, Number least = std::numeric_limits<Number>::lowest(),
                Number most = std::numeric_limits<Number>::max()) {
    const auto word = text(name);
    return word ? number_of<Number>(name, *word, least, most) : otherwise;
  }

  std::optional<std::size_t> bytes(std::string_view name, double unit = 1 << 20) {
    const auto word = text(name);
    return word ? std::optional(bytes_of_text(name, *word, unit)) : std::nullopt;
  }

  /// `--threads`; 0, if it was not given: all.
  std::size_t threads() { return number<std::size_t>("--threads", 0, 1, 1024); }

  /// The first word, which is no option; removes it.
  std::string first(std::string_view what) {
    if (words_.empty() || words_[0].starts_with("--")) refuse(what, " is missing; --help shows what goes where");
    std::string word = words_[0];
    remove(0, 1);
    return word;
  }

  /// The next one, if it is no option; removes it.
  std::optional<std::string> next() {
    if (words_.empty() || words_[0].starts_with("--")) return std::nullopt;
    return first("");
  }

  /// Once everything was taken: refuses what is left.
  void done() const {
    if (words_.empty()) return;
    const std::string name = words_[0].substr(0, words_[0].find('='));
    for (const std::string& taken : taken_) {
      if (taken == name) refuse(name, " was given twice");
    }
    refuse("what is '", words_[0], "'? --help lists the options");
  }

 private:
  void remove(std::size_t first, std::size_t count) {
    const auto begin = words_.begin() + static_cast<std::ptrdiff_t>(first);
    words_.erase(begin, begin + static_cast<std::ptrdiff_t>(count));
  }

  std::vector<std::string> words_;
  std::vector<std::string> taken_;  // options with a value
};

/// An error of the library in the words of a command line: its options' names.
inline std::string in_options(std::string message) {
  for (const auto& [name, option] :
       {std::pair<std::string_view, std::string_view>("SessionOptions::context", "--context"),
        {"DatasetOptions::max_length", "--length"},
        {"HeldOut::fraction", "--held-out"}}) {
    if (const std::size_t at = message.find(name); at != std::string::npos) message.replace(at, name.size(), option);
  }
  return message;
}

/// Runs a program and turns an exception into a message and an exit code.
template <class F>
int run(const char* usage, int argc, char** argv, F&& program) {
  try {
    Arguments arguments(argc, argv);
    if (argc < 2 || arguments.flag("--help") || arguments.flag("-h")) {
      std::fputs(usage, argc < 2 ? stderr : stdout);
      return argc < 2 ? 2 : 0;
    }
    program(arguments);
    if (std::fflush(stdout) != 0) refuse("what was printed could not be written");
    return 0;
  } catch (const std::exception& error) {
    std::fflush(stdout);  // what came before it
    std::fprintf(stderr, "error: %s\n", in_options(error.what()).c_str());
    return 1;
  }
}

}  // namespace examples
