// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json.h"
#include "ple/core/mapped_file.h"
#include "ple/core/token.h"
#include "ple/text/added_tokens.h"
#include "ple/text/bpe.h"
#include "ple/text/control_tokens.h"
#include "ple/text/pipeline.h"
#include "ple/text/tokenizer_json.h"
#include "ple/text/tokenizer_parts.h"

namespace ple::inline PLE_ABI {

struct EncodeOptions {
  bool add_special = true;  ///< add the tokens that the file's post-processor puts around text (`<bos>`)
  /// Text that spells a special token becomes that token. Use false for untrusted text: it then gives no control token,
  /// whatever the file says, but other pieces of the same characters.
  bool parse_special = true;
  std::span<const Token> never = {};  ///< without parse_special: more tokens to treat as control tokens
};

/// Text to tokens and back, as Hugging Face `tokenizers` does it for BPE models like Gemma's, and SentencePiece for BPE
/// models with scores. Immutable: any number of threads may use one at the same time.
class Tokenizer {
 public:
  /// Reads a tokenizer.json; open_tokenizer() reads a GGUF file's tokenizer too. Errors: file, malformed, missing,
  /// not_supported, limit. Ignores truncation and padding settings, as transformers does.
  static Tokenizer open(const std::filesystem::path& path, const JsonLimits& limits = {}) {
    const auto file = MappedFile::open(path);
    return parse({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()}, path.string(), limits);
  }

  /// The same from its text; `name` stands for the file in errors.
  static Tokenizer parse(std::string_view json, const std::string& name, const JsonLimits& limits = {}) {
    TokenizerJsonHandler handler(name, limits);
    JsonReader(json, name, handler, limits).read();
    return Tokenizer(make_tokenizer_parts(handler.take(), name));
  }

  explicit Tokenizer(TokenizerParts parts) : parts_(std::move(parts)) { find_control(); }

  /// The tokens of `text`. Bytes of malformed UTF-8 become `<0xNN>` pieces or, without byte fallback, unk. O(n log n)
  /// for every file. Throws argument for 2 GiB of text without a break.
  std::vector<Token> encode(std::string_view text, EncodeOptions options = {}) const {
    std::vector<Token> tokens;
    if (options.add_special) tokens = parts_.prefix;
    const AllowedTokens allowed = allowed_tokens(options);
    Bpe::Scratch scratch;
    const auto add_token = [&](Token token) { tokens.push_back(token); };
    const auto add_words = [&](std::string_view part) {
      for (const std::string_view word : parts_.pre_tokenizer(part))
        parts_.model.encode(word, allowed, scratch, tokens);
    };
    const auto add_text = [&](std::string_view part) {
      const std::string normalized = parts_.normalizer(part);
      parts_.added.split(normalized, true, allowed, add_token, add_words);
    };
    parts_.added.split(text, false, allowed, add_token, add_text);
    if (options.add_special) tokens.insert(tokens.end(), parts_.suffix.begin(), parts_.suffix.end());
    return tokens;
  }

  /// The text of `tokens`. A run of byte pieces that is not UTF-8 gives one U+FFFD per byte; unused ids give nothing.
  /// Throws argument for ids outside the vocabulary.
  std::string decode(std::span<const Token> tokens, bool skip_special = true) const {
    std::string text;
    PieceDecoder::State state;
    for (const Token token : tokens) decode_next(state, token, skip_special, text);
    parts_.decoder.finish(state, text);
    return text;
  }

  /// One step of decode(): appends to `text` what `token` makes certain. Most callers want StreamDecoder.
  void decode_next(PieceDecoder::State& state, Token token, bool skip_special, std::string& text) const {
    check(token);
    if (skip_special && is_special(token)) {
      // The reference skips it only if the piece is the special token's text; normalizing may have changed that.
      const AddedToken& special = *parts_.added.find(token);
      if (special.piece == special.content) return;
    }
    if (const auto content = find_piece(token)) parts_.decoder.push(state, *content, text);
  }

  /// One past the highest id.
  std::size_t vocab_size() const { return (std::max)(parts_.added.id_end(), parts_.model.vocabulary().id_end()); }

  std::optional<Token> token_to_id(std::string_view piece) const {
    if (const auto id = parts_.added.find(piece)) return id;
    return parts_.model.vocabulary().find(piece);
  }

  /// The piece as the file writes it (U+2581 for a space), empty if unused. Throws argument outside the vocabulary.
  std::string_view piece(Token token) const {
    check(token);
    return find_piece(token).value_or(std::string_view());
  }

  /// Whether the file calls it special: decode() may leave it out.
  bool is_special(Token token) const {
    const AddedToken* added = parts_.added.find(token);
    return added != nullptr && added->special;
  }

  /// Whether it steers the model: special, or by id or name <bos>, <eos>, unk, a turn token or the like. Untrusted text
  /// becomes none of these, except that a plain unk may stand for characters without piece and bytes.
  bool is_control(Token token) const { return control_.contains(token); }

  /// What encode() puts before and after the text: for Gemma `<bos>` and nothing.
  std::span<const Token> prefix() const { return parts_.prefix; }
  std::span<const Token> suffix() const { return parts_.suffix; }

  const PieceDecoder& decoder() const { return parts_.decoder; }

 private:
  void check(Token token) const {
    if (token < 0 || static_cast<std::size_t>(token) >= vocab_size()) {
      fail(ErrorCode::argument, "token ", token, " is outside the vocabulary of ", vocab_size());
    }
  }

  std::optional<std::string_view> find_piece(Token token) const {
    if (const AddedToken* added = parts_.added.find(token)) return added->piece;
    return parts_.model.vocabulary().piece(token);
  }

  // The only place that decides what a control token is.
  void find_control() {
    const auto unk = parts_.model.unk();
    for (const auto* list : {&parts_.prefix, &parts_.suffix, &parts_.control}) {
      for (const Token id : *list) {
        control_.add(id);
        if (id == unk) unk_steers_ = true;
      }
    }
    for (std::size_t row = 0; row < vocab_size(); ++row) {
      const auto id = static_cast<Token>(row);
      const std::string_view name = token_name(id);
      if (is_special(id) || is_control_name(name)) control_.add(id);
      if (id == unk && is_control_name(name) && name != "<unk>") unk_steers_ = true;
    }
    if (unk) control_.add(*unk);
  }

  AllowedTokens allowed_tokens(const EncodeOptions& options) const {
    if (options.parse_special) return {};
    const auto unk = parts_.model.unk();
    const bool never_unk = unk && std::find(options.never.begin(), options.never.end(), *unk) != options.never.end();
    return {.forbidden = &control_, .also_forbidden = options.never, .unk = !unk_steers_ && !never_unk};
  }

  // As the file writes it, even if an added token is normalized.
  std::string_view token_name(Token token) const {
    if (const AddedToken* added = parts_.added.find(token)) return added->content;
    return parts_.model.vocabulary().piece(token).value_or(std::string_view());
  }

  TokenizerParts parts_;
  ControlTokens control_;
  bool unk_steers_ = false;  // unk is also another control token
};

/// An HfFolder's tokenizer; ple/text/open_tokenizer.h opens GGUF files too. Errors: those of Tokenizer::open.
template <class Folder>
requires requires(const Folder& folder) { folder.tokenizer_json(); }
Tokenizer open_tokenizer(const Folder& folder) { return Tokenizer::open(folder.tokenizer_json()); }

}  // namespace ple::inline PLE_ABI
