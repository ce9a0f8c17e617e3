// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/text/control_tokens.h"
#include "ple/text/pair_map.h"
#include "ple/text/utf8.h"
#include "ple/text/vocabulary.h"

namespace ple::inline PLE_ABI {

/// A token that is matched in the text before the model sees it.
struct AddedToken {
  Token id = 0;
  std::string content;
  bool special = false;     ///< a control token; decode() leaves it out on request
  bool normalized = false;  ///< matched in normalized text, in its own normalized form
  bool lstrip = false;      ///< takes the whitespace on its left with it
  bool rstrip = false;      ///< takes the whitespace on its right with it
  std::string piece;        ///< what it decodes to, set by AddedTokens: `content`, normalized if `normalized`
};

/// A tokenizer's added tokens. The search for them takes the leftmost match, and of those the longest.
class AddedTokens {
 public:
  /// Adds a token; `normalized_content` is its content after the normalizer. Throws malformed if the id or content is
  /// taken or out of range, not_supported if the text to match is too long.
  void add(AddedToken token, std::string_view normalized_content, const std::string& source) {
    if (token.content.empty()) fail(ErrorCode::malformed, source, ": added token ", token.id, " is empty");
    names_.add(token.id, token.content, source);
    token.piece = token.normalized ? std::string(normalized_content) : token.content;
    if (token.piece.size() > max_piece_size)
      check_piece_size(token.piece, source + ": normalized added token " + std::to_string(token.id));
    // If two contents normalize to the same text, the special one wins, then the first one.
    insert(token.normalized ? normalized_trie_ : raw_trie_, token);
    place_.resize(names_.id_end(), -1);
    place_[static_cast<std::size_t>(token.id)] = static_cast<std::int32_t>(tokens_.size());
    tokens_.push_back(std::move(token));
  }

  const AddedToken* find(Token id) const {
    if (id < 0 || static_cast<std::size_t>(id) >= place_.size()) return nullptr;
    const std::int32_t place = place_[static_cast<std::size_t>(id)];
    return place < 0 ? nullptr : &tokens_[static_cast<std::size_t>(place)];
  }
  std::optional<Token> find(std::string_view content) const { return names_.find(content); }

  std::size_t id_end() const { return names_.id_end(); }

  /// Splits `text` at the tokens that are matched before (`normalized`: after) the normalizer. Calls `on_token(Token)`
  /// for each and `on_text(std::string_view)` for the text between, in order. Tokens that are not allowed stay text.
  template <class OnToken, class OnText>
  void split(std::string_view text, bool normalized, const AllowedTokens& allowed, OnToken on_token,
             OnText on_text) const {
    const Trie& trie = normalized ? normalized_trie_ : raw_trie_;
    std::size_t done = 0;
    std::size_t space_begin = 0, space_end = 0;  // the whitespace that the last token took
    for (std::size_t position = 0; position < text.size();) {
      const auto [length, id] = trie.longest(text.substr(position));
      if (length == 0) {
        ++position;
        continue;
      }
      const AddedToken& token = *find(id);
      std::size_t begin = position;
      std::size_t end = position + length;
      position = end;
      if (!allowed.contains(id)) continue;
      if (token.lstrip && begin > done) begin -= space_suffix(text.substr(done, begin - done), is_whitespace);
      if (token.rstrip) {
        // The next token may lie in the same whitespace, which is measured only once.
        const bool measured = end >= space_begin && end < space_end && !is_utf8_continuation(text[end]);
        if (!measured) {
          space_begin = end;
          space_end = end + space_prefix(text.substr(end), is_whitespace);
        }
        end = space_end;
      }
      if (done < begin) on_text(text.substr(done, begin - done));
      on_token(id);
      done = end;
    }
    if (done < text.size()) on_text(text.substr(done));
  }

 private:
  // Matching bytes is safe: no valid UTF-8 text begins inside another text's character.
  class Trie {
   public:
    // The token that ends here, for the caller to set; -1 if none.
    Token& operator[](std::string_view content) {
      std::uint32_t node = 0;
      for (const char byte : content) {
        std::uint32_t& child = children_(node, static_cast<unsigned char>(byte));
        if (child == 0) {
          child = static_cast<std::uint32_t>(tokens_.size());
          tokens_.push_back(-1);
        }
        node = child;
      }
      return tokens_[node];
    }

    // Length and id of the longest token that `text` begins with; length 0 if there is none.
    std::pair<std::size_t, Token> longest(std::string_view text) const {
      std::pair<std::size_t, Token> best{0, -1};
      std::uint32_t node = 0;
      for (std::size_t i = 0; i < text.size(); ++i) {
        const std::uint32_t* child = children_.find(node, static_cast<unsigned char>(text[i]));
        if (child == nullptr) break;
        node = *child;
        if (tokens_[node] >= 0) best = {i + 1, tokens_[node]};
      }
      return best;
    }

   private:
    PairMap<std::uint32_t> children_;  // (node, byte) -> node; the root is 0
    std::vector<Token> tokens_ = {-1};
  };

  void insert(Trie& trie, const AddedToken& token) const {
    Token& id = trie[token.piece];
    if (id < 0 || (token.special && !find(id)->special)) id = token.id;
  }

  Vocabulary names_;
  std::vector<AddedToken> tokens_;
  std::vector<std::int32_t> place_;  // index into tokens_, by id; -1: not an added token
  Trie raw_trie_;
  Trie normalized_trie_;
};

}  // namespace ple::inline PLE_ABI
