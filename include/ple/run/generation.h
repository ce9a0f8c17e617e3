// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/run/sampler.h"
#include "ple/run/session.h"

namespace ple::inline PLE_ABI {

/// Changes a copy of the logits, [vocab_size], before the sampling rules; -infinity rules a token out. `tokens`: what
/// the session has read. It must not use the session.
using LogitsProcessor = std::function<void(std::span<const Token> tokens, std::span<float> logits)>;

struct GenerationOptions {
  SamplingOptions sampling = {};
  std::vector<Token> stop_tokens = {};    ///< end the text; Checkpoint::stop_tokens() has the model's own
  std::size_t max_tokens = 0;             ///< 0: until the context is full
  LogitsProcessor logits_processor = {};  ///< called before each token is drawn
  std::function<bool()> cancelled = {};   ///< asked before each token is computed; true ends the text
};

/// Why a generation ended; none: it has not, or its caller left it.
enum class StopReason : std::uint8_t { none, stop_token, max_tokens, context_full, stop_string, cancelled };

/// Generates tokens after what a session has read. A token is computed when it is asked for, and the session reads it
/// when the next one is. So the first is there at once and the last costs nothing.
class Generation {
 public:
  /// `session` must have read something, and must not be moved while this is used.
  Generation(Session& session, GenerationOptions options)
      : session_(&session), options_(std::move(options)), sampler_(options_.sampling, session.model().vocab_size()) {
    if (options_.logits_processor) processed_.resize(session.model().vocab_size());
  }

  /// The next token; nothing once the text has ended. Errors: those of Session::read and Sampler::sample; what the
  /// functions of GenerationOptions throw. No token is lost: the next call goes on from there.
  std::optional<Token> next() {
    if (reason_ != StopReason::none) return std::nullopt;
    if (options_.cancelled && options_.cancelled()) return end(StopReason::cancelled);
    if (options_.max_tokens > 0 && count_ == options_.max_tokens) return end(StopReason::max_tokens);
    if (session_->position() + (unread_ ? 1 : 0) >= session_->context()) return end(StopReason::context_full);
    flush();
    const Token token = sampler_.sample(processed_logits(), session_->tokens());
    if (std::find(options_.stop_tokens.begin(), options_.stop_tokens.end(), token) != options_.stop_tokens.end()) {
      return end(StopReason::stop_token);
    }
    ++count_;
    unread_ = token;
    position_ = session_->position();
    session_->prefetch(std::span(&*unread_, 1));
    return token;
  }

  /// Makes the session read the last token too, so that text can follow. Errors: those of Session::read, with the token
  /// still unread; ErrorCode::argument if the session has read something else since, or was reset.
  void flush() {
    if (!unread_) return;
    if (session_->position() != position_) {
      fail(ErrorCode::argument, "Generation: the session is at position ", session_->position(), ", expected ",
           position_, ", after which the last token was drawn: call flush() before the session reads on");
    }
    session_->read(*unread_);
    unread_.reset();
  }

  /// Ends the text, unless it has ended.
  void stop(StopReason reason = StopReason::cancelled) {
    if (reason_ == StopReason::none) reason_ = reason;
  }

  std::size_t count() const { return count_; }
  StopReason reason() const { return reason_; }

 private:
  std::optional<Token> end(StopReason reason) {
    reason_ = reason;
    return std::nullopt;
  }

  std::span<const float> processed_logits() {
    const std::span<const float> logits = session_->logits();
    if (!options_.logits_processor) return logits;
    std::copy(logits.begin(), logits.end(), processed_.begin());
    options_.logits_processor(session_->tokens(), processed_);
    return processed_;
  }

  Session* session_;
  GenerationOptions options_;
  Sampler sampler_;
  std::vector<float> processed_;  // [vocab_size], if there is a logits_processor
  std::optional<Token> unread_;
  std::size_t position_ = 0;  // of unread_
  std::size_t count_ = 0;
  StopReason reason_ = StopReason::none;
};

}  // namespace ple::inline PLE_ABI
