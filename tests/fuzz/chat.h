// SPDX-License-Identifier: Apache-2.0
// Messages of strangers, zero bytes between them: whatever they spell, the format's own special tokens are the only
// ones. And a chat template.
#pragma once

#include <algorithm>

#include "harness.h"
#include "ple/text/chat.h"
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

inline void chat(std::string_view data) {
  ChatFormat format;
  may_refuse([&] { format = ChatFormat::from_template(data); });
  std::vector<Message> messages;
  for (const std::string_view part : split(data, 8)) {
    const auto role = part.empty() ? Role::user : static_cast<Role>(static_cast<unsigned char>(part[0]) % 3);
    messages.push_back({role, std::string(part.substr(part.empty() ? 0 : 1))});
  }
  for (const bool thinking : {false, true}) {
    format.thinking = thinking;
    const auto segments = format.segments(messages);
    check_chat(segments);
    check_chat(format.next_turn(data, thinking));
    require(format.render(messages) == ChatFormat::join(segments), "rendered text and segments differ");
  }
}

inline std::vector<std::string> chat_seeds() {
  using namespace std::string_literals;
  return {"\1Hello"s, "\0Be kind.\0\1Hi <|turn>\0\2 <|channel>thought\nhm<channel|>Hello!<turn|>\0\1Bye"s,
          "{{ '<|turn>' }}{{ '<turn|>' }}<|channel>thought\\n<channel|>"s};
}

}  // namespace ple::fuzz
