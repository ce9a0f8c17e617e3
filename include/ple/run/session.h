// SPDX-License-Identifier: Apache-2.0
// A session reads tokens and has the logits of what comes next. Tokens in, logits out: no text here.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/memory.h"
#include "ple/core/thread_pool.h"
#include "ple/core/token.h"
#include "ple/model/language_model.h"

namespace ple::inline PLE_ABI {

struct SessionOptions {
  std::size_t context = 0;            ///< most positions; 0: 4096, or the model's limit if that is less
  std::size_t chunk = 128;            ///< most tokens of a prompt that are computed at once, up to 65,536
  std::size_t threads = 0;            ///< of the session's own pool; 0: one for every hardware thread
  Dtype kv_cache_dtype = Dtype::f32;  ///< f32, bf16, f16 or q8_0: keys and values are rounded to it as they are written
  std::uint64_t kv_cache_limit = 0;   ///< most bytes that K and V may grow to, which the context decides; 0: any number
  Executor* executor = nullptr;       ///< runs the session instead of a pool of its own: a ThreadPool that several
                                      ///< sessions share, say; must outlive it
};

/// Called with the tokens read so far and their number in all; false cancels. It must not use the session.
using PromptProgress = std::function<bool(std::size_t done, std::size_t total)>;

/// One text being read and written by a model, which must outlive the session. Not for two threads at once; any number
/// of sessions may share a model. It can be moved, and then be used where it is now only.
class Session {
  friend class SavedSession;  // run/saved_session.h
  friend class Batch;

 public:
  /// Errors: ErrorCode::argument; ErrorCode::limit for more than kv_cache_limit, before any memory is taken; system.
  explicit Session(const LanguageModel& model, const SessionOptions& options = {})
      : model_(&model), executor_(options.executor) {
    context_ = options.context ? options.context : std::min<std::size_t>(4096, model.max_position_embeddings());
    chunk_ = (std::min)({options.chunk, context_, most_tokens_at_once});
    if (!executor_) {
      own_pool_ = std::make_unique<ThreadPool>(options.threads);
      executor_ = own_pool_.get();
    }
    state_ = model.make_state({.context = context_,
                               .chunk = chunk_,
                               .parts = tasks(*executor_),
                               .kv_cache_dtype = options.kv_cache_dtype,
                               .kv_cache_limit = options.kv_cache_limit});
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
  /// read was not finished, nothing was read yet, or nothing since rewind().
  std::span<const float> logits() const {
    if (!has_logits_)
      fail(ErrorCode::argument,
           "Session: no logits: nothing was read yet or since rewind(), or the last prompt was not finished");
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
    for (std::size_t done = 0, soft_done = 0; done < tokens.size();) {
      const std::size_t count = (std::min)(chunk_, tokens.size() - done);
      const bool last = done + count == tokens.size();
      const auto chunk = tokens.subspan(done, count);
      const auto soft_count = static_cast<std::size_t>(std::count(chunk.begin(), chunk.end(), soft_token));
      prefetch(tokens.subspan(done));
      forward(chunk, {logits_.data(), last ? std::size_t{1} : 0, logits_.size(), logits_.size()},
              soft.slice(soft_done, soft_count));
      done += count;
      soft_done += soft_count;
      if (progress && !progress(done, tokens.size()) && !last) {
        fail(ErrorCode::cancelled, "cancelled after ", done, " of ", tokens.size(), " tokens of the prompt");
      }
    }
  }
  void read(Token token) { read(std::span(&token, 1)); }

  /// A hint that these tokens will be read next, so that what they need from files is on its way meanwhile.
  void prefetch(std::span<const Token> tokens) { model_->prefetch(*state_, tokens); }
  void will_read(std::span<const Token> tokens) { prefetch(tokens); }  ///< Old name; goes with the next version.

  /// Reads tokens and calls each(i, logits) for every one of them, with the logits that follow tokens[i]. They are read
  /// in chunks: if `each` throws, the session has read up to the end of the one at hand, and its logits are of there.
  template <class F>
  void evaluate(std::span<const Token> tokens, F&& each) {
    check(tokens, {});
    AlignedVector<float> all((std::min)(chunk_, tokens.size()) * logits_.size());
    for (std::size_t done = 0; done < tokens.size();) {
      const std::size_t count = (std::min)(chunk_, tokens.size() - done);
      const Rows rows{all.data(), count, logits_.size(), logits_.size()};
      forward(tokens.subspan(done, count), rows, {});
      std::copy_n(rows.row(count - 1), rows.cols, logits_.data());
      for (std::size_t t = 0; t < count; ++t) each(done + t, std::span<const float>(rows.row(t), rows.cols));
      done += count;
    }
  }

  /// The earliest position that rewind() can go back to, other than 0. A layer with a sliding window forgets what is
  /// older, so it is `chunk` positions before the furthest that was read, or less while a window and a chunk hold all;
  /// after SavedSession::load, where the session was.
  std::size_t rewindable_from() const { return state_->rewindable_from(); }

  /// Goes back to where the session was after its first `position` tokens, as if the others had not been read. There
  /// are no logits until something is read: to have those of `position` again, go back one further and read its token.
  /// Errors, and then nothing has changed: ErrorCode::argument for a position after the session's own, or one of which
  /// K and V are gone.
  void rewind(std::size_t position) {
    if (position == state_->position) return;
    if (position > 0 && (position > state_->position || position < rewindable_from())) {
      fail(ErrorCode::argument, "Session: cannot go to position ", position, " from ", state_->position,
           ", expected 0 or ", rewindable_from(), " to ", state_->position);
    }
    if (position == 0) return reset();
    state_->rewind(tokens().first(position));
    tokens_.resize(position);
    has_logits_ = false;
  }

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
      if (token == soft_token) continue;
      if (token < 0 || static_cast<std::size_t>(token) >= model_->vocab_size()) {
        fail(ErrorCode::argument, "Session: token ", token, ", expected 0 to ", model_->vocab_size() - 1);
      }
    }
  }

  /// What can be done about a context that is too short.
  const char* longer_context() const {
    return context_ < model_->max_position_embeddings() ? "; SessionOptions::context makes it longer"
                                                        : ", which is as long as this model's can be";
  }

  void forward(std::span<const Token> tokens, Rows logits, Rows soft) {
    model_->forward(*state_, *executor_, tokens, logits, soft);
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
    has_logits_ = logits.rows > 0;
  }

  const LanguageModel* model_;
  std::size_t context_ = 0, chunk_ = 0;
  std::unique_ptr<ThreadPool> own_pool_;
  Executor* executor_;
  std::unique_ptr<ModelState> state_;
  std::vector<Token> tokens_;
  AlignedVector<float> logits_;
  bool has_logits_ = false;
};

}  // namespace ple::inline PLE_ABI
