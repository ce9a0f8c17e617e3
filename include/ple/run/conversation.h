// SPDX-License-Identifier: Apache-2.0
// What a Chat and its answers share.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
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
#include "ple/model/sampling_options.h"
#include "ple/run/generation.h"
#include "ple/run/session.h"
#include "ple/text/chat_format.h"
#include "ple/text/stop_strings.h"
#include "ple/text/stream_decoder.h"
#include "ple/text/tokenizer.h"

namespace ple::inline PLE_ABI {

struct ChatOptions {
  std::string system = {};                       ///< what the model is told before the first turn
  bool thinking = false;                         ///< let the model think before it answers
  bool show_thinking = false;                    ///< the answer's text includes the thoughts
  std::optional<ChatFormat> format = {};         ///< default: the checkpoint's template
  std::optional<SamplingOptions> sampling = {};  ///< default: the checkpoint's recommendation
  std::size_t max_tokens = 0;                    ///< of one answer; 0: until the context is full
  std::vector<std::string> stop_strings = {};    ///< an answer's text ends before the first of them
  LogitsProcessor logits_processor = {};         ///< called before each token is drawn; must not use the chat
  std::function<bool()> cancelled = {};          ///< before each token and chunk; true cancels; must not use the chat
  SessionOptions session = {};
};

namespace detail {

/// What answers share with the chat, at an address that stays. Functions that are slow to compile are templates:
/// ple/models.h can declare them as compiled elsewhere.
struct Conversation {
  /// While one lives, a caller's function may run: the chat must not change. Errors: ErrorCode::argument for another.
  struct Busy {
    Conversation& of;
    explicit Busy(Conversation& conversation) : of(conversation) {
      if (std::exchange(of.busy, true)) {
        fail(ErrorCode::argument,
             "Chat: it is used by a function that it calls (progress, logits_processor, cancelled): let it return "
             "first");
      }
    }
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;
    ~Busy() { of.busy = false; }
  };

  Conversation(const LanguageModel& model, Tokenizer t, ChatOptions o)
      : options(std::move(o)),
        tokenizer(std::move(t)),
        session(model, options.session),
        stop_strings(options.stop_strings) {}

  bool cancelled() { return cancel.load(std::memory_order_relaxed) || (options.cancelled && options.cancelled()); }

  template <class = void>
  void say(std::string_view user, const PromptProgress& progress);

  /// Ends the answer being given. The rest of it is lost.
  void end_answer() {
    ++turn;
    if (generation) generation->stop();
    decoder = StreamDecoder(tokenizer);
    stop_strings.finish();
    ready.clear();
    drawn.reset();
    decoded.reset();
    in_thought = false;
  }

  void reset() {
    end_answer();
    generation.reset();
    unread.clear();
    session.reset();
  }

  void start(std::span<const ChatMessage> messages, const PromptProgress& progress) {
    if (messages.empty()) return reset();
    if (messages.back().role != ChatRole::model) {
      fail(ErrorCode::argument, "Chat::start: the last of ", messages.size(),
           " messages is not the model's: say() it instead");
    }
    auto segments = format.segments(with_system(messages), /*add_generation_prompt=*/false);
    segments.pop_back();  // the line break after the last turn, which next_turn() begins with
    const std::vector<Token> tokens = encode_chat(tokenizer, segments);
    if (tokens.size() > session.context()) {
      fail(ErrorCode::argument, "Chat::start: ", messages.size(), " messages of ", tokens.size(),
           " tokens go past the context of ", session.context());
    }
    cancel = false;
    reset();
    read(tokens, progress);
  }

  template <class Load>
  void resume(Load&& load) {
    const std::size_t before = session.position();
    try {
      load(session);
    } catch (...) {
      if (session.position() != before) reset();
      throw;
    }
    end_answer();
    generation.reset();
    unread.clear();
  }

