// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/token.h"
#include "ple/text/pipeline.h"
#include "ple/text/tokenizer.h"

namespace ple::inline PLE_ABI {

/// Text from tokens as they come. All that push() and finish() return, joined, is what decode() gives for all tokens.
///
/// Every string returned is whole UTF-8 characters. A run of byte pieces (`<0xNN>`) is held back until it ends, because
/// the reference decides only then whether it is UTF-8.
class StreamDecoder {
 public:
  /// `tokenizer` must outlive this.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  explicit StreamDecoder(const Tokenizer&& tokenizer, bool skip_special = true) = delete;

  /// The text that `token` makes certain; often empty. Throws argument for ids outside the vocabulary. After an error,
  /// std::bad_alloc too, it is as if the token had not come.
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
