// SPDX-License-Identifier: Apache-2.0
// Texts and tokens of strangers with a tokenizer that is fine.
#pragma once

#include <cstring>

#include "harness.h"
#include "ple/text/stream_decoder.h"
#include "ple/text/tokenizer.h"
#include "ple/text/utf8.h"

namespace ple::fuzz {

inline const Tokenizer& shipped_tokenizer() {
  static const Tokenizer tokenizer =
      Tokenizer::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller" / "tokenizer.json");
  return tokenizer;
}

inline std::string decode_stepwise(const Tokenizer& tokenizer, std::span<const Token> tokens, bool skip_special) {
  StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const Token token : tokens) {
    const std::string piece = decoder.push(token);
    require(is_utf8(piece), "a piece of text that is not UTF-8");
    text += piece;
  }
  return text + decoder.finish();
}

inline void tokenizer(std::string_view data) {
  const Tokenizer& tokenizer = shipped_tokenizer();
  for (const bool parse_special : {false, true}) {
    const auto tokens = tokenizer.encode(data, {.add_special = false, .parse_special = parse_special});
    for (const Token token : tokens) {
      require(token >= 0 && static_cast<std::size_t>(token) < tokenizer.vocab_size(), "a token outside the vocabulary");
      require(parse_special || !tokenizer.is_control(token), "a stranger's text became a control token");
    }
    const std::string text = tokenizer.decode(tokens, false);
    require(is_utf8(text), "text that is not UTF-8");
    require(text == decode_stepwise(tokenizer, tokens, false), "decoding step by step gives another text");
    // U+2581 stands for a space, and comes back as one.
    if (is_utf8(data) && data.find("\xE2\x96\x81") == std::string_view::npos)
      require(text == data, "text does not come back");
  }
  std::vector<Token> ids(data.size() / sizeof(Token));
  if (!ids.empty()) std::memcpy(ids.data(), data.data(), ids.size() * sizeof(Token));
  may_refuse([&] { tokenizer.decode(ids); });
  for (Token& id : ids) id = static_cast<Token>(static_cast<std::uint32_t>(id) % tokenizer.vocab_size());
  for (const bool skip_special : {false, true})
    require(tokenizer.decode(ids, skip_special) == decode_stepwise(tokenizer, ids, skip_special),
            "decoding step by step gives another text");
}

inline std::vector<std::string> tokenizer_seeds() {
  return {"Once upon a time there was a fox named Pip.", "<bos><|turn>user\nHi<turn|>\n  a\t\r\n\n\n",
          "\xE2\x96\x81 caf\xC3\xA9 \xF0\x9F\x98\x80 \xff\xfe", std::string("\3\0\0\0\2\0\0\0\xff\xff\xff\xff", 12)};
}

}  // namespace ple::fuzz
