// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json.
#pragma once

#include <cstdio>

#include "harness.h"
#include "ple/text/tokenizer.h"

namespace ple::fuzz {

inline void tokenizer_json(std::string_view data) {
  may_refuse([&] {
    const auto tokenizer = Tokenizer::parse(data, "tokenizer.json");
    constexpr std::string_view text = "ab a<bos> b\xff\xc3\xa9";
    for (const bool parse_special : {true, false}) {
      const auto tokens = tokenizer.encode(text, {.parse_special = parse_special});
      for (const Token token : tokens) {
        require(token >= 0 && static_cast<std::size_t>(token) < tokenizer.vocab_size(),
                "a token outside the vocabulary");
        tokenizer.piece(token);
      }
      tokenizer.decode(tokens, false);
    }
    // Each file has one name that steers, and unk may stand for what is no piece.
    for (const Token token : tokenizer.encode(text, {.add_special = false, .parse_special = false}))
      require(token != tokenizer.token_to_id("<bos>"), "a stranger's text became a control token");
  });
}

inline std::vector<std::string> tokenizer_json_seeds() {
  const std::string everything =
      R"({"version":"1.0","added_tokens":[{"id":0,"content":"<bos>","special":true,"normalized":false,)"
      R"("single_word":false,"lstrip":false,"rstrip":false},{"id":6,"content":"cc","special":false,"normalized":true,)"
      R"("single_word":false,"lstrip":true,"rstrip":true}],"normalizer":{"type":"Replace","pattern":{"String":" "},)"
      R"("content":"_"},"pre_tokenizer":{"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious",)"
      R"("invert":false},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<bos>",)"
      R"("type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<bos>":{"id":"<bos>","ids":[0],)"
      R"("tokens":["<bos>"]}}},"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},)"
      R"("content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]},"model":{"type":"BPE","unk_token":"<bos>",)"
      R"("fuse_unk":true,"byte_fallback":BYTES,"ignore_merges":false,"vocab":{"<bos>":0,"a":1,"b":2,"ab":3,"_":4)";
  const auto finished = [&](const char* byte_fallback, const std::string& pieces) {
    std::string text = everything + pieces + R"(},"merges":[["a","b"]]}})";
    return text.replace(text.find("BYTES"), 5, byte_fallback);
  };
  std::string bytes;
  for (unsigned i = 0; i < 256; ++i) {
    char piece[32];
    std::snprintf(piece, sizeof piece, ",\"<0x%02X>\":%u", i, i + 10);
    bytes += piece;
  }
  return {finished("false", ""), finished("true", bytes),
          R"({"added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,)"
          R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})"};
}

}  // namespace ple::fuzz
