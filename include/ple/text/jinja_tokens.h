// SPDX-License-Identifier: Apache-2.0
// The basis of the Jinja parser: one token of lookahead, and nodes of bounded height.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/text/jinja_lexer.h"
#include "ple/text/jinja_tree.h"

namespace ple::inline PLE_ABI {
namespace detail {

class JinjaTokens {
 public:
  static constexpr std::size_t deepest = 64;   // levels of brackets and blocks
  static constexpr std::size_t highest = 200;  // levels of the tree; chains of operators add levels too

 protected:
  using Kind = JinjaToken::Kind;

  [[noreturn]] void wrong(const JinjaToken& found, std::string_view expected) const {
    const std::string_view text = found.kind == Kind::end ? "the end" : found.text.substr(0, 40);
    source_.wrong(ErrorCode::malformed, found.at,
                  "found '" + std::string(text) + "', expected " + std::string(expected));
  }

  // token_ is the next token.
  void advance() { token_ = lexer_.next(); }
  bool is(std::string_view symbol) const { return token_.kind == Kind::symbol && token_.text == symbol; }
  bool is_word(std::string_view word) const { return token_.kind == Kind::name && token_.text == word; }
  bool take(std::string_view symbol) { return is(symbol) && (advance(), true); }
  bool take_word(std::string_view word) { return is_word(word) && (advance(), true); }
  void expect(std::string_view symbol) {
    if (!take(symbol)) wrong(token_, symbol);
  }
  void expect_word(std::string_view word) {
    if (!take_word(word)) wrong(token_, word);
  }
  JinjaToken name() {
    if (token_.kind != Kind::name) wrong(token_, "a name");
    return std::exchange(token_, lexer_.next());
  }
  void end_of_tag() {
    if (token_.kind != Kind::end_of_tag) wrong(token_, "the end of the tag");
    advance();
  }

  JinjaNode node(JinjaKind kind, std::string_view text = {}) const { return {kind, 0, token_.at, text, {}}; }
  void add(JinjaNode& parent, JinjaNode child) const {
    if (child.height + std::size_t{1} >= highest) too_deep(child.at);
    parent.height = (std::max)(parent.height, static_cast<std::uint8_t>(child.height + 1));
    parent.children.push_back(std::move(child));
  }
  [[noreturn]] void too_deep(std::size_t at) const {
    source_.wrong(ErrorCode::limit, at, "nested too deep to be a chat template");
  }
  struct Level {
    explicit Level(JinjaTokens& p) : parser(p) {
      if (++parser.level_ > deepest) parser.too_deep(parser.token_.at);
    }
    ~Level() { --parser.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    JinjaTokens& parser;
  };

  explicit JinjaTokens(const JinjaSource& source) : source_(source), lexer_(source) { advance(); }

  const JinjaSource& source_;
  JinjaLexer lexer_;
  JinjaToken token_;

 private:
  std::size_t level_ = 0;
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
