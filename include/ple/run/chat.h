// SPDX-License-Identifier: Apache-2.0
// A conversation with a model: text in, text out, piece by piece.
#pragma once

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/model/language_model.h"
#include "ple/model/parameter.h"
#include "ple/run/conversation.h"
#include "ple/run/generation.h"
#include "ple/run/saved_session.h"
#include "ple/run/session.h"
#include "ple/text/chat_format.h"
#include "ple/text/tokenizer.h"

namespace ple::inline PLE_ABI {

/// A conversation, for one thread at a time. The model must outlive it. It can be moved, even during an answer.
class Chat {
  using Conversation = detail::Conversation;
  using Busy = Conversation::Busy;

  /// The turn that an answer belongs to.
  struct Turn {
    std::weak_ptr<Conversation> of;
    std::size_t number;

    /// Null once the conversation went on without the answer.
    std::shared_ptr<Conversation> conversation() const {
      auto conversation = of.lock();
      return conversation && conversation->turn == number ? conversation : nullptr;
    }
  };

 public:
  Chat(const Chat&) = delete;
  Chat& operator=(const Chat&) = delete;
  Chat(Chat&&) = default;
  Chat& operator=(Chat&&) = default;
  ~Chat() = default;

  /// `checkpoint`: an HfFolder, or a Checkpoint (with ple/text/open_tokenizer.h). Errors: those of Tokenizer::open,
  /// Session and chat_format(); ErrorCode::argument for an empty stop string; not_supported if the model cannot think.
  template <class Checkpoint>
  Chat(const LanguageModel& model, const Checkpoint& checkpoint, ChatOptions options = {});
  template <class Checkpoint>
  Chat(const LanguageModel&& model, const Checkpoint&, ChatOptions = {}) = delete;  // the model must outlive it

  /// An answer, as a range of pieces of text: `for (std::string_view piece : chat.say(...))`. The loop computes a piece
  /// when it gets there. A piece has whole characters and is valid until the next one. After a break or an error, a new
  /// loop goes on with the next piece. The answer and its loops end when the chat says something else, is reset or
  /// resumed, or is gone.
  class Answer {
   public:
    class Iterator {
     public:
      using difference_type = std::ptrdiff_t;
      using value_type = std::string_view;
      explicit Iterator(const Turn& turn) : turn_(turn) { ++*this; }
      std::string_view operator*() const { return piece_; }
      Iterator& operator++() {
        const auto conversation = turn_.conversation();
        piece_ = conversation ? conversation->next_piece() : std::string();
        return *this;
      }
      void operator++(int) { ++*this; }
      friend bool operator==(const Iterator& i, std::default_sentinel_t) { return i.piece_.empty(); }

     private:
      Turn turn_;
      std::string piece_;
    };

    /// Errors: ErrorCode::argument if the conversation went on without this answer; those of Generation::next, here and
    /// at every step: then a new loop goes on.
    Iterator begin() const {
      if (!turn_.conversation()) ended();
      return Iterator(turn_);
    }
    std::default_sentinel_t end() const { return {}; }

    /// All pieces that are left, as one string. Errors: those of begin(); no piece is lost.
    std::string text() const {
      const auto conversation = turn_.conversation();
      if (!conversation) ended();
      while (conversation->more()) continue;
      return std::exchange(conversation->ready, {});
    }

   private:
    friend class Chat;
    explicit Answer(const std::shared_ptr<Conversation>& conversation) : turn_{conversation, conversation->turn} {}
    [[noreturn]] static void ended() {
      fail(ErrorCode::argument, "Chat: this answer has ended: the chat said something else, was reset, or is gone");
    }
    Turn turn_;
  };

  /// Reads the user's turn and starts the answer; an earlier answer ends. Special tokens in `user` stay plain text.
  /// `progress` must not use the chat. Errors, with the message unsaid: ErrorCode::argument if the context is too short
  /// or a sampling option is out of range; cancelled if `progress` says so; file if a file can no longer be read; what
  /// `progress` throws.
  Answer say(std::string_view user, const PromptProgress& progress = {}) & {
    const std::shared_ptr<Conversation> c = conversation_;
    const Busy busy(*c);
    c->say(user, progress);
    return Answer(c);
  }
  Answer say(std::string_view user, const PromptProgress& progress = {}) && = delete;  // the answer needs the chat

