// SPDX-License-Identifier: Apache-2.0
// A conversation as a text to learn from, in which only the answers count.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/text/chat_format.h"
#include "ple/text/tokenizer.h"
#include "ple/train/training_text.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// Segments of a chat, and from which byte on each is learnt; its size: none of it is.
struct MarkedChat {
  std::vector<ChatSegment> segments = {};
  std::vector<std::size_t> learnt_from = {};

  void add(ChatSegment segment, std::size_t from) {
    learnt_from.push_back(from);
    segments.push_back(std::move(segment));
  }
};

/// How the model's turn begins. It is given to the model, which never writes it.
inline constexpr std::string_view model_role_line = "model\n";

/// The answers: what the model writes up to the mark that ends its turn, and the line break after it.
inline MarkedChat mark_answers(const ChatFormat& format, std::vector<ChatSegment> segments, bool as_prompted) {
  MarkedChat chat;
  bool in_answer = false, turn_opened = false;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    ChatSegment& segment = segments[i];
    if (segment.is_special) {
      turn_opened = segment.text == format.turn_begin;
      // Messages are never special segments, so that a user's text cannot pass for an answer.
      if (turn_opened) in_answer = i + 1 < segments.size() && segments[i + 1].text.starts_with(model_role_line);
      const std::size_t from = in_answer && !turn_opened ? 0 : segment.text.size();
      chat.add(std::move(segment), from);
    } else if (in_answer && turn_opened && as_prompted) {
      const std::size_t line = model_role_line.size();
      std::string answer = segment.text.substr(line);
      segment.text.resize(line);
      chat.add(std::move(segment), line);
      chat.add({format.thought_begin, true}, format.thought_begin.size());
      chat.add({"thought\n", false}, std::string_view("thought\n").size());
      chat.add({format.thought_end, true}, format.thought_end.size());
      chat.add({std::move(answer), false}, 0);
      turn_opened = false;
    } else {
      const std::size_t from = !in_answer ? segment.text.size() : turn_opened ? model_role_line.size() : 0;
      chat.add(std::move(segment), from);
      turn_opened = false;
    }
  }
  return chat;
}

/// How many of `tokens`, which encode a text that begins with `start`, encode that start. A token that reaches past its
/// end is of the start: the model, which is given the start, could not write it.
inline std::size_t tokens_of_start(const Tokenizer& tokenizer, std::span<const Token> tokens, std::string_view start) {
  const std::vector<Token> alone = tokenizer.encode(start, {.add_special = false, .parse_special = false});
  if (alone.size() <= tokens.size() && std::equal(alone.begin(), alone.end(), tokens.begin())) return alone.size();
  const std::size_t bytes = tokenizer.decode(alone, /*skip_special=*/false).size();
  std::string text;
  PieceDecoder::State state;
  std::size_t count = 0;
  while (count < tokens.size() && text.size() + state.bytes.size() < bytes)
    tokenizer.decode_next(state, tokens[count++], /*skip_special=*/false, text);
  return count;
}

}  // namespace detail

/// A conversation as the format renders it, the last turn closed: the tokens of the whole, in one go, as encode_chat()
/// gives them. Learnt are the model's contents, the mark that ends each and the line break after it; not the line that
/// names the role, nor what others say. Special tokens spelled in messages stay plain text.
///
/// `as_prompted`: answers begin with the empty thought channel, if the format's prompts do: large models are given one,
/// and it is not in a rendered conversation. It is not learnt. Errors: those of ChatFormat::segments and encode_chat.
inline TrainingText chat_text(const Tokenizer& tokenizer, const ChatFormat& format,
                              std::span<const ChatMessage> messages, bool as_prompted = false) {
  const bool empty_channel = as_prompted && format.empty_thought_channel && !format.thinking;
  const auto chat =
      detail::mark_answers(format, format.segments(messages, /*add_generation_prompt=*/false), empty_channel);
  std::vector<std::size_t> ends;
  TrainingText text;
  text.tokens = encode_chat(tokenizer, chat.segments, &ends);
  text.learnt.resize(text.tokens.size());
  for (std::size_t i = 0, begin = 0; i < ends.size(); begin = ends[i++]) {
    const std::string_view segment = chat.segments[i].text;
    const std::size_t from = chat.learnt_from[i];
    if (from == segment.size()) continue;
    std::size_t first = begin;
    if (from > 0) {
      first += detail::tokens_of_start(tokenizer, std::span(text.tokens).subspan(begin, ends[i] - begin),
                                       segment.substr(0, from));
    }
    std::fill(text.learnt.begin() + static_cast<std::ptrdiff_t>(first),
              text.learnt.begin() + static_cast<std::ptrdiff_t>(ends[i]), std::uint8_t{1});
  }
  if (!text.learnt.empty()) text.learnt.front() = 0;
  return text;
}

}  // namespace ple::inline PLE_ABI
