// SPDX-License-Identifier: Apache-2.0
// The tokenizer that a GGUF file carries in its keys. Source: what llama.cpp's converter writes and its vocabulary
// reads; what the tokens of a text are is for the tokenizer.json of the same model to say.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/io/gguf_metadata.h"
#include "ple/text/bpe.h"
#include "ple/text/sentencepiece.h"
#include "ple/text/tokenizer_parts.h"
#include "ple/text/vocabulary.h"

namespace ple {
inline namespace PLE_ABI {

namespace detail {

/// tokenizer.ggml.token_type; the numbers are the file's.
enum class GgufTokenType : std::uint8_t { normal = 1, unknown, control, user_defined, unused, byte };

inline constexpr std::string_view space_piece = "\xE2\x96\x81";  // U+2581 stands for a space

class GgufTokenizer {
 public:
  explicit GgufTokenizer(const GgufMetadata& keys)
      : keys_(keys), tokens_(keys.texts("tokenizer.ggml.tokens")), is_gemma4_(read_model()) {
    read_types();
  }

  TokenizerParts parts() const {
    TokenizerParts parts{model(), {}, {}, {}, {}, {}, {}};
    // A sentence begins with a space where the file wants it: so does whatever follows a special token.
    const bool space_first = keys_.boolean("tokenizer.ggml.add_space_prefix", !is_gemma4_) && !is_gemma4_;
    if (space_first) parts.normalizer.steps.push_back({"", std::string(space_piece)});
    parts.normalizer.steps.push_back({" ", std::string(space_piece)});
    parts.decoder.before_bytes.push_back({std::string(space_piece), " ", 0});
    parts.decoder.byte_fallback = true;
    if (space_first) parts.decoder.on_whole_text.push_back({" ", "", 1});
    for (std::size_t row = 0; row < tokens_.size(); ++row) add_special(static_cast<Token>(row), parts);
    // Early files of Gemma 4 deny the <bos> that the model needs.
    if (is_gemma4_ || keys_.boolean("tokenizer.ggml.add_bos_token", true))
      parts.prefix.push_back(token("tokenizer.ggml.bos_token_id"));
    if (keys_.boolean("tokenizer.ggml.add_eos_token", false))
      parts.suffix.push_back(token("tokenizer.ggml.eos_token_id"));
    return parts;
  }

 private:
  template <class... Parts>
  [[noreturn]] void malformed(std::string_view key, const Parts&... parts) const {
    fail(ErrorCode::malformed, keys_.file(), ": ", key, ": ", parts...);
  }

  /// Whether merges stand in the file (Gemma 4), or follow from scores (SentencePiece's models before it). A file may
  /// have both: its name for the tokenizer decides.
  bool read_model() const {
    const std::string_view model = keys_.text("tokenizer.ggml.model");
    if (model != "gemma4" && model != "llama") {
      fail(ErrorCode::not_supported, keys_.file(), ": tokenizer.ggml.model is '", model,
           "', expected 'gemma4' or 'llama'");
    }
    return model == "gemma4";
  }

  void read_types() {
    constexpr std::string_view key = "tokenizer.ggml.token_type";
    const std::vector<std::size_t> types = keys_.counts(key);
    expect_one_each(key, types.size());
    for (std::size_t row = 0; row < types.size(); ++row) {
      if (types[row] < 1 || types[row] > 6) malformed(key, "entry ", row, " is ", types[row], ", expected 1 to 6");
      types_.push_back(static_cast<GgufTokenType>(types[row]));
    }
  }

  void expect_one_each(std::string_view key, std::size_t entries) const {
    if (entries != tokens_.size())
      malformed(key, "has ", entries, " entries, expected ", tokens_.size(), ", one for each token");
  }

  Bpe model() const {
    Vocabulary vocabulary;
    for (std::size_t row = 0; row < tokens_.size(); ++row)
      vocabulary.add(static_cast<std::int64_t>(row), tokens_[row], keys_.file());
    BpeOptions options{.unk_piece = {}, .fuse_unk = true, .byte_fallback = false, .ignore_merges = false};
    for (std::size_t row = 0; row < tokens_.size(); ++row) {
      options.byte_fallback = options.byte_fallback || types_[row] == GgufTokenType::byte;
    }
    if (keys_.has("tokenizer.ggml.unknown_token_id"))
      options.unk_piece = tokens_[static_cast<std::size_t>(token("tokenizer.ggml.unknown_token_id"))];
    Bpe bpe(std::move(vocabulary), options, keys_.file());
    is_gemma4_ ? add_merges(bpe) : add_scores(bpe);
    return bpe;
  }

  void add_merges(Bpe& bpe) const {
    constexpr std::string_view key = "tokenizer.ggml.merges";
    const std::vector<std::string_view> merges = keys_.texts(key);
    bpe.reserve_merges(merges.size());
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
      // "left right"; no piece has a space, for a space is U+2581.
      const std::size_t space = merges[rank].find(' ');
      if (space == std::string_view::npos || space == 0 || space + 1 == merges[rank].size()) {
        malformed(key, "entry ", rank, " is '", merges[rank], "', expected two pieces with a space between them");
      }
      bpe.add_merge(merges[rank].substr(0, space), merges[rank].substr(space + 1));
    }
  }

  void add_scores(Bpe& bpe) const {
    constexpr std::string_view key = "tokenizer.ggml.scores";
    const std::vector<double> numbers = keys_.numbers(key);
    expect_one_each(key, numbers.size());
    std::vector<float> scores;
    for (std::size_t row = 0; row < numbers.size(); ++row) {
      if (std::isnan(numbers[row])) malformed(key, "entry ", row, " is no number");
      scores.push_back(static_cast<float>(numbers[row]));
    }
    std::vector<bool> from_text;
    for (const GgufTokenType type : types_) {
      from_text.push_back(type == GgufTokenType::normal || type == GgufTokenType::user_defined ||
                          type == GgufTokenType::unused);
    }
    add_scored_merges(bpe, scores, from_text);
  }

  /// Gemma 4's control tokens look like <|turn>, <turn|> or <|think|>, and no other piece of its does. The types in a
  /// file do not tell: llama.cpp's converter calls some of them user-defined so that its own chat parser sees them, and
  /// others normal where tokenizer_config.json does not list them. Here they are what they are in tokenizer.json.
  static bool has_control_form(std::string_view piece) {
    return piece.size() > 3 && piece.front() == '<' && piece.back() == '>' &&
           (piece[1] == '|' || piece[piece.size() - 2] == '|');
  }

  /// Tokens that are looked for in the text before anything else.
  void add_special(Token id, TokenizerParts& parts) const {
    const auto row = static_cast<std::size_t>(id);
    const GgufTokenType type = types_[row];
    const bool special = type == GgufTokenType::control || type == GgufTokenType::unknown ||
                         (is_gemma4_ && has_control_form(tokens_[row]));
    if (!special && type != GgufTokenType::user_defined) return;
    AddedToken added;
    added.id = id;
    added.content = tokens_[row];
    added.special = special;
    parts.added.add(std::move(added), tokens_[row], keys_.file());
  }

  Token token(std::string_view key) const {
    if (tokens_.empty()) malformed("tokenizer.ggml.tokens", "has no entries");
    return static_cast<Token>(keys_.count(key, std::nullopt, tokens_.size() - 1));
  }

  const GgufMetadata& keys_;
  std::vector<std::string_view> tokens_;
  std::vector<GgufTokenType> types_;
  bool is_gemma4_;
};

}  // namespace detail

/// The parts of a GGUF file's tokenizer: 'gemma4' (BPE with merges, as the model's tokenizer.json) or 'llama'
/// (SentencePiece's BPE by scores). Errors: ErrorCode::missing, malformed, config; not_supported for others.
inline TokenizerParts make_tokenizer_parts(const GgufMetadata& metadata) {
  return detail::GgufTokenizer(metadata).parts();
}

}  // namespace PLE_ABI
}  // namespace ple