  /// Makes the session read the rest of the conversation.
  void catch_up(const PromptProgress& progress = {}) {
    cancel = false;
    if (generation) generation->flush();
    if (unread.empty()) return;
    session.read(std::span(unread).subspan(session.position()), or_cancelled(progress));
    unread.clear();
  }

  /// Adds text to `ready`; false at the end of the answer. After an error, the next call goes on from there.
  template <class = void>
  bool more();

  /// The next piece of text; empty at the end of the answer.
  std::string next_piece() {
    if (ready.empty()) more();
    return std::exchange(ready, {});
  }

  ChatOptions options;
  Tokenizer tokenizer;
  ChatFormat format;
  Session session;
  GenerationOptions generation_options;
  std::optional<Generation> generation;
  StreamDecoder decoder{tokenizer};
  StopStrings stop_strings;
  std::optional<Token> turn_end, thought_begin, thought_end;
  bool in_thought = false;
  std::string ready;                   // text of the answer, not given out yet
  std::optional<Token> drawn;          // a token that is not in `ready` yet
  std::optional<std::string> decoded;  // its text
  std::atomic<bool> cancel{false};     // from another thread
  bool busy = false;                   // a caller's function may be running
  std::size_t turn = 0;                // number of the answer being given
  /// After a failed say() that could not go back: the conversation's tokens, which the session must read again.
  std::vector<Token> unread;

 private:
  /// Asks between chunks, not after the last: a message that was read to its end was said.
  PromptProgress or_cancelled(const PromptProgress& progress) {
    return [this, &progress](std::size_t done, std::size_t total) {
      return (done == total || !cancelled()) && (!progress || progress(done, total));
    };
  }

  std::vector<ChatMessage> with_system(std::span<const ChatMessage> messages) const {
    std::vector<ChatMessage> all;
    if (!options.system.empty() && messages[0].role != ChatRole::system)
      all.push_back({ChatRole::system, options.system});
    all.insert(all.end(), messages.begin(), messages.end());
    return all;
  }

  /// Reads all of these tokens. After an error, goes back to where the session was.
  void read(const std::vector<Token>& tokens, const PromptProgress& progress) {
    const std::size_t before = session.position();
    std::vector<Token> earlier(session.tokens().begin(), session.tokens().end());
    try {
      session.read(tokens, or_cancelled(progress));
    } catch (...) {
      if (before == 0 || before >= session.truncatable_to()) {
        session.truncate(before);
      } else {  // sliding windows no longer have these positions
        session.reset();
        unread.swap(earlier);
      }
      throw;
    }
  }
};

template <class>
void Conversation::say(std::string_view user, const PromptProgress& progress) {
  end_answer();
  catch_up(progress);
  std::vector<ChatSegment> segments;
  if (session.position() > 0) {
    // A generated turn is not closed yet: the session has not read its stop token.
    segments = format.next_turn(user, /*turn_closed=*/turn_end && session.tokens().back() == *turn_end);
  } else {
    const ChatMessage message[] = {{ChatRole::user, std::string(user)}};
    segments = format.segments(with_system(message));
  }
  Generation answer(session, generation_options);
  read(encode_chat(tokenizer, segments), progress);
  generation = std::move(answer);
  ++generation_options.sampling.seed;  // the next answer draws other numbers
}

template <class>
bool Conversation::more() {
  const Busy mark(*this);
  const std::size_t before = ready.size();
  while (generation && ready.size() == before) {
    if (!drawn) drawn = generation->next();
    if (drawn && drawn == thought_begin) in_thought = true;
    if (!decoded) decoded = drawn ? decoder.push(*drawn) : decoder.finish();
    if (!in_thought || options.show_thinking) stop_strings.push(*decoded, ready);
    decoded.reset();
    if (!drawn) {
      stop_strings.finish(ready);
      return false;
    }
    if (drawn == thought_end) in_thought = false;
    drawn.reset();
    if (stop_strings.found()) generation->stop(StopReason::stop_string);
  }
  return generation.has_value();
}

}  // namespace detail

}  // namespace ple::inline PLE_ABI
