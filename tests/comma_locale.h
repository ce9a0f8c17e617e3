// SPDX-License-Identifier: Apache-2.0
// A locale whose numbers have a comma, as of most of Europe, for a test to run under.
#pragma once

#include <clocale>
#include <cstdlib>
#include <string>

#include "temporary.h"

namespace ple::testing {

/// While it lives, the program's numbers are those of German. Where the system has no such locale, one is built for the
/// test; `works` says whether there is one.
class CommaLocale {
 public:
  /// `name` is a locale's: "de_DE"; "ps_AF" has a decimal point of two bytes.
  explicit CommaLocale(const std::string& name) : before_(std::setlocale(LC_ALL, nullptr)) {
    const std::string full = name + ".UTF-8";
    if (std::setlocale(LC_ALL, full.c_str()) == nullptr) {
      const std::string command = "localedef -c -i " + name + " -f UTF-8 " + (folder_ / full).string() + " 2>/dev/null";
      static_cast<void>(!std::system(command.c_str()));
      const char* const path = std::getenv("LOCPATH");
      const std::string old = path ? path : "";
      ::setenv("LOCPATH", (folder_ / "").c_str(), 1);
      std::setlocale(LC_ALL, full.c_str());
      path ? ::setenv("LOCPATH", old.c_str(), 1) : ::unsetenv("LOCPATH");
    }
    works = std::string(std::localeconv()->decimal_point) != ".";
  }
  CommaLocale(const CommaLocale&) = delete;
  CommaLocale& operator=(const CommaLocale&) = delete;
  ~CommaLocale() { std::setlocale(LC_ALL, before_.c_str()); }

  bool works = false;

 private:
  std::string before_;
  TemporaryFolder folder_;
};

}  // namespace ple::testing
