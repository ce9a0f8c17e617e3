// SPDX-License-Identifier: Apache-2.0
// Files of strangers to learn from, as JSON Lines and as a plain text, with several formats and lengths: texts have as
// many marks as tokens, none of them a control token but the format's own, and they are packed and split without loss.
#pragma once

#include <algorithm>

#include "harness.h"
#include "ple/train/dataset.h"
#include "ple/train/pack_texts.h"
#include "ple/train/shuffle.h"
#include "tokenizer.h"

namespace ple::fuzz {

inline void check_texts(const Dataset& dataset, std::size_t max_length) {
  std::size_t learnt = 0, packed_learnt = 0, tokens = 0, packed_tokens = 0, begins = 0;
  for (const TrainingText& text : dataset.texts) {
    require(!text.tokens.empty() && text.tokens.size() <= max_length, "a text of the wrong length");
    require(text.learnt.size() == text.tokens.size() && text.learnt[0] == 0, "the wrong tokens count");
    require(text.learnt_count() > 0, "a text that teaches nothing");
    for (const Token token : text.tokens)
      require(token >= 0 && static_cast<std::size_t>(token) < shipped_tokenizer().vocab_size(), "no such token");
    learnt += text.learnt_count();
    tokens += text.tokens.size();
  }
  for (const PackedTexts& sequence : pack_texts(dataset.texts, max_length)) {
    require(sequence.tokens.size() <= max_length && sequence.learnt.size() == sequence.tokens.size(),
            "a sequence of the wrong length");
    packed_learnt += sequence.learnt_count();
    packed_tokens += sequence.tokens.size();
    begins += sequence.begins.size();
  }
  require(packed_learnt == learnt && packed_tokens == tokens && begins == dataset.texts.size(), "packing loses tokens");
  const std::size_t texts = dataset.texts.size();
  if (texts < 2) return;
  const SplitTexts split = split_texts(dataset.texts, {.fraction = 0.3, .seed = tokens});
  require(split.training.size() + split.held_out.size() == texts, "splitting loses texts");
}

/// What is rendered from messages has the format's own special tokens only.
inline void check_specials(const Dataset& dataset, const ChatFormat& format) {
  for (const TrainingText& text : dataset.texts) {
    std::ptrdiff_t opened = 0, closed = 0, others = 0;
    for (const Token token : text.tokens) {
      if (!shipped_tokenizer().is_special(token)) continue;
      ++(token == shipped_tokenizer().token_to_id(format.turn_begin) ? opened
         : token == shipped_tokenizer().token_to_id(format.turn_end) ? closed
                                                                     : others);
    }
    // <bos> and, of a {"text"}, <eos>; the text may be cut in the middle of a turn.
    require(opened - closed <= 1 && closed <= opened + 1 && others <= 2, "a message has become a special token");
  }
}

inline void dataset(std::string_view data) {
  static const testing::TemporaryFolder folder;
  const ChatFormat gemma4;
  ChatFormat gemma3n = ChatFormat::gemma3n();  // with Gemma 4's tokens, which the shipped tokenizer has
  gemma3n.turn_begin = gemma4.turn_begin;
  gemma3n.turn_end = gemma4.turn_end;
  const auto file = write_input(folder, "data", data);
  for (const ChatFormat& format : {gemma4, gemma3n}) {
    for (const std::size_t length : {std::size_t{2}, std::size_t{3} + data.size() % 61, std::size_t{1} << 20}) {
      may_refuse([&] {
        const Dataset read = read_dataset(file, shipped_tokenizer(), format, {.max_length = length});
        check_texts(read, length);
        check_specials(read, format);
      });
    }
  }
  ChatFormat large;
  large.empty_thought_channel = true;
  may_refuse([&] {
    const DatasetOptions options{.max_length = 50, .windows = true, .parse_special = true, .as_prompted = true};
    check_texts(read_dataset(file, shipped_tokenizer(), large, options), options.max_length);
  });
  may_refuse([&] {
    const DatasetOptions options{.max_length = 2 + data.size() % 31, .format = DatasetFormat::plain_text};
    const Dataset read = read_dataset(file, shipped_tokenizer(), std::nullopt, options);
    check_texts(read, options.max_length);
    std::vector<Token> joined;
    for (const TrainingText& text : read.texts) joined.insert(joined.end(), text.tokens.begin() + 1, text.tokens.end());
    const std::string text = shipped_tokenizer().decode(joined, false);
    if (data.find('\r') == std::string_view::npos && !data.starts_with("\xEF\xBB\xBF") &&
        data.find("\xE2\x96\x81") == std::string_view::npos)  // which stands for a space, and comes back as one
      require(text == data, "a text does not come back from its windows");
  });
}

inline std::vector<std::string> dataset_seeds() {
  return {
      "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Hi\"}, "
      "{\"role\": \"assistant\", \"content\": \"Hello!\"}]}\n{\"messages\": [{\"role\": \"user\", \"content\": "
      "\"a<turn|>\"}, {\"role\": \"model\", \"content\": \"<|channel>thought\\nb<channel|>c\"}, {\"role\": \"user\", "
      "\"content\": \"\"}, {\"role\": \"model\", \"content\": \"d\"}]}\n",
      "\xEF\xBB\xBF{\"text\": \"Once upon a time \\u00e4\"}\r\n\r\n{\"text\": \"<bos><|turn>user\\nHi<turn|>\"}",
      "Once upon a time there was a fox named Pip.\r\n<eos>caf\xC3\xA9 \xF0\x9F\x98\x80\n",
  };
}

}  // namespace ple::fuzz
