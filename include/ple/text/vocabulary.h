// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/token.h"
#include "ple/text/secret_hash.h"

namespace ple::inline PLE_ABI {

/// Ids above this are refused: one number in a file must not force an enormous table.
inline constexpr Token max_token_id = (1 << 22) - 1;

/// The most bytes of a piece; Gemma's longest is 31 spaces, 93 bytes. At worst a text costs its length times this.
inline constexpr std::size_t max_piece_size = 256;

/// Throws not_supported if a piece, or a pattern that is matched like one, is too long.
inline void check_piece_size(std::string_view piece, const std::string& where) {
  if (piece.size() <= max_piece_size) return;
  fail(ErrorCode::not_supported, where, " '", piece.substr(0, 40), "...' has ", piece.size(),
       " bytes, expected at most ", max_piece_size);
}

/// The pieces of a tokenizer and their ids, both ways. Ids need not be dense. All text lies in one string.
class Vocabulary {
 public:
  /// Adds a piece of file `source`. Throws malformed if taken or the id is out of range, not_supported if too long.
  void add(std::int64_t id, std::string_view piece, const std::string& source) {
    if (id < 0 || id > max_token_id) {
      fail(ErrorCode::malformed, source, ": piece '", piece, "' has id ", id, ", expected 0 to ", max_token_id);
    }
    if (piece.size() > max_piece_size) check_piece_size(piece, source + ": piece " + std::to_string(id));
    if (const auto other = find(piece)) {
      fail(ErrorCode::malformed, source, ": piece '", piece, "' appears twice, with ids ", *other, " and ", id);
    }
    const auto row = static_cast<std::size_t>(id);
    if (row < spans_.size() && spans_[row].offset != no_piece) {
      fail(ErrorCode::malformed, source, ": id ", id, " belongs to both '", *this->piece(static_cast<Token>(id)),
           "' and '", piece, "'");
    }
    if (chars_.size() + piece.size() >= no_piece) fail(ErrorCode::malformed, source, ": the pieces exceed 4 GiB");
    if (row >= spans_.size()) spans_.resize(row + 1);
    spans_[row] = {static_cast<std::uint32_t>(chars_.size()), static_cast<std::uint32_t>(piece.size())};
    chars_ += piece;
    ++size_;
    if (slots_.size() / 2 < size_) {
      rehash();
    } else {
      slots_[slot_of(piece)] = static_cast<Token>(id);
    }
  }

  std::optional<Token> find(std::string_view piece) const {
    if (slots_.empty() || piece.size() > max_piece_size) return std::nullopt;
    const Token id = slots_[slot_of(piece)];
    return id == no_token ? std::nullopt : std::optional<Token>(id);
  }

  /// The text of an id, or nothing for an unused one. The view lives until the next add().
  std::optional<std::string_view> piece(Token id) const {
    if (id < 0 || static_cast<std::size_t>(id) >= spans_.size()) return std::nullopt;
    const Span span = spans_[static_cast<std::size_t>(id)];
    if (span.offset == no_piece) return std::nullopt;
    return std::string_view(chars_).substr(span.offset, span.length);
  }

  std::size_t id_end() const { return spans_.size(); }

 private:
  static constexpr std::uint32_t no_piece = 0xFFFFFFFF;
  static constexpr Token no_token = -1;

  struct Span {
    std::uint32_t offset = no_piece;
    std::uint32_t length = 0;
  };

  // The slot of `piece`, or the empty one where it belongs.
  std::size_t slot_of(std::string_view piece) const {
    const std::size_t mask = slots_.size() - 1;
    auto i = static_cast<std::size_t>(hash_(piece) >> (std::countl_zero(std::uint64_t{slots_.size()}) + 1));
    while (slots_[i] != no_token && *this->piece(slots_[i]) != piece) i = (i + 1) & mask;
    return i;
  }

  void rehash() {
    slots_.assign(slots_.empty() ? 64 : slots_.size() * 2, no_token);
    for (std::size_t row = 0; row < spans_.size(); ++row) {
      const auto id = static_cast<Token>(row);
      if (const auto text = piece(id)) slots_[slot_of(*text)] = id;
    }
  }

  SecretHash hash_;
  std::string chars_;
  std::vector<Span> spans_;   // by id
  std::vector<Token> slots_;  // hash table of ids, at most half full; size: a power of two
  std::size_t size_ = 0;
};

}  // namespace ple::inline PLE_ABI
