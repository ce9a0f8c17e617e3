// SPDX-License-Identifier: Apache-2.0
// A session reads tokens and has the logits of what comes next. It knows no text.
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

/// Called with the tokens read so far and their total number; false cancels. It must not use the session.
using PromptProgress = std::function<bool(std::size_t done, std::size_t total)>;

/// One text that a model reads and writes. The model must outlive it. Not for two threads at once. Any number of
/// sessions may share a model; those with the same number of threads share a pool (core/shared_pool.h) and take turns,
/// layer by layer. After a move, use only the new one.
class Session {
  friend class SavedSession;  // run/saved_session.h
  friend class Batch;

 public:
  /// Errors: ErrorCode::argument; ErrorCode::limit for more than kv_cache_limit, before any memory is taken; system.
  explicit Session(const LanguageModel& model, const SessionOptions& options = {})
      : model_(&model), executor_(options.executor) {
    if (!options.adapters.empty() && !model.takes_adapters()) {
      fail(ErrorCode::not_supported, "Session: this model takes no adapters");
    }
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
  std::span<const Token> tokens() const { return tokens_; }

  /// The logits of the next token, until more is read. Errors: ErrorCode::argument if reading stopped after a chunk
  /// that was not its last, or if nothing was read yet or since truncate().
  std::span<const float> logits() const {
    if (!has_logits_)
      fail(ErrorCode::argument,
           "Session: no logits: nothing was read yet or since truncate(), or the last prompt was not finished");
    return logits_;
  }

  /// Reads more tokens. Errors: ErrorCode::argument, before anything is read, for a token outside the vocabulary or
  /// more than the context holds; cancelled if `progress` says so; file if a file can no longer be read. After an
  /// error, position() is the end of the last whole chunk. If no chunk was read, the logits remain.
  void read(std::span<const Token> tokens, const PromptProgress& progress = {}) { read(tokens, {}, progress); }

  /// As above, with embeddings: each soft_token takes the next row of `soft`, [soft tokens, d].
  void read(std::span<const Token> tokens, Rows soft, const PromptProgress& progress = {}) {
    check(tokens, soft);
    read_into({logits_.data(), 1, logits_.size(), logits_.size()}, tokens, soft, progress);
  }
  void read(Token token) { read(std::span(&token, 1)); }

  /// A hint that these tokens come next: what they need from files can be read meanwhile.
  void prefetch(std::span<const Token> tokens) { model_->prefetch(*state_, tokens); }
  void will_read(std::span<const Token> tokens) { prefetch(tokens); }  ///< Old name; goes with the next version.

  /// Reads tokens and returns the logits after each of the last `last` of them (default: all), [last, vocab_size],
  /// valid until the next call. The bits are those of reading token by token. Memory grows when needed. Errors: those
  /// of read().
  Rows read_logits(std::span<const Token> tokens, std::size_t last = (std::numeric_limits<std::size_t>::max)()) {
    check(tokens, {});
    const std::size_t width = logits_.size(), count = (std::min)(last, tokens.size());
    if (count * width > last_logits_.size()) last_logits_.resize(count * width);
    const Rows rows{last_logits_.data(), count, width, width};
    read_into(rows, tokens);
    return rows;
  }

  /// Reads tokens in chunks and calls each(i, logits) with the logits that follow tokens[i]. If `each` throws, the
  /// session has read to the end of the current chunk and has its logits.
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

  /// An independent copy: each continues with the bits it would have alone. Copies the K and V still seen, takes memory
  /// like a new session, and shares the pool or executor. Errors: those of the constructor; ErrorCode::not_supported
  /// where a model cannot.
  Session fork() const { return Session(*this, model_->copy_state(*state_)); }

  /// The earliest position, besides 0, that truncate() can go back to: `chunk` and SessionOptions::keep before the
  /// furthest position read, since sliding windows forget; 0 if none forgot. After SavedSession::load: the saved
  /// position less 1, or 0 if no window forgot.
  std::size_t truncatable_to() const { return state_->truncatable_to(); }
  std::size_t rewindable_from() const { return truncatable_to(); }  ///< Old name; goes with the next version.

  /// Forgets all from `position` on: later reads give the bits they would have if it had never been read. Then there
  /// are no logits. To get those at `position`, truncate to the position before and read its token again. Errors, with
  /// nothing changed: ErrorCode::argument for a position after the session's own, or whose K and V are gone.
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

  /// Forgets everything.
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

  /// What helps against a context that is too short.
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

  /// Reads chunk by chunk. Writes the logits of the last tokens to `logits`, which has no more rows than tokens.
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
