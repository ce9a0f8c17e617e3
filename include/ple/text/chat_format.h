// SPDX-License-Identifier: Apache-2.0
// The chat formats of Gemma 4 and of Gemma 3 and 3n, as their chat_template.jinja renders turns of text. The template
// only tells which format it is: if it rendered conversations, a user's text could open a turn.
#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json.h"
#include "ple/core/token.h"
#include "ple/text/jinja.h"
#include "ple/text/tokenizer.h"
#include "ple/text/utf8.h"

namespace ple::inline PLE_ABI {

enum class ChatRole { system, user, model };

struct ChatMessage {
  ChatRole role = ChatRole::user;
  std::string content;
};
using Message = ChatMessage;  ///< Old names; they go with the next version.
using Role = ChatRole;

/// A piece of a rendered chat: one special token, or the text between two of them.
struct ChatSegment {
  std::string text;
  bool is_special = false;
};

/// How a conversation becomes text. ChatRole::model is the reference's `assistant`.
struct ChatFormat {
  bool thinking = false;               ///< let the model think in a thought channel before it answers
  bool empty_thought_channel = false;  ///< open an empty one if not `thinking`: for large models, not for E2B and E4B
  bool removes_thoughts = true;        ///< from the model's earlier messages
  bool can_think = true;               ///< false: `thinking` is refused
  bool system_turn = true;             ///< false: the system text begins the first user turn
  std::string bos = "<bos>";           ///< begins the text
  std::string turn_begin = "<|turn>", turn_end = "<turn|>";
  std::string thought_begin = "<|channel>", thought_end = "<channel|>";
  std::string think = "<|think|>";                 ///< in the system turn: lets the model think
  std::string tool_response = "<|tool_response>";  ///< ends the model's turn to wait for a tool's answer
  std::string eos = "<eos>";                       ///< ends the text

  /// Gemma 3n's, as Gemma 2's and 3's: turns of user and model alternate.
  static ChatFormat gemma3n() {
    return {.removes_thoughts = false,
            .can_think = false,
            .system_turn = false,
            .turn_begin = "<start_of_turn>",
            .turn_end = "<end_of_turn>"};
  }

  /// The format of a checkpoint's template, found by rendering short chats (model turn open or not, thinking or not, an
  /// earlier thought). Errors: those of JinjaTemplate; ErrorCode::not_supported if neither Gemma 4's nor Gemma 3n's.
  static ChatFormat from_template(std::string_view jinja) {
    const JinjaTemplate written(jinja);
    const std::vector<ChatMessage> user = {{ChatRole::user, "Hello"}};
    ChatFormat format;
    const std::vector<ChatMessage> history = {
        user[0], {ChatRole::model, format.thought_begin + "thought\nHm.\n" + format.thought_end + "Hi"}};
    const std::string turn = format.rendered_by(written, user, false);
    if (turn == gemma3n().render(user, false)) {
      format = gemma3n();
    } else if (turn != format.render(user, false)) {
      other_template("a user's turn", turn, format.render(user, false));
    }
    const std::string prompt = format.rendered_by(written, user, true);
    const std::string without_channel = format.render(user);
    format.empty_thought_channel = format.system_turn && prompt != without_channel;
    if (prompt != format.render(user)) other_template("the opening of the model's turn", prompt, without_channel);
    if (!format.system_turn) return format;
    const std::string answered = format.rendered_by(written, history, false);
    format.removes_thoughts = answered == format.render(history, false);
    if (!format.removes_thoughts && answered != format.render(history, false))
      other_template("an answer with a thought", answered, format.render(history, false));
    format.thinking = true;
    format.can_think = format.rendered_by(written, user, true) == format.render(user);
    format.thinking = false;
    return format;
  }

