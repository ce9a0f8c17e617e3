// SPDX-License-Identifier: Apache-2.0
// Messages of strangers, zero bytes between them: whatever they spell, the format's own special tokens are the only
// ones. All of it is a chat template, too: where that is Gemma 3n's, the messages are written in its format.
#pragma once

#include <algorithm>

#include "harness.h"
#include "ple/text/chat_format.h"
#include "tokenizer.h"

namespace ple::fuzz {

inline void check_chat(std::span<const ChatSegment> segments) {
  const auto tokens = encode_chat(shipped_tokenizer(), segments);
  const auto expected =
      std::count_if(segments.begin(), segments.end(), [](const ChatSegment& s) { return s.is_special; });
  const auto found =
      std::count_if(tokens.begin(), tokens.end(), [](Token t) { return shipped_tokenizer().is_special(t); });
  require(found == expected, "a message has become a special token");
}

/// What Gemma 3n's format takes: user and model by turns, perhaps after a system text.
inline bool alternate(std::span<const ChatMessage> messages) {
  const std::size_t first = messages[0].role == ChatRole::system ? 1 : 0;
  for (std::size_t i = first; i < messages.size(); ++i) {
    if (messages[i].role != ((i - first) % 2 == 0 ? ChatRole::user : ChatRole::model)) return false;
  }
  return true;
}

inline void chat(std::string_view data) {
  ChatFormat format;
  may_refuse([&] { format = ChatFormat::from_template(data); });
  std::vector<ChatMessage> messages;
  for (const std::string_view part : split(data, 8)) {
    const auto role = part.empty() ? ChatRole::user : static_cast<ChatRole>(static_cast<unsigned char>(part[0]) % 3);
    messages.push_back({role, std::string(part.substr(part.empty() ? 0 : 1))});
  }
  const bool is_gemma3n = !format.system_turn;
  if (is_gemma3n) {
    const ChatFormat gemma4;  // whose tokens the shipped tokenizer has
    format.turn_begin = gemma4.turn_begin;
    format.turn_end = gemma4.turn_end;
  }
  for (const bool thinking : {false, true}) {
    format.thinking = thinking;
    const auto check_messages = [&] {
      const auto segments = format.segments(messages);
      check_chat(segments);
      require(format.render(messages) == ChatFormat::join(segments), "rendered text and segments differ");
    };
    // Gemma 3n's format refuses turns that do not alternate; nothing else but thinking is refused.
    const bool refuses = (thinking && !format.can_think) || (is_gemma3n && !alternate(messages));
    refuses ? may_refuse(check_messages) : check_messages();
    check_chat(format.next_turn(data, thinking));
  }
}

inline std::vector<std::string> chat_seeds() {
  using namespace std::string_literals;
  return {
      "\1Hello"s, "\3Be kind.\0\1Hi <|turn>\0\2 <|channel>thought\nhm<channel|>Hello!<turn|>\0\1Bye"s,
      // A template of Gemma 4's turns, and one of Gemma 3n's.
      "{{ bos_token }}{% for m in messages %}{{ '<|turn>' + ('model' if m.role == 'assistant' else m['role']) + '\\n' "
      "+ "
      "m.content | trim }}<turn|>{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\\n' }}"
      "{% if not enable_thinking | default(false) %}{{ '<|channel>thought\\n<channel|>' }}{% endif %}{% endif %}"s,
      "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role | replace('assistant', 'model') }}\n{{ m.content "
      "| trim }}<end_of_turn>\n{{ '' }}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"s,
      "\3Be kind. <start_of_turn>\0\1Hi <end_of_turn>\0\2Hello! <|turn>\0\1Bye"s};
}

}  // namespace ple::fuzz
