// SPDX-License-Identifier: Apache-2.0
// Which rows of a table a token needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/table/row_layout.h"

namespace ple::inline PLE_ABI {

/// Maps tokens to rows: by default a token is its row. A table keyed by n-grams sets `ids` and may sum rows of a token.
struct RowKeys {
  std::size_t per_token = 1;  ///< rows per token: ids that `ids` writes
  std::size_t history = 0;    ///< earlier tokens that the ids depend on
  /// Writes the ids of the last token in `window`, each below the table's row count. Up to `history` tokens precede it,
  /// fewer where a text begins. One thread per session calls it; it must not throw. Empty: the token is the id.
  std::function<void(std::span<const Token> window, std::span<RowId> ids)> ids = {};
};

/// Keys of hashed n-grams, n = 2 to `longest`. The table has equal parts, one for each n. Tokens before a text's begin
/// count as -1. Errors: ErrorCode::argument for a `longest` below 2, or fewer rows than parts.
inline RowKeys hashed_ngrams(std::size_t longest, std::uint64_t rows) {
  if (longest < 2 || rows < longest - 1) {
    fail(ErrorCode::argument, "hashed_ngrams: n-grams of 2 to ", longest, " tokens in ", rows,
         " rows, expected 2 or more tokens and a row for each length");
  }
  const std::uint64_t part = rows / (longest - 1);
  return {longest - 1, longest - 1, [longest, part](std::span<const Token> window, std::span<RowId> ids) {
            std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over tokens, newest first
            for (std::size_t n = 1; n <= longest; ++n) {
              const Token token = n <= window.size() ? window[window.size() - n] : Token{-1};
              hash = (hash ^ static_cast<std::uint32_t>(token)) * 0x100000001b3u;
              if (n >= 2) ids[n - 2] = (n - 2) * part + (hash ^ hash >> 29) % part;
            }
          }};
}

/// The rows of a cut-down vocabulary: in the PLE table, the token embedding and the head.
class VocabularyMap {
 public:
  /// `kept`: the tokens that have rows, in row order, distinct and below `vocab_size`. `substitute`, if given, is one
  /// of them and stands in for all other tokens.
  VocabularyMap(std::vector<Token> kept, std::size_t vocab_size, std::optional<Token> substitute)
      : kept_(std::move(kept)), row_of_(vocab_size, absent), substitute_(substitute) {
    for (std::size_t row = 0; row < kept_.size(); ++row) {
      row_of_[static_cast<std::size_t>(kept_[row])] = static_cast<std::uint32_t>(row);
    }
  }

  std::size_t rows() const { return kept_.size(); }
  std::size_t vocab_size() const { return row_of_.size(); }
  std::span<const Token> kept() const { return kept_; }
  std::optional<Token> substitute() const { return substitute_; }
  bool has(Token token) const { return find(token) != absent; }  ///< whether the token has its own row

  /// The token's row, the substitute's, or nothing.
  std::optional<std::size_t> row(Token token) const {
    std::uint32_t row = find(token);
    if (row == absent && substitute_) row = find(*substitute_);
    return row == absent ? std::nullopt : std::optional<std::size_t>(row);
  }

 private:
  static constexpr std::uint32_t absent = (std::numeric_limits<std::uint32_t>::max)();

  std::uint32_t find(Token token) const {
    return static_cast<std::size_t>(token) < row_of_.size() ? row_of_[static_cast<std::size_t>(token)] : absent;
  }

  std::vector<Token> kept_;
  std::vector<std::uint32_t> row_of_;
  std::optional<Token> substitute_;
};

}  // namespace ple::inline PLE_ABI