  /// As say(), but returns the whole answer. Errors: those of say() and of Generation::next. After the latter,
  /// answer().text() returns the whole answer.
  std::string ask(std::string_view user, const PromptProgress& progress = {}) { return say(user, progress).text(); }

  Answer answer() & { return Answer(conversation_); }  ///< the rest of the current or last answer

  /// From any thread: ends what the chat does. A message being read stops at the next chunk, unsaid
  /// (ErrorCode::cancelled); if there is none, it is said. An answer ends before its next token
  /// (StopReason::cancelled). Otherwise nothing changes. Do not move the chat meanwhile.
  void cancel() { conversation_->cancel = true; }

  /// Starts a new conversation.
  void reset() {
    const Busy busy(*conversation_);
    conversation_->reset();
  }

  /// Starts a new conversation from these turns of user and model, the last the model's; without any, an empty one. A
  /// system turn may come first and replaces ChatOptions::system. Special tokens in them stay plain text. Errors:
  /// ErrorCode::argument for wrong turns or too many, with the conversation unchanged; those of Session::read, which
  /// empty the conversation.
  void start(std::span<const ChatMessage> messages, const PromptProgress& progress = {}) {
    const std::shared_ptr<Conversation> c = conversation_;
    const Busy busy(*c);
    c->start(messages, progress);
  }

  /// Saves the conversation to a file, a stream or memory. Errors: those of SavedSession::save and Session::read.
  template <class... To>
  auto save(To&&... to) {
    const Busy busy(*conversation_);
    conversation_->catch_up();
    return SavedSession::save(conversation_->session, to...);
  }

  /// Goes on with a saved conversation instead of this one, from a file, a stream or bytes. Errors: those of
  /// SavedSession::load. This conversation is then kept, or emptied if the session was.
  template <class From>
  void resume(From&& from) {
    const Busy busy(*conversation_);
    conversation_->resume([&](Session& session) { SavedSession::load(session, from); });
  }

  Session& session() { return conversation_->session; }
  const Tokenizer& tokenizer() const { return conversation_->tokenizer; }
  /// The answer being given, or the last one: how many tokens it has, and why it ended.
  const std::optional<Generation>& generation() const { return conversation_->generation; }
  /// Why the last answer ended; none: it has not ended, or there is none.
  StopReason stop_reason() const {
    const auto& generation = conversation_->generation;
    return generation ? generation->reason() : StopReason::none;
  }

 private:
  std::shared_ptr<Conversation> conversation_;
};

template <class Checkpoint>
Chat::Chat(const LanguageModel& model, const Checkpoint& checkpoint, ChatOptions options)
    : conversation_(std::make_shared<Conversation>(model, open_tokenizer(checkpoint), std::move(options))) {
  Conversation& c = *conversation_;
  c.format = c.options.format ? *c.options.format
                              : chat_format(c.tokenizer, checkpoint.chat_template(),
                                            /*is_large=*/!checkpoint.has(Parameter::ple_table));
  c.format.thinking |= c.options.thinking;
  if (c.format.thinking && !c.format.can_think)
    fail(ErrorCode::not_supported, checkpoint.folder().string(), ": the chat template has no thinking");
  // The files' recommendation is read only if it is needed.
  c.generation_options = {.sampling = c.options.sampling ? *c.options.sampling : checkpoint.recommended_sampling(),
                          .stop_tokens = checkpoint.stop_tokens(),
                          .max_tokens = c.options.max_tokens,
                          .logits_processor = c.options.logits_processor,
                          .cancelled = [&c] { return c.cancelled(); }};
  // These end a model's turn, whatever its files say.
  for (const std::string* name : {&c.format.eos, &c.format.turn_end, &c.format.tool_response}) {
    if (const auto token = c.tokenizer.token_to_id(*name)) c.generation_options.stop_tokens.push_back(*token);
  }
  c.turn_end = c.tokenizer.token_to_id(c.format.turn_end);
  c.thought_begin = c.tokenizer.token_to_id(c.format.thought_begin);
  c.thought_end = c.tokenizer.token_to_id(c.format.thought_end);
}

}  // namespace ple::inline PLE_ABI
