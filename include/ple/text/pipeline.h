// SPDX-License-Identifier: Apache-2.0
// Text before the model (normalizer, pre-tokenizer) and pieces after it (decoder).
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/text/utf8.h"

namespace ple::inline PLE_ABI {

/// Limits of a file: steps of one kind, and bytes that all steps together may make of one. They keep time and memory
/// proportional to the text. A space that becomes U+2581 is 3 bytes.
inline constexpr std::size_t max_steps = 16;
inline constexpr double max_growth = 16;

/// How many times its size a text may reach when `content` replaces every `pattern` (not empty).
inline double growth_of_replacing(std::string_view pattern, std::string_view content) {
  return (std::max)(1.0, static_cast<double>(content.size()) / static_cast<double>(pattern.size()));
}

/// `text` with every `pattern` (not empty; left to right, not overlapping) replaced by `content`.
inline std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string result;
  result.reserve(text.size());
  std::size_t done = 0;
  for (std::size_t at = text.find(pattern); at != std::string_view::npos; at = text.find(pattern, done)) {
    result.append(text.substr(done, at - done)).append(content);
    done = at + pattern.size();
  }
  return result.append(text.substr(done));
}

/// Rewrites text before it is cut into words.
struct Normalizer {
  struct Step {
    std::string pattern;  ///< to be replaced; empty: `content` is prepended to text that is not empty
    std::string content;
  };
  std::vector<Step> steps;

  /// The most bytes that one byte of a text may become.
  double growth() const {
    double most = 1;
    for (const Step& step : steps) {
      if (step.pattern.empty()) {
        most += static_cast<double>(step.content.size());
      } else {
        most *= growth_of_replacing(step.pattern, step.content);
      }
    }
    return most;
  }

  std::string operator()(std::string_view text) const {
    std::string result(text);
    for (const Step& step : steps) {
      if (!step.pattern.empty()) {
        result = replace_all(result, step.pattern, step.content);
      } else if (!result.empty()) {
        result.insert(0, step.content);
      }
    }
    return result;
  }
};

/// What becomes of the delimiters of a split.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// Cuts normalized text into words, which the model encodes one by one.
struct PreTokenizer {
  struct Split {
    std::string pattern;  ///< a literal text, not empty
    SplitBehavior behavior = SplitBehavior::isolated;
    bool invert = false;  ///< the pattern matches words, and the text between is the delimiter
  };
  std::vector<Split> splits;

  std::vector<std::string_view> operator()(std::string_view text) const {
    std::vector<std::string_view> words = {text};
    for (const Split& split : splits) {
      std::vector<std::string_view> parts;
      for (const std::string_view word : words) cut(word, split, parts);
      words.swap(parts);
    }
    return words;
  }

 private:
  static void cut(std::string_view text, const Split& split, std::vector<std::string_view>& words) {
    const std::size_t first = words.size();
    bool after_delimiter = false;
    const auto add = [&](std::size_t begin, std::size_t end, bool delimiter) {
      const std::string_view part = text.substr(begin, end - begin);
      if (part.empty()) return;
      bool join = false;
      switch (split.behavior) {
        case SplitBehavior::removed:
          if (delimiter) return;
          break;
        case SplitBehavior::isolated: break;
        case SplitBehavior::contiguous: join = delimiter == after_delimiter; break;
        case SplitBehavior::merged_with_previous: join = delimiter && !after_delimiter; break;
        case SplitBehavior::merged_with_next:  // a word takes one delimiter before it
          join = !delimiter && after_delimiter;
          break;
      }
      after_delimiter = delimiter;
      if (join && words.size() > first) {
        // Parts are adjacent in one text, so the joined one is a view too.
        words.back() = {words.back().data(), words.back().size() + part.size()};
      } else {
        words.push_back(part);
      }
    };
    std::size_t done = 0;
    for (std::size_t at = text.find(split.pattern); at != std::string_view::npos; at = text.find(split.pattern, done)) {
      add(done, at, split.invert);
      done = at + split.pattern.size();
      add(at, done, !split.invert);
    }
    add(done, text.size(), split.invert);
  }
};

