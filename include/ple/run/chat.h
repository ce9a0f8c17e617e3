// SPDX-License-Identifier: Apache-2.0
// A conversation with a model: text in, text out, piece by piece.
#pragma once

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/model/language_model.h"
#include "ple/model/parameter.h"
#include "ple/run/generation.h"
#include "ple/run/saved_session.h"
#include "ple/run/session.h"
#include "ple/simd/backend.h"
#include "ple/text/chat.h"
#include "ple/text/stream_decoder.h"
#include "ple/text/tokenizer.h"

namespace ple {
inline namespace PLE_ABI {

struct ChatOptions {
  std::string system = {};                       ///< what the model is told before the first turn
  bool thinking = false;                         ///< let the model think before it answers
  bool show_thinking = false;                    ///< the answer's text includes the thoughts
  std::optional<ChatFormat> format = {};         ///< nothing: what the checkpoint's template writes
  std::optional<SamplingOptions> sampling = {};  ///< nothing: what the checkpoint recommends
  std::size_t max_tokens = 0;                    ///< of one answer; 0: until the context is full
  SessionOptions session = {};
};

/// A conversation. The model must outlive it.
class Chat {
 public:
  Chat(const Chat&) = delete;
  Chat& operator=(const Chat&) = delete;

  /// `checkpoint`: an HfFolder, or a Checkpoint (with ple/text/open_tokenizer.h). Errors: those of Tokenizer::open and
  /// Session and chat_format(); ErrorCode::not_supported for a model that shall think but does not know how.
  template <class Checkpoint>
  Chat(const LanguageModel& model, const Checkpoint& checkpoint, ChatOptions options = {})
      : options_(std::move(options)), tokenizer_(open_tokenizer(checkpoint)), session_(model, options_.session) {
    format_ = options_.format ? *options_.format
                              : chat_format(tokenizer_, checkpoint.chat_template(),
                                            /*is_large=*/!checkpoint.has(Parameter::ple_table));
    format_.thinking |= options_.thinking;
    if (format_.thinking && !format_.can_think)
      fail(ErrorCode::not_supported, checkpoint.folder().string(), ": the chat template has no thinking");
    // What the files recommend is read only if it is asked for.
    generation_options_.sampling = options_.sampling ? *options_.sampling : checkpoint.recommended_sampling();
    generation_options_.max_tokens = options_.max_tokens;
    generation_options_.stop_tokens = checkpoint.stop_tokens();
    // A model's turn ends with these, whatever its files say: 50 is where it waits for what a tool answers.
    for (const std::string_view name :
         {std::string_view("<eos>"), std::string_view(format_.turn_end), std::string_view("<|tool_response>")}) {
      if (const auto token = tokenizer_.token_to_id(name)) generation_options_.stop_tokens.push_back(*token);
    }
    thought_begin_ = tokenizer_.token_to_id("<|channel>");
    thought_end_ = tokenizer_.token_to_id("<channel|>");
  }

  /// An answer, as a range of pieces of text: `for (std::string_view piece : chat.say(...))`. A piece is computed when
  /// the loop comes to it, holds whole characters, and is valid until the next one. It may be iterated once; leaving
  /// the loop early ends the answer there.
  class Answer {
   public:
    class Iterator {
     public:
      using difference_type = std::ptrdiff_t;
      using value_type = std::string_view;
      explicit Iterator(Chat* chat) : chat_(chat) { ++*this; }
      std::string_view operator*() const { return chat_->piece_; }
      Iterator& operator++() {
        if (!chat_->next_piece()) chat_ = nullptr;
        return *this;
      }
      void operator++(int) { ++*this; }
      friend bool operator==(const Iterator& i, std::default_sentinel_t) { return i.chat_ == nullptr; }

     private:
      Chat* chat_;
    };
    Iterator begin() const { return Iterator(chat_); }
    std::default_sentinel_t end() const { return {}; }

   private:
    friend class Chat;
    explicit Answer(Chat* chat) : chat_(chat) {}
    Chat* chat_;
  };

  /// Reads the user's turn and starts the answer. Special tokens that `user` spells stay plain text.
  /// Errors: ErrorCode::argument if the context is too short; ErrorCode::cancelled if `progress` says so, and then the
  /// conversation should be reset.
  Answer say(std::string_view user, const PromptProgress& progress = {}) {
    std::vector<ChatSegment> segments;
    if (session_.position() > 0) {
      if (generation_) generation_->flush();
      segments = format_.next_turn(user, /*turn_closed=*/false);
    } else {
      std::vector<Message> messages;
      if (!options_.system.empty()) messages.push_back({Role::system, options_.system});
      messages.push_back({Role::user, std::string(user)});
      segments = format_.segments(messages);
    }
    session_.read(encode_chat(tokenizer_, segments), progress);
    decoder_ = StreamDecoder(tokenizer_);
    in_thought_ = false;
    generation_.emplace(session_, generation_options_);
    ++generation_options_.sampling.seed;  // the next answer draws other numbers
    return Answer(this);
  }

  /// Begins a new conversation.
  void reset() {
    generation_.reset();
    session_.reset();
  }

  /// Writes the conversation so far to a file. Errors: those of SavedSession::save.
  void save(const std::filesystem::path& path) {
    if (generation_) generation_->flush();
    SavedSession::save(session_, path);
  }

  /// Goes on with a conversation that was saved, instead of this one. Errors: those of SavedSession::load.
  void resume(const std::filesystem::path& path) {
    generation_.reset();
    SavedSession::load(session_, path);
  }

  Session& session() { return session_; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  /// The answer being given, or the last one: how many tokens it has, and why it ended.
  const std::optional<Generation>& generation() const { return generation_; }

 private:
  /// Computes tokens until there is text in piece_; false at the end of the answer.
  bool next_piece() {
    piece_.clear();
    while (piece_.empty()) {
      const auto token = generation_->next();
      if (!token) {
        piece_ = decoder_.finish();
        return !piece_.empty();
      }
      if (token == thought_begin_) in_thought_ = true;
      std::string text = decoder_.push(*token);
      if (!in_thought_ || options_.show_thinking) piece_ = std::move(text);
      if (token == thought_end_) in_thought_ = false;
    }
    return true;
  }

  ChatOptions options_;
  Tokenizer tokenizer_;
  ChatFormat format_;
  Session session_;
  GenerationOptions generation_options_;
  std::optional<Generation> generation_;
  StreamDecoder decoder_{tokenizer_};
  std::optional<Token> thought_begin_, thought_end_;
  bool in_thought_ = false;
  std::string piece_;
};

}  // namespace PLE_ABI
}  // namespace ple

// clang has no note that is not a warning, and this must not break a build with -Werror.
#if (HWY_STATIC_TARGET == HWY_SCALAR || HWY_STATIC_TARGET == HWY_EMU128) && !defined(HIGHWAY_HWY_FOREACH_TARGET_H_) && \
    !defined(__clang__)
#pragma message("ple::Simd is one lane wide here: compile with -march=native, or use BestSimd of <ple/dispatch.h>")
#endif
