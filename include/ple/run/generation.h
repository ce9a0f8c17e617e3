// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/token.h"
#include "ple/run/sampler.h"
#include "ple/run/session.h"

namespace ple {
inline namespace PLE_ABI {

struct GenerationOptions {
  SamplingOptions sampling = {};
  std::vector<Token> stop_tokens = {};  ///< end the text; Checkpoint::stop_tokens() has the model's own
  std::size_t max_tokens = 0;           ///< 0: until the context is full
};

/// Why a generation ended.
enum class StopReason : std::uint8_t { none, stop_token, max_tokens, context_full };

/// Tokens one by one, after what a session has read. A token is computed when it is asked for, and read by the session
/// only when the next one is, so the first is there at once and the last costs nothing.
class Generation {
 public:
  /// `session` must outlive this and have read something.
  Generation(Session& session, GenerationOptions options)
      : session_(&session), options_(std::move(options)), sampler_(options_.sampling, session.model().vocab_size()) {}

  /// The next token; nothing once the text has ended.
  std::optional<Token> next() {
    if (reason_ != StopReason::none) return std::nullopt;
    if (options_.max_tokens > 0 && count_ == options_.max_tokens) return end(StopReason::max_tokens);
    if (session_->position() + (unread_ ? 1 : 0) >= session_->context()) return end(StopReason::context_full);
    flush();
    const Token token = sampler_.sample(session_->logits(), session_->tokens());
    if (std::find(options_.stop_tokens.begin(), options_.stop_tokens.end(), token) != options_.stop_tokens.end()) {
      return end(StopReason::stop_token);
    }
    ++count_;
    unread_ = token;
    session_->will_read(std::span(&*unread_, 1));
    return token;
  }

  /// Lets the session read the last token too, so that more text can follow it.
  void flush() {
    if (const auto token = std::exchange(unread_, std::nullopt)) session_->read(*token);
  }

  std::size_t count() const { return count_; }
  StopReason reason() const { return reason_; }

 private:
  std::optional<Token> end(StopReason reason) {
    reason_ = reason;
    return std::nullopt;
  }

  Session* session_;
  GenerationOptions options_;
  Sampler sampler_;
  std::optional<Token> unread_;
  std::size_t count_ = 0;
  StopReason reason_ = StopReason::none;
};

}  // namespace PLE_ABI
}  // namespace ple
