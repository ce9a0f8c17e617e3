// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"

namespace ple::inline PLE_ABI {

/// Ends a text, which comes in pieces, before the first stop string in it: the one complete first, and of those that
/// end together the longest. Holds back text that may begin a stop string.
class StopStrings {
 public:
  /// Errors: ErrorCode::argument for an empty string.
  explicit StopStrings(std::vector<std::string> strings = {}) : strings_(std::move(strings)) {
    for (std::size_t i = 0; i < strings_.size(); ++i) {
      if (strings_[i].empty()) fail(ErrorCode::argument, "stop string ", i, " is empty");
    }
  }

  /// Appends the text that `piece` makes certain, none once a string was found. An error leaves the state as it was.
  void push(std::string_view piece, std::string& out) {
    if (found_) return;
    std::string text = held_;
    text += piece;
    std::size_t begin = std::string::npos, end = std::string::npos;
    for (const std::string& string : strings_) {
      const std::size_t at = text.find(string);
      if (at == std::string::npos || std::pair(at + string.size(), at) >= std::pair(end, begin)) continue;
      begin = at;
      end = at + string.size();
    }
    const bool found = begin != std::string::npos;
    const std::size_t certain = found ? begin : text.size() - unfinished(text);
    out.append(text, 0, certain);
    found_ = found;
    held_.swap(text.erase(0, found ? text.size() : certain));
  }
  std::string push(std::string_view piece) {
    std::string text;
    push(piece, text);
    return text;
  }

  /// Appends what was held back, at the end of the text; the next push() begins a new one.
  void finish(std::string& out) {
    out += held_;
    finish();
  }
  std::string finish() {
    found_ = false;
    return std::exchange(held_, {});
  }

  bool found() const { return found_; }

 private:
  /// Bytes at the end of `text` that may begin a stop string.
  std::size_t unfinished(std::string_view text) const {
    std::size_t most = 0;
    for (const std::string_view string : strings_) {
      for (std::size_t n = (std::min)(string.size() - 1, text.size()); n > most; --n) {
        if (text.ends_with(string.substr(0, n))) most = n;
      }
    }
    return most;
  }

  std::vector<std::string> strings_;
  std::string held_;
  bool found_ = false;
};

}  // namespace ple::inline PLE_ABI