  /// The conversation with `<bos>` (encode with add_special = false); `add_generation_prompt` opens a model turn. As in
  /// the reference, special tokens spelled in messages become tokens: use segments() and encode_chat() for untrusted
  /// text. Throws argument for no message or Gemma 3n turns out of order, not_supported if it cannot think.
  std::string render(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const {
    return join(segments(messages, add_generation_prompt));
  }

  /// The same in segments, so that only the format's own special tokens become tokens.
  std::vector<ChatSegment> segments(std::span<const ChatMessage> messages, bool add_generation_prompt = true) const {
    if (messages.empty()) fail(ErrorCode::argument, "a chat of 0 messages, expected at least 1");
    if (thinking && !can_think) fail(ErrorCode::not_supported, "this chat format has no thinking");
    Writer out;
    out.special(bos);
    const bool has_system = messages[0].role == ChatRole::system;
    if (system_turn && (thinking || has_system)) {
      out.special(turn_begin).text("system\n");
      if (thinking) out.special(think).text("\n");
      if (has_system) out.text(trim(messages[0].content));
      out.special(turn_end).text("\n");
    }
    const auto turns = messages.subspan(has_system ? 1 : 0);
    for (std::size_t i = 0; i < turns.size(); ++i) {
      const ChatMessage& message = turns[i];
      const bool is_model = message.role == ChatRole::model;
      if (!system_turn && message.role != (i % 2 == 0 ? ChatRole::user : ChatRole::model)) {
        fail(ErrorCode::argument, "turn ", i, " of the chat is not the ", i % 2 == 0 ? "user's" : "model's",
             ": user and model have to alternate in this format");
      }
      // A second model message in a row opens no turn, though the first one's is closed.
      if (!is_model || i == 0 || turns[i - 1].role != ChatRole::model) {
        out.special(turn_begin).text(is_model ? "model\n" : message.role == ChatRole::user ? "user\n" : "system\n");
      }
      if (!system_turn && has_system && i == 0) out.text(messages[0].content).text("\n\n");
      if (is_model && removes_thoughts) {
        out.text(without_thoughts(message.content));
      } else {
        out.text(trim(message.content));
      }
      out.special(turn_end).text("\n");
    }
    if (add_generation_prompt) open_model_turn(out);
    return out.segments;
  }

  /// What follows a generated model turn: the user's message and the opening of the next model turn. `turn_closed`: the
  /// session has already read the last one's `turn_end`. Unlike render(), this keeps the model's thoughts in the
  /// context.
  std::vector<ChatSegment> next_turn(std::string_view user_text, bool turn_closed) const {
    Writer out;
    if (!turn_closed) out.special(turn_end);
    out.text("\n").special(turn_begin).text("user\n").text(trim(user_text)).special(turn_end).text("\n");
    open_model_turn(out);
    return out.segments;
  }

  static std::string join(std::span<const ChatSegment> segments) {
    std::string text;
    for (const ChatSegment& segment : segments) text += segment.text;
    return text;
  }

  /// The message without thoughts and outer whitespace: how earlier model turns are rendered if `removes_thoughts`.
  std::string without_thoughts(std::string_view text) const {
    std::string kept;
    while (true) {
      const std::size_t close = text.find(thought_end);
      const std::string_view part = text.substr(0, close);
      kept += part.substr(0, part.find(thought_begin));
      if (close == std::string_view::npos) return std::string(trim(kept));
      text.remove_prefix(close + thought_end.size());
    }
  }

  /// Removes at both ends the whitespace that Python's str.strip() removes.
  static std::string_view trim(std::string_view text) { return detail::strip_left(detail::strip_right(text)); }

 private:
  struct Writer {
    std::vector<ChatSegment> segments;

    Writer& special(std::string_view token) {
      segments.push_back({std::string(token), true});
      return *this;
    }
    // Adjacent texts form one segment, because they must be encoded in one go.
    Writer& text(std::string_view text) {
      if (segments.empty() || segments.back().is_special) segments.push_back({});
      segments.back().text += text;
      return *this;
    }
  };

  /// Renders a conversation as transformers does. Adds <bos> if the template leaves it to the tokenizer.
  std::string rendered_by(const JinjaTemplate& written, std::span<const ChatMessage> messages, bool prompt) const {
    Json list = Json::array();
    for (const ChatMessage& message : messages) {
      const char* const role = message.role == ChatRole::system ? "system"
                               : message.role == ChatRole::user ? "user"
                                                                : "assistant";
      Json& turn = list.push_back(Json::object());
      turn.add("role", Json(std::string(role)));
      turn.add("content", Json(message.content));
    }
    Json variables = Json::object();
    variables.add("messages", std::move(list));
    for (const char* const name : {"bos", "eos", "unk", "pad"})
      variables.add(std::string(name) + "_token", Json("<" + std::string(name) + ">"));
    variables.add("add_generation_prompt", Json(prompt));
    variables.add("enable_thinking", Json(thinking));
    for (const char* const name : {"tools", "documents"}) variables.add(name, Json());
    std::string text = written.render(variables);
    return text.starts_with(bos) ? text : bos + text;
  }

  [[noreturn]] static void other_template(const char* what, std::string_view found, std::string_view expected) {
    fail(ErrorCode::not_supported, "the chat template writes ", what, " as '", found.substr(0, 200), "', expected '",
         expected, "'");
  }

  void open_model_turn(Writer& out) const {
    out.special(turn_begin).text("model\n");
    if (!thinking && empty_thought_channel) out.special(thought_begin).text("thought\n").special(thought_end);
  }
};

/// Old name; goes with the next version.
inline std::string strip_thinking(std::string_view text) { return ChatFormat().without_thoughts(text); }

/// The chat format of a model: that of its template, or else of the family whose turn tokens the tokenizer has.
/// `is_large` is for models without Per-Layer Embeddings: they get the empty thought channel. Errors: those of
/// ChatFormat::from_template; ErrorCode::missing if the tokenizer has no turn tokens.
inline ChatFormat chat_format(const Tokenizer& tokenizer, const std::optional<std::string>& jinja, bool is_large) {
  const auto missing = [&](const ChatFormat& format) -> std::string {
    std::vector<std::string> needed = {format.turn_begin, format.turn_end};
    if (format.empty_thought_channel) needed.insert(needed.end(), {format.thought_begin, format.thought_end});
    for (const std::string& token : needed) {
      if (!tokenizer.token_to_id(token)) return token;
    }
    return {};
  };
  if (jinja) {
    ChatFormat format = ChatFormat::from_template(*jinja);
    const std::string token = missing(format);
    if (!token.empty())
      fail(ErrorCode::missing, "the chat template writes '", token, "', for which the tokenizer has no token");
    return format;
  }
  ChatFormat gemma4{.empty_thought_channel = is_large}, gemma3n = ChatFormat::gemma3n();
  if (missing(gemma4).empty()) return gemma4;
  if (missing(gemma3n).empty()) return gemma3n;
  fail(ErrorCode::missing,
       "there is no chat template, and the tokenizer has tokens neither for Gemma 4's turns nor for Gemma 3n's");
}

/// Encodes a chat so that only the format's own special tokens become tokens; messages stay plain text. Equals encoding
/// the rendered text unless a message spells a special token. `ends`, if wanted, becomes the number of tokens up to the
/// end of each segment. Throws missing if the tokenizer lacks a special token.
inline std::vector<Token> encode_chat(const Tokenizer& tokenizer, std::span<const ChatSegment> segments,
                                      std::vector<std::size_t>* ends = nullptr) {
  std::vector<Token> own;    // of the special segments
  std::vector<Token> never;  // those of them that the tokenizer does not treat as control tokens
  for (const ChatSegment& segment : segments) {
    if (!segment.is_special) continue;
    const auto token = tokenizer.token_to_id(segment.text);
    if (!token) fail(ErrorCode::missing, "the tokenizer has no '", segment.text, "', which the chat format needs");
    own.push_back(*token);
    if (!tokenizer.is_control(*token) && std::find(never.begin(), never.end(), *token) == never.end())
      never.push_back(*token);
  }
  std::vector<Token> tokens;
  if (ends) ends->clear();
  auto next = own.begin();
  for (const ChatSegment& segment : segments) {
    if (segment.is_special) {
      tokens.push_back(*next++);
    } else {
      const auto part = tokenizer.encode(segment.text, {.add_special = false, .parse_special = false, .never = never});
      tokens.insert(tokens.end(), part.begin(), part.end());
    }
    if (ends) ends->push_back(tokens.size());
  }
  return tokens;
}

}  // namespace ple::inline PLE_ABI
