// SPDX-License-Identifier: Apache-2.0
// A session reads tokens and has the logits of what comes next. Tokens in, logits out: no text here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/memory.h"
#include "ple/core/shared_pool.h"
#include "ple/core/token.h"
#include "ple/model/language_model.h"

namespace ple::inline PLE_ABI {

/// Called with the tokens read so far and their number in all; false cancels. It must not use the session.
using PromptProgress = std::function<bool(std::size_t done, std::size_t total)>;

/// One text being read and written by a model, which must outlive the session. Not for two threads at once; any number
/// of sessions may share a model, and those with as many threads share a pool (core/shared_pool.h): they take turns,
/// layer by layer. It can be moved, and then be used where it is now only.
class Session {
  friend class SavedSession;  // run/saved_session.h
  friend class Batch;

 public:
  /// Errors: ErrorCode::argument; ErrorCode::limit for more than kv_cache_limit, before any memory is taken; system.
  explicit Session(const LanguageModel& model, const SessionOptions& options = {})
      : model_(&model), executor_(options.executor) {
    SessionOptions of_state = options;
    of_state.context = context_ = options.context_of(model.max_position_embeddings());
    of_state.chunk = chunk_ = (std::min)({options.chunk, context_, most_tokens_at_once});
    if (!executor_) {
      pool_ = shared_pool(options.threads);
      executor_ = pool_.get();
    }
    of_state.threads = executor_->concurrency();
    state_ = model.make_state(of_state);
    tokens_.reserve(context_);
    logits_.resize(model.vocab_size());
  }
  Session(const LanguageModel&& model, const SessionOptions& options = {}) = delete;  // the model must outlive it

  const LanguageModel& model() const { return *model_; }
  std::size_t context() const { return context_; }
  std::size_t position() const { return state_->position; }
  std::size_t kv_cache_bytes() const { return state_->kv_cache_bytes(); }

  /// Everything read so far.
  std::span<const Token> tokens() const { return tokens_; }

  /// Scores of every token of the vocabulary to come next, until more is read. Errors: ErrorCode::argument if the last
  /// read was not finished, nothing was read yet, or nothing since truncate().
  std::span<const float> logits() const {
    if (!has_logits_)
      fail(ErrorCode::argument,
           "Session: no logits: nothing was read yet or since truncate(), or the last prompt was not finished");
    return logits_;
  }

  /// Reads tokens after what was read before. After an error the session goes on from the last chunk that was read: see
  /// position(); if that is where it was, its logits are still there, too. The same holds if `progress` throws.
  /// Errors: ErrorCode::argument for a token outside the vocabulary or more than the context holds, before anything is
  /// read; ErrorCode::cancelled if `progress` says so; ErrorCode::file if a file can no longer be read.
  void read(std::span<const Token> tokens, const PromptProgress& progress = {}) { read(tokens, {}, progress); }

  /// As above, for tokens that are not all text: each soft_token takes the next row of `soft`, [number of them, d].
  void read(std::span<const Token> tokens, Rows soft, const PromptProgress& progress = {}) {
    check(tokens, soft);
    read_into({logits_.data(), 1, logits_.size(), logits_.size()}, tokens, soft, progress);
  }
  void read(Token token) { read(std::span(&token, 1)); }

  /// A hint that these tokens will be read next, so that what they need from files is on its way meanwhile.
  void prefetch(std::span<const Token> tokens) { model_->prefetch(*state_, tokens); }
  void will_read(std::span<const Token> tokens) { prefetch(tokens); }  ///< Old name; goes with the next version.

  /// Reads tokens and returns the logits that follow each of the last `last` of them, or of all if there are fewer:
  /// [last, vocab_size], until the next call. Memory for more of them than before is taken then. They have the bits of
  /// reading token by token. Errors: those of read().
  Rows read_logits(std::span<const Token> tokens, std::size_t last = (std::numeric_limits<std::size_t>::max)()) {
    check(tokens, {});
    const std::size_t width = logits_.size(), count = (std::min)(last, tokens.size());
    if (count * width > last_logits_.size()) last_logits_.resize(count * width);
    const Rows rows{last_logits_.data(), count, width, width};
    read_into(rows, tokens);
    return rows;
  }

  /// Reads tokens and calls each(i, logits) for every one of them, with the logits that follow tokens[i]. They are read
  /// in chunks: if `each` throws, the session has read up to the end of the one at hand, and its logits are of there.
  template <class F>
  void evaluate(std::span<const Token> tokens, F&& each) {
    check(tokens, {});
    const std::size_t width = logits_.size(), most = (std::min)(chunk_, tokens.size());
    AlignedVector<float> all(most * width);
    for (std::size_t done = 0; done < tokens.size();) {
      const Rows rows{all.data(), (std::min)(most, tokens.size() - done), width, width};
      read_into(rows, tokens.subspan(done, rows.rows));
      for (std::size_t t = 0; t < rows.rows; ++t) each(done + t, std::span<const float>(rows.row(t), width));
      done += rows.rows;
    }
  }

