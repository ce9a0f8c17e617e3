// SPDX-License-Identifier: Apache-2.0
// Byte pair encoding: splits a word into characters, then merges the best-ranked adjacent pair until none is left.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
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

struct BpeOptions {
  std::optional<std::string> unk_piece;  ///< for characters that are not a piece; without it they are dropped
  bool fuse_unk = false;                 ///< one unk for a run of unknown characters
  bool byte_fallback = false;            ///< unknown characters become one `<0xNN>` piece per byte instead of unk
  bool ignore_merges = false;            ///< a whole word that is a piece becomes that piece
};

/// More merges than this are refused; Gemma has half a million.
inline constexpr std::size_t max_merges = std::size_t{1} << 23;

class Bpe {
 public:
  /// `source` names the file in errors. Throws malformed if unk or, with byte_fallback, a byte piece is not a piece.
  Bpe(Vocabulary vocabulary, const BpeOptions& options, std::string source)
      : vocabulary_(std::move(vocabulary)),
        source_(std::move(source)),
        fuse_unk_(options.fuse_unk),
        byte_fallback_(options.byte_fallback),
        ignore_merges_(options.ignore_merges) {
    if (options.unk_piece) {
      unk_ = vocabulary_.find(*options.unk_piece);
      if (!unk_) {
        fail(ErrorCode::malformed, source_, ": unk_token '", *options.unk_piece, "' is not a piece of the vocabulary");
      }
    }
    if (byte_fallback_) {
      for (std::size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
        const char* const digits = "0123456789ABCDEF";
        const std::string piece = std::string("<0x") + digits[byte >> 4] + digits[byte & 15] + ">";
        const auto id = vocabulary_.find(piece);
        if (!id) {
          fail(ErrorCode::malformed, source_, ": byte_fallback is on, but '", piece,
               "' is not a piece of the vocabulary");
        }
        byte_tokens_[byte] = *id;
      }
    }
  }

  /// Throws not_supported for more than max_merges, as add_merge() does.
  void reserve_merges(std::size_t count) {
    check_merges(count);
    merges_.reserve(count);
  }

  /// Adds the next merge; earlier ones rank higher. Throws malformed unless both sides and the result are pieces.
  void add_merge(std::string_view left, std::string_view right) {
    const Token a = merge_side(left);
    const Token b = merge_side(right);
    merged_.assign(left).append(right);
    add_merge(a, b, merge_side(merged_), next_rank_);
    check_merges(std::size_t{++next_rank_});
  }

