// SPDX-License-Identifier: Apache-2.0
// The tokenizer in a GGUF file's keys. Source: llama.cpp's converter and vocabulary; its tokens are tokenizer.json's.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/formats/gguf_metadata.h"
#include "ple/text/bpe.h"
#include "ple/text/control_tokens.h"
#include "ple/text/sentencepiece.h"
#include "ple/text/tokenizer_parts.h"
#include "ple/text/vocabulary.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// tokenizer.ggml.token_type; the numbers are the file's.
enum class GgufTokenType : std::uint8_t { normal = 1, unknown, control, user_defined, unused, byte };

inline constexpr std::string_view space_piece = "\xE2\x96\x81";  // U+2581 stands for a space

class GgufTokenizer {
 public:
  explicit GgufTokenizer(const GgufMetadata& keys)
      : keys_(keys),
        tokens_(keys.texts("tokenizer.ggml.tokens")),
        model_(keys.text("tokenizer.ggml.model")),
        architecture_(keys.text("general.architecture", "")),
        is_gemma4_(model_ == "gemma4" || architecture_ == "gemma4"),
        has_merges_(model_ == "gemma4" || (is_gemma4_ && has_entries("tokenizer.ggml.merges"))) {
    if (model_ != "gemma4" && model_ != "llama") {
      fail(ErrorCode::not_supported, keys_.file(), ": tokenizer.ggml.model is '", model_,
           "', expected 'gemma4' or 'llama'");
    }
    read_types();
    read_named();
  }

  TokenizerParts parts() const {
    TokenizerParts parts{model(), {}, {}, {}, {}, {}, {}, control_};
    // Text begins with a space if the file wants it, also after special tokens. No Gemma does, said or not.
    const bool space_first =
        !is_gemma4_ && keys_.boolean("tokenizer.ggml.add_space_prefix", !architecture_.starts_with("gemma"));
    if (space_first) parts.normalizer.steps.push_back({"", std::string(space_piece)});
    parts.normalizer.steps.push_back({" ", std::string(space_piece)});
    parts.decoder.before_bytes.push_back({std::string(space_piece), " ", 0});
    parts.decoder.byte_fallback = true;
    if (space_first) parts.decoder.on_whole_text.push_back({" ", "", 1});
    for (std::size_t row = 0; row < tokens_.size(); ++row) add_special(static_cast<Token>(row), parts);
    // Early Gemma 4 files, and Ollama's, turn off the <bos> that the model needs.
    if (is_gemma4_ || keys_.boolean("tokenizer.ggml.add_bos_token", true))
      parts.prefix.push_back(token("tokenizer.ggml.bos_token_id"));
    if (keys_.boolean("tokenizer.ggml.add_eos_token", false))
      parts.suffix.push_back(token("tokenizer.ggml.eos_token_id"));
    return parts;
  }

 private:
  template <class... Parts>
  [[noreturn, gnu::always_inline]] void malformed(std::string_view key, const Parts&... parts) const {
    fail(ErrorCode::malformed, keys_.file(), ": ", key, ": ", parts...);
  }

  bool has_entries(std::string_view key) const {
    const GgufValue* value = keys_.find(key);
    return value != nullptr && value->is_array() && value->count > 0;
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

  /// The ids that a key names, if it names any.
  std::vector<std::size_t> ids_of(std::string_view key) const {
    constexpr std::size_t most = (std::numeric_limits<std::uint32_t>::max)();  // means none
    if (!key.starts_with("tokenizer.ggml.")) return {};
    if (key.ends_with("_token_ids")) return keys_.counts(key, most);
    if (key.ends_with("_token_id")) return {keys_.count(key, std::nullopt, most)};
    return {};
  }

  /// The tokens that keys name (<bos>, <eos> and so on) are control tokens, whatever their types.
  void read_named() {
    constexpr std::string_view unknown_key = "tokenizer.ggml.unknown_token_id";
    named_.assign(tokens_.size(), false);
    const std::size_t unk = keys_.has(unknown_key) ? ids_of(unknown_key)[0] : tokens_.size();
    for (const auto& entry : keys_.all()) {
      const std::string& key = entry.first;
      for (const std::size_t id : ids_of(key)) {
        if (id >= tokens_.size()) continue;  // no text could become it
        named_[id] = true;
        // Some models pad with unk. That does not make unk a control token.
        const bool is_unk = id == unk && (key == unknown_key || key == "tokenizer.ggml.padding_token_id");
        if (!is_unk) control_.push_back(static_cast<Token>(id));
      }
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
      // Ollama's Gemma 4 files call byte pieces normal.
      options.byte_fallback =
          options.byte_fallback || types_[row] == GgufTokenType::byte || (has_merges_ && tokens_[row] == "<0x00>");
    }
    if (keys_.has("tokenizer.ggml.unknown_token_id"))
      options.unk_piece = tokens_[static_cast<std::size_t>(token("tokenizer.ggml.unknown_token_id"))];
    Bpe bpe(std::move(vocabulary), options, keys_.file());
    has_merges_ ? add_merges(bpe) : add_scores(bpe);
    return bpe;
  }

  void add_merges(Bpe& bpe) const {
    constexpr std::string_view key = "tokenizer.ggml.merges";
    const std::vector<std::string_view> merges = keys_.texts(key);
    bpe.reserve_merges(merges.size());
    for (std::size_t rank = 0; rank < merges.size(); ++rank) {
      // "left right": inside pieces U+2581 stands for a space.
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
      if (std::isnan(numbers[row])) malformed(key, "entry ", row, " is not a number");
      scores.push_back(static_cast<float>(numbers[row]));
    }
    std::vector<bool> from_text;
    for (const GgufTokenType type : types_) {
      from_text.push_back(type == GgufTokenType::normal || type == GgufTokenType::user_defined ||
                          type == GgufTokenType::unused);
    }
    add_scored_merges(bpe, scores, from_text);
  }

  /// A file's types do not tell which tokens are special: llama.cpp's converter calls some user-defined for its own
  /// chat parser, and others normal if tokenizer_config.json does not list them. Here they are as in tokenizer.json.
  void add_special(Token id, TokenizerParts& parts) const {
    const auto row = static_cast<std::size_t>(id);
    const GgufTokenType type = types_[row];
    const bool special = type == GgufTokenType::control || type == GgufTokenType::unknown || named_[row] ||
                         is_control_name(tokens_[row]);
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
  std::string_view model_, architecture_;
  bool is_gemma4_;
  /// Whether the file has merges (Gemma 4) or they follow from scores (older SentencePiece models). A file may have
  /// both, one of them meaningless: Ollama calls Gemma 4's 'llama' too, and writes piece numbers as scores.
  bool has_merges_;
  std::vector<GgufTokenType> types_;
  std::vector<bool> named_;     // by id
  std::vector<Token> control_;  // TokenizerParts::control
};

}  // namespace detail

/// The parts of a GGUF file's tokenizer: Gemma 4's (BPE with merges) if tokenizer or architecture is 'gemma4', else
/// 'llama' (SentencePiece's BPE by scores). Errors: ErrorCode::missing, malformed, config; not_supported for others.
inline TokenizerParts make_tokenizer_parts(const GgufMetadata& metadata) {
  return detail::GgufTokenizer(metadata).parts();
}

}  // namespace ple::inline PLE_ABI
