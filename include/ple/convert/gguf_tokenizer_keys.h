// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json as keys of a GGUF file. Source: what llama.cpp's converter writes for Gemma 4.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json.h"
#include "ple/core/mapped_file.h"
#include "ple/core/token.h"
#include "ple/formats/gguf_writer.h"
#include "ple/text/gguf_tokenizer.h"
#include "ple/text/tokenizer_json.h"
#include "ple/text/tokenizer_parts.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// Whether a piece stands for a byte, as "<0x0A>" does.
inline bool is_byte_piece(std::string_view piece) {
  return piece.size() == 6 && piece.starts_with("<0x") && piece.back() == '>';
}

/// GGUF's tokenizer name 'gemma4' implies everything else: a tokenizer.json must match that.
inline void expect_gemma4_tokenizer(const TokenizerParts& parts, const JsonField& model, const std::string& source) {
  const auto refuse = [&](const char* what) {
    fail(ErrorCode::not_supported, source, ": ", what, ", which GGUF's tokenizer 'gemma4' cannot express");
  };
  const std::vector<Normalizer::Step>& steps = parts.normalizer.steps;
  if (steps.size() != 1 || steps[0].pattern != " " || steps[0].content != space_piece)
    refuse("the normalizer does not just replace ' ' by U+2581");
  // After that no space is left to split at.
  for (const PreTokenizer::Split& split : parts.pre_tokenizer.splits) {
    if (split.pattern != " " || split.invert) refuse("the pre-tokenizer splits at something other than ' '");
  }
  const PieceDecoder& decoder = parts.decoder;
  const auto& before = decoder.before_bytes;
  if (before.size() != 1 || before[0].pattern != space_piece || before[0].content != " " || before[0].strip_left != 0 ||
      !decoder.byte_fallback || !decoder.after_bytes.empty() || !decoder.on_whole_text.empty() ||
      !decoder.separator.empty()) {
    refuse("the decoder does not just replace U+2581 by ' ' and join bytes");
  }
  if (parts.prefix.size() != 1 || !parts.suffix.empty())
    refuse("the post-processor does not just put one token in front of a text");
  if (model.boolean("ignore_merges", false)) refuse("model.ignore_merges is true");
  if (!model.boolean("byte_fallback", false)) refuse("model.byte_fallback is false");
}

/// Text and type of every id, for as many rows as the model has.
class GgufTokenList {
 public:
  GgufTokenList(const TokenizerParts& parts, std::size_t vocab_size, const std::string& source) {
    const Vocabulary& pieces = parts.model.vocabulary();
    const std::size_t end = (std::max)(parts.added.id_end(), pieces.id_end());
    if (end > vocab_size)
      fail(ErrorCode::config, source, ": has token ", end - 1, ", but the model knows only ", vocab_size);
    padding_.reserve(vocab_size);  // `texts` looks into it
    for (std::size_t row = 0; row < vocab_size; ++row) {
      const auto id = static_cast<Token>(row);
      if (const AddedToken* added = parts.added.find(id)) {
        add(added->content, added_type(*added, parts.normalizer, source));
      } else if (const auto piece = pieces.piece(id)) {
        add(*piece, is_byte_piece(*piece) ? GgufTokenType::byte : GgufTokenType::normal);
      } else {
        const std::string& name = padding_.emplace_back("[PAD" + std::to_string(row) + "]");
        if (pieces.find(name) || parts.added.find(name))
          fail(ErrorCode::malformed, source, ": '", name, "' is a token, so it cannot stand for the unused id ", row);
        add(name, GgufTokenType::unused);
      }
    }
  }

  std::vector<std::string_view> texts;
  std::vector<std::int32_t> types;

 private:
  void add(std::string_view text, GgufTokenType type) {
    texts.push_back(text);
    types.push_back(static_cast<std::int32_t>(type));
  }

  static GgufTokenType added_type(const AddedToken& token, const Normalizer& normalizer, const std::string& source) {
    if (token.lstrip || token.rstrip || (token.normalized && normalizer(token.content) != token.content)) {
      fail(ErrorCode::not_supported, source, ": added token '", token.content,
           "' takes whitespace with it or is matched in another form, which GGUF cannot express");
    }
    // llama.cpp shows the text of user-defined tokens only, and finds a model's thoughts and calls in that text.
    constexpr std::array<std::string_view, 7> visible = {
        "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", "<|\"|>"};
    const bool shown = std::find(visible.begin(), visible.end(), token.content) != visible.end();
    return token.special && !shown ? GgufTokenType::control : GgufTokenType::user_defined;
  }

  std::vector<std::string> padding_;
};

}  // namespace detail

/// A tokenizer.json as keys, for a model that knows `vocab_size` tokens. Errors: those of Tokenizer::open;
/// ErrorCode::config for more tokens than that; not_supported for a tokenizer that is not Gemma 4's.
inline GgufKeys gguf_tokenizer_keys(const std::filesystem::path& tokenizer_json, std::size_t vocab_size) {
  const std::string name = tokenizer_json.string();
  const auto file = MappedFile::open(tokenizer_json);
  TokenizerJsonHandler handler(name);
  JsonReader({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}, name, handler).read();
  const TokenizerJson json = handler.take();
  const TokenizerParts parts = make_tokenizer_parts(json, name);
  const JsonField model = JsonField(json.settings, name, "tokenizer", ErrorCode::malformed)["model"];
  detail::expect_gemma4_tokenizer(parts, model, name);
  const detail::GgufTokenList tokens(parts, vocab_size, name);

  std::vector<std::string> joined;
  for (std::size_t rank = 0; rank < json.merges.size(); ++rank) {
    const auto [left, right] = json.merges[rank];
    joined.emplace_back(left).append(" ").append(right);
  }
  GgufKeys keys;
  keys.text("tokenizer.ggml.model", "gemma4").texts("tokenizer.ggml.tokens", tokens.texts);
  keys.integers("tokenizer.ggml.token_type", tokens.types);
  // With merges pieces have no scores, but the format has a key for them; llama.cpp's converter writes this number.
  keys.numbers("tokenizer.ggml.scores", std::vector<float>(vocab_size, -1000.0f));
  keys.texts("tokenizer.ggml.merges", std::vector<std::string_view>(joined.begin(), joined.end()));
  keys.count("tokenizer.ggml.bos_token_id", static_cast<std::uint64_t>(parts.prefix[0]));
  if (model.has("unk_token")) {
    const auto unknown = parts.model.vocabulary().find(model["unk_token"].text());
    if (unknown) keys.count("tokenizer.ggml.unknown_token_id", static_cast<std::uint64_t>(*unknown));
  }
  keys.flag("tokenizer.ggml.add_space_prefix", false).flag("tokenizer.ggml.add_bos_token", true);
  return keys;
}

}  // namespace ple::inline PLE_ABI