  /// Adds a merge of known pieces. In a word the lowest rank merges first; of equal ranks, the leftmost pair.
  void add_merge(Token left, Token right, Token merged, std::uint32_t rank) {
    merges_(static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right)) = {rank, merged};
    check_merges(merges_.size());
  }

  const Vocabulary& vocabulary() const { return vocabulary_; }
  std::optional<Token> unk() const { return unk_; }

  /// Working memory of encode(), to be reused from word to word.
  class Scratch {
    friend class Bpe;

    struct Symbol {
      Token token;        // -1 once it was merged into its left neighbour
      std::int32_t prev;  // positions; -1 at the ends
      std::int32_t next;
    };
    struct Candidate {
      std::uint64_t order;  // rank << 32 | position of the left symbol: best rank first, then leftmost
      Token token;          // what the pair becomes
    };

    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  /// Appends the tokens of one word, in O(n log n). Bytes of malformed UTF-8, and characters whose piece is not
  /// allowed, count as unknown. Nothing merges into a piece that is not allowed. Throws argument from 2 GiB on.
  void encode(std::string_view word, const AllowedTokens& allowed, Scratch& scratch, std::vector<Token>& out) const {
    if (ignore_merges_) {
      if (const auto id = vocabulary_.find(word); id && allowed.contains(*id)) {
        out.push_back(*id);
        return;
      }
    }
    if (word.size() > static_cast<std::size_t>((std::numeric_limits<std::int32_t>::max)())) {
      fail(ErrorCode::argument, "text of ", word.size(), " bytes without a break, expected less than 2 GiB");
    }
    split_characters(word, allowed, scratch.symbols);
    merge_pairs(allowed, scratch);
    for (const auto& symbol : scratch.symbols) {
      if (symbol.token >= 0) out.push_back(symbol.token);
    }
  }

 private:
  struct Merge {
    std::uint32_t rank = 0;
    Token token = -1;
  };

  void check_merges(std::size_t count) const {
    if (count > max_merges)
      fail(ErrorCode::not_supported, source_, ": has ", count, " merges, expected at most ", max_merges);
  }

  Token merge_side(std::string_view piece) const {
    const auto id = vocabulary_.find(piece);
    if (!id) {
      fail(ErrorCode::malformed, source_, ": merge ", next_rank_, " needs '", piece,
           "', which is not a piece of the vocabulary");
    }
    return *id;
  }

  const Merge* find_merge(Token left, Token right) const {
    return merges_.find(static_cast<std::uint32_t>(left), static_cast<std::uint32_t>(right));
  }

  void split_characters(std::string_view word, const AllowedTokens& allowed,
                        std::vector<Scratch::Symbol>& symbols) const {
    symbols.clear();
    const auto add = [&symbols](Token token) {
      const auto position = static_cast<std::int32_t>(symbols.size());
      if (position > 0) symbols.back().next = position;
      symbols.push_back({token, position - 1, -1});
    };
    const auto byte_token = [this](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)]; };
    const auto is_allowed = [&](char byte) { return allowed.contains(byte_token(byte)); };
    bool after_unk = false;
    while (!word.empty()) {
      const std::size_t length = utf8_length(word);
      const std::string_view character = word.substr(0, length == 0 ? 1 : length);
      word.remove_prefix(character.size());
      const auto id = length == 0 ? std::nullopt : vocabulary_.find(character);
      const bool is_piece = id && allowed.contains(*id);
      if (is_piece) {
        add(*id);
      } else if (byte_fallback_ && std::all_of(character.begin(), character.end(), is_allowed)) {
        for (const char byte : character) add(byte_token(byte));
      } else if (unk_ && allowed.unk && !(after_unk && fuse_unk_)) {
        add(*unk_);
      }
      after_unk = !is_piece;
    }
  }

  void merge_pairs(const AllowedTokens& allowed, Scratch& scratch) const {
    auto& symbols = scratch.symbols;
    auto& heap = scratch.heap;
    const auto at = [&symbols](std::int32_t position) -> Scratch::Symbol& {
      return symbols[static_cast<std::size_t>(position)];
    };
    const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) { return a.order > b.order; };
    const auto candidate = [&](std::int32_t left) -> std::optional<Scratch::Candidate> {
      const Merge* merge = find_merge(at(left).token, at(at(left).next).token);
      if (merge == nullptr || !allowed.contains(merge->token)) return std::nullopt;
      return Scratch::Candidate{(std::uint64_t{merge->rank} << 32) | static_cast<std::uint32_t>(left), merge->token};
    };

    heap.clear();
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      if (const auto found = candidate(static_cast<std::int32_t>(i))) heap.push_back(*found);
    }
    std::make_heap(heap.begin(), heap.end(), later);
    const auto push = [&](std::int32_t left) {
      if (const auto found = candidate(left)) {
        heap.push_back(*found);
        std::push_heap(heap.begin(), heap.end(), later);
      }
    };
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), later);
      const Scratch::Candidate best = heap.back();
      heap.pop_back();
      const auto position = static_cast<std::int32_t>(best.order & 0xFFFFFFFFu);
      Scratch::Symbol& left = at(position);
      // Either symbol may have merged since. As in the reference, the pair only has to give the same token still.
      if (left.token < 0 || left.next < 0) continue;
      Scratch::Symbol& right = at(left.next);
      const Merge* merge = find_merge(left.token, right.token);
      if (merge == nullptr || merge->token != best.token) continue;
      left.token = best.token;
      left.next = right.next;
      right.token = -1;
      if (left.next >= 0) at(left.next).prev = position;
      if (left.prev >= 0) push(left.prev);
      if (left.next >= 0) push(position);
    }
  }

  Vocabulary vocabulary_;
  std::string source_;
  PairMap<Merge> merges_;
  std::uint32_t next_rank_ = 0;
  std::string merged_;
  std::array<Token, 256> byte_tokens_{};
  std::optional<Token> unk_;
  bool fuse_unk_;
  bool byte_fallback_;
  bool ignore_merges_;
};

}  // namespace ple::inline PLE_ABI