/// Turns pieces back into text, one piece at a time.
struct PieceDecoder {
  struct Step {
    std::string pattern;         ///< to be replaced in the piece, or the character to strip at its start
    std::string content;         ///< the replacement
    std::size_t strip_left = 0;  ///< 0: replace; else strip at most this many
  };
  std::vector<Step> before_bytes;   ///< on every piece
  bool byte_fallback = false;       ///< join `<0xNN>` pieces to characters
  std::vector<Step> after_bytes;    ///< on every piece that byte_fallback gives
  std::vector<Step> on_whole_text;  ///< strips only: at the start of the joined text
  std::string separator;            ///< between pieces

  /// The most bytes that one byte of a piece may become.
  double growth() const {
    double most = 1;
    for (const auto* steps : {&before_bytes, &after_bytes}) {
      for (const Step& step : *steps) {
        if (step.strip_left == 0) most *= growth_of_replacing(step.pattern, step.content);
      }
    }
    return most;
  }

  /// What carries over from one piece of a text to the next.
  struct State {
    std::string bytes;                  ///< the run of byte pieces that has not ended yet
    std::vector<std::size_t> stripped;  ///< by step of on_whole_text; npos: other text came
    bool started = false;
  };

  /// Appends the text that `piece` makes certain.
  void push(State& state, std::string_view piece, std::string& out) const {
    std::string text(piece);
    for (const Step& step : before_bytes) apply(step, text);
    if (byte_fallback) {
      if (const auto byte = byte_of(text)) {
        state.bytes += *byte;
        return;
      }
      flush_bytes(state, out);
    }
    emit(state, std::move(text), out);
  }

  /// Appends what was held back, and ends the text.
  void finish(State& state, std::string& out) const {
    flush_bytes(state, out);
    state = State{};
  }

 private:
  static void apply(const Step& step, std::string& text) {
    if (step.strip_left == 0) {
      if (text.find(step.pattern) != std::string::npos) text = replace_all(text, step.pattern, step.content);
    } else {
      std::size_t stripped = 0;
      strip(step, text, stripped);
    }
  }

  // Strips characters from the start of `text`; `stripped` counts them, and is npos once other text came.
  static void strip(const Step& step, std::string& text, std::size_t& stripped) {
    std::size_t begin = 0;
    while (stripped < step.strip_left && text.compare(begin, step.pattern.size(), step.pattern) == 0) {
      begin += step.pattern.size();
      ++stripped;
    }
    text.erase(0, begin);
    if (!text.empty()) stripped = std::string::npos;
  }

  // The byte of a piece `<0xNN>`.
  static std::optional<char> byte_of(std::string_view piece) {
    if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return std::nullopt;
    unsigned value = 0;
    for (const char c : piece.substr(3, 2)) {
      unsigned digit = 0;
      if (c >= '0' && c <= '9') {
        digit = static_cast<unsigned>(c - '0');
      } else if (c >= 'A' && c <= 'F') {
        digit = static_cast<unsigned>(c - 'A') + 10;
      } else if (c >= 'a' && c <= 'f') {
        digit = static_cast<unsigned>(c - 'a') + 10;
      } else {
        return std::nullopt;
      }
      value = value * 16 + digit;
    }
    return static_cast<char>(static_cast<unsigned char>(value));
  }

  // As in the reference: if any byte of a run of byte pieces is not UTF-8, each byte of the run becomes U+FFFD.
  void flush_bytes(State& state, std::string& out) const {
    if (state.bytes.empty()) return;
    std::string bytes;
    bytes.swap(state.bytes);
    if (is_utf8(bytes)) {
      emit(state, std::move(bytes), out);
    } else {
      for (std::size_t i = 0; i < bytes.size(); ++i) emit(state, "\xEF\xBF\xBD", out);
    }
  }

  void emit(State& state, std::string text, std::string& out) const {
    for (const Step& step : after_bytes) apply(step, text);
    if (state.started) text.insert(0, separator);
    state.started = true;
    state.stripped.resize(on_whole_text.size());
    for (std::size_t i = 0; i < on_whole_text.size(); ++i) {
      if (state.stripped[i] != std::string::npos) strip(on_whole_text[i], text, state.stripped[i]);
    }
    out += text;
  }
};

}  // namespace ple::inline PLE_ABI
