// SPDX-License-Identifier: Apache-2.0
#include "ple/text/stop_strings.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace ple::stop_strings_test {

namespace {

/// A text in pieces of `size` bytes.
std::string shown(const std::vector<std::string>& strings, const std::string& text, std::size_t size, bool& found) {
  StopStrings stop(strings);
  std::string all;
  for (std::size_t at = 0; at < text.size(); at += size) all += stop.push(std::string_view(text).substr(at, size));
  found = stop.found();
  return all + stop.finish();
}

}  // namespace

TEST_CASE("a text ends before the string that is complete first, however it is cut") {
  struct Case {
    std::vector<std::string> strings;
    std::string text, expected;
    bool found;
  };
  const Case cases[] = {
      {{}, "all of it", "all of it", false},
      {{"\nUser:"}, "Hello.\nUser: hi", "Hello.", true},
      {{"\nUser:"}, "Hello.\nUser", "Hello.\nUser", false},
      {{"abcd", "bc"}, "xabcd", "xa", true},  // "bc" is complete first
      {{"bc", "abc"}, "xabcd", "x", true},    // both are at once: the longer
      {{"aab"}, "aaaab", "aa", true},         // what was held back may begin again later
      {{"abab", "x"}, "abaabab", "aba", true},
      {{"é!"}, "cafés é!", "cafés ", true},
      {{"end"}, "end", "", true},
  };
  for (const Case& c : cases) {
    for (std::size_t size = 1; size <= c.text.size(); ++size) {
      CAPTURE(c.text);
      CAPTURE(size);
      bool found = false;
      CHECK(shown(c.strings, c.text, size, found) == c.expected);
      CHECK(found == c.found);
    }
  }
}

TEST_CASE("only what may begin a stop string is held back, and nothing comes after one") {
  StopStrings stop({"STOP"});
  CHECK(stop.push("Go on, S") == "Go on, ");
  CHECK(stop.push("T") == "");
  CHECK(stop.push("ART") == "START");
  CHECK(stop.push("STOP it") == "");
  CHECK(stop.found());
  CHECK(stop.push("more") == "");
  CHECK(stop.finish() == "");
  CHECK(!stop.found());
  CHECK(stop.push("a new text ST") == "a new text ");
  CHECK(stop.finish() == "ST");
  CHECK_THROWS_WITH(StopStrings({"a", ""}), "stop string 1 is empty");
}

}  // namespace ple::stop_strings_test
