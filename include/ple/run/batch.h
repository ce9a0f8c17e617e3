// SPDX-License-Identifier: Apache-2.0
// Advances several sessions together: each weight is read once for all of their next tokens.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/memory.h"
#include "ple/core/shared_pool.h"
#include "ple/run/session.h"

namespace ple::inline PLE_ABI {

struct BatchOptions {
  std::size_t sessions = 8;      ///< most sessions advanced at once, up to 65,536
  std::size_t threads = 0;       ///< of the pool, shared with sessions; 0: one per hardware thread
  Executor* executor = nullptr;  ///< runs the batch instead of a pool; must outlive it
};

/// Advances sessions of one model, which must outlive it. Not for two threads at once. It can be moved.
class Batch {
 public:
  /// Errors: ErrorCode::argument; system.
  explicit Batch(const LanguageModel& model, const BatchOptions& options = {})
      : model_(&model), executor_(options.executor), most_(options.sessions) {
    if (most_ == 0 || most_ > most_tokens_at_once)
      fail(ErrorCode::argument, "Batch: ", most_, " sessions, expected 1 to ", most_tokens_at_once);
    if (!executor_) {
      pool_ = shared_pool(options.threads);
      executor_ = pool_.get();
    }
    workspace_state_ = model.make_state({.context = 1, .chunk = most_, .threads = executor_->concurrency()});
    states_.reserve(most_);
    try {
      logits_.resize(most_ * model.vocab_size());
    } catch (const std::bad_alloc&) {
      fail(ErrorCode::system, "Batch: no memory for the logits of ", most_, " sessions");
    }
  }
  Batch(const LanguageModel&& model, const BatchOptions& options = {}) = delete;  // the model must outlive it

  /// Session i reads tokens[i]. Then all have logits, bit for bit as if each had read its token alone. Errors, with no
  /// session changed: ErrorCode::argument for a session of another model, given twice or with a full context, for too
  /// many sessions, or for a token outside the vocabulary; ErrorCode::file if a file can no longer be read. Only a
  /// LanguageModel with the default forward_each differs: the sessions before the failed one have read their token.
  void read(std::span<Session* const> sessions, std::span<const Token> tokens) {
    if (sessions.size() > most_)
      fail(ErrorCode::argument, "Batch: ", sessions.size(), " sessions at once, at most ", most_);
    if (sessions.size() != tokens.size())
      fail(ErrorCode::argument, "Batch: ", sessions.size(), " sessions, but ", tokens.size(), " tokens");
    for (std::size_t i = 0; i < sessions.size(); ++i) check(sessions, i, tokens[i]);
    states_.clear();
    for (Session* session : sessions) states_.push_back(session->state_.get());
    const std::size_t width = model_->vocab_size();
    const Rows logits{logits_.data(), sessions.size(), width, width};
    const auto finish = [&] {
      for (std::size_t i = 0; i < sessions.size(); ++i) {
        Session& session = *sessions[i];
        if (session.position() == session.tokens_.size()) continue;  // after an error: this one was not read
        session.tokens_.push_back(tokens[i]);
        session.has_logits_ = true;
        std::copy_n(logits.row(i), width, session.logits_.data());
      }
    };
    try {
      model_->forward_each(*workspace_state_, *executor_, states_, tokens, logits);
    } catch (...) {
      finish();
      throw;
    }
    finish();
  }

 private:
  /// Errors: ErrorCode::argument if session i cannot read the token.
  void check(std::span<Session* const> sessions, std::size_t i, Token token) const {
    const auto refuse = [&](const auto&... parts) { fail(ErrorCode::argument, "Batch: session ", i, parts...); };
    const Session* session = sessions[i];
    if (session == nullptr) refuse(" is null");
    if (session->model_ != model_) refuse(" is of another model");
    const auto earlier = sessions.first(i);
    if (const auto found = std::find(earlier.begin(), earlier.end(), session); found != earlier.end()) {
      refuse(" is session ", found - earlier.begin(), " again");
    }
    if (session->position() >= session->context()) {
      refuse(" is at the end of its context of ", session->context(), session->longer_context());
    }
    model_->check_token(token, "Batch: session ", i);
  }

  const LanguageModel* model_;
  std::shared_ptr<ThreadPool> pool_;
  Executor* executor_;
  std::size_t most_;
  std::unique_ptr<ModelState> workspace_state_;
  std::vector<ModelState*> states_;
  AlignedVector<float> logits_;
};

}  // namespace ple::inline PLE_ABI