  /// A session of its own that has read the same: what either reads next has the bits it would have without the other.
  /// K and V that are still seen are copied, and memory is taken as for a new session; the pool or executor is shared.
  /// Errors: those of the constructor; ErrorCode::not_supported where a model cannot.
  Session fork() const { return Session(*this, model_->copy_state(*state_)); }

  /// The earliest position that truncate() can go back to, other than 0. A layer with a sliding window forgets what is
  /// older, so it is `chunk` positions and SessionOptions::keep before the furthest that was read, or less while a
  /// window and these hold all; after SavedSession::load, where the session was.
  std::size_t truncatable_to() const { return state_->truncatable_to(); }
  std::size_t rewindable_from() const { return truncatable_to(); }  ///< Old name; goes with the next version.

  /// Forgets what was read from `position` on, as if it had not been: what is read next gives the same bits. There are
  /// no logits until something is read: to have those of `position` again, truncate one further and read its token.
  /// Errors, and then nothing has changed: ErrorCode::argument for a position after the session's own, or one of which
  /// K and V are gone.
  void truncate(std::size_t position) {
    if (position == state_->position) return;
    if (position == 0) return reset();
    if (position > state_->position || position < truncatable_to()) {
      fail(ErrorCode::argument, "Session: cannot go to position ", position, " from ", state_->position,
           ", expected 0 or ", truncatable_to(), " to ", state_->position);
    }
    state_->truncate(tokens().first(position));
    tokens_.resize(position);
    has_logits_ = false;
  }
  void rewind(std::size_t position) { truncate(position); }  ///< Old name; goes with the next version.

  /// Forgets everything that was read.
  void reset() {
    has_logits_ = false;
    state_->position = 0;
    tokens_.clear();
  }

 private:
  void check(std::span<const Token> tokens, Rows soft) const {
    if (tokens.size() > context_ - position()) {
      fail(ErrorCode::argument, "Session: ", tokens.size(), " tokens at position ", position(),
           " go past the context of ", context_, longer_context());
    }
    const auto soft_count = static_cast<std::size_t>(std::count(tokens.begin(), tokens.end(), soft_token));
    if (soft_count != soft.rows) {
      fail(ErrorCode::argument, "Session: ", soft_count, " soft tokens (token ", soft_token, "), but ", soft.rows,
           " embeddings for them");
    }
    for (const Token token : tokens) {
      if (token != soft_token) model_->check_token(token, "Session");
    }
  }

  /// What can be done about a context that is too short.
  const char* longer_context() const {
    return context_ < model_->max_position_embeddings() ? "; SessionOptions::context makes it longer"
                                                        : ", which is as long as this model's can be";
  }

  Session(const Session& other, std::unique_ptr<ModelState> state)
      : model_(other.model_),
        context_(other.context_),
        chunk_(other.chunk_),
        pool_(other.pool_),
        executor_(other.executor_),
        state_(std::move(state)),
        logits_(other.logits_),
        has_logits_(other.has_logits_) {
    tokens_.reserve(context_);
    tokens_ = other.tokens_;
  }

  /// Reads chunk after chunk, and writes the logits of the last tokens to `logits`, whose rows are no more than tokens.
  void read_into(Rows logits, std::span<const Token> tokens, Rows soft = {}, const PromptProgress& progress = {}) {
    for (std::size_t done = 0, soft_done = 0, from = tokens.size() - logits.rows; done < tokens.size();) {
      const auto chunk = tokens.subspan(done, (std::min)(chunk_, tokens.size() - done));
      const auto soft_count = static_cast<std::size_t>(std::count(chunk.begin(), chunk.end(), soft_token));
      const std::size_t end = done + chunk.size(), first = (std::max)(done, from);
      const Rows rows = first < end ? logits.slice(first - from, end - first) : logits.slice(0, 0);
      prefetch(tokens.subspan(done));
      model_->forward(*state_, *executor_, chunk, rows, soft.slice(soft_done, soft_count));
      tokens_.insert(tokens_.end(), chunk.begin(), chunk.end());
      has_logits_ = rows.rows > 0;
      if (has_logits_ && rows.data != logits_.data()) std::copy_n(rows.row(rows.rows - 1), rows.cols, logits_.data());
      done = end;
      soft_done += soft_count;
      if (progress && !progress(done, tokens.size()) && done < tokens.size())
        fail(ErrorCode::cancelled, "cancelled after ", done, " of ", tokens.size(), " tokens of the prompt");
    }
  }

  const LanguageModel* model_;
  std::size_t context_ = 0, chunk_ = 0;
  std::shared_ptr<ThreadPool> pool_;
  Executor* executor_;
  std::unique_ptr<ModelState> state_;
  std::vector<Token> tokens_;
  AlignedVector<float> logits_;       // [vocab_size], of the last token read
  AlignedVector<float> last_logits_;  // of read_logits()
  bool has_logits_ = false;
};

}  // namespace ple::inline PLE_ABI
