// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/token.h"
#include "ple/text/pipeline.h"
#include "ple/text/tokenizer.h"

namespace ple::inline PLE_ABI {

/// Decodes tokens as they come; the returned strings are whole UTF-8 characters, and joined they equal decode(). A run
/// of byte pieces (`<0xNN>`) is held back to its end: only then does the reference decide whether it is UTF-8.
class StreamDecoder {
 public:
  /// `tokenizer` must outlive this.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  explicit StreamDecoder(const Tokenizer&& tokenizer, bool skip_special = true) = delete;

  /// The text that `token` makes certain, often none. Throws argument outside the vocabulary. Errors change no state.
  std::string push(Token token) {
    std::string text;
    PieceDecoder::State next = state_;
    tokenizer_->decode_next(next, token, skip_special_, text);
    state_ = std::move(next);
    return text;
  }

  /// The rest; the next push() begins a new text.
  std::string finish() {
    std::string text;
    PieceDecoder::State last = state_;
    tokenizer_->decoder().finish(last, text);
    state_ = std::move(last);
    return text;
  }

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  PieceDecoder::State state_;
};

}  // namespace ple::inline PLE_ABI
