// SPDX-License-Identifier: Apache-2.0
// Jinja expressions, loosest binding first. What ple cannot run becomes an `unsupported` node. Source: jinja2's parser.
#pragma once

#include <cstddef>
#include <string_view>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/text/jinja_tokens.h"

namespace ple::inline PLE_ABI {
namespace detail {

class JinjaExpressions : protected JinjaTokens {
 protected:
  using JinjaTokens::JinjaTokens;

  /// Values separated by commas are a list. Without `choice` a following `if` is left to the caller.
  JinjaNode tuple(bool choice) {
    JinjaNode first = choice ? expression() : either();
    if (!is(",")) return first;
    JinjaNode all = node(JinjaKind::list);
    add(all, std::move(first));
    while (take(",") && token_.kind != Kind::end_of_tag && !is(")")) add(all, choice ? expression() : either());
    return all;
  }

  JinjaNode expression() {
    const Level level(*this);
    JinjaNode value = either();
    while (is_word("if")) {
      JinjaNode choice = node(JinjaKind::choice);
      advance();
      add(choice, std::move(value));
      add(choice, either());
      add(choice, take_word("else") ? expression() : node(JinjaKind::nothing));
      value = std::move(choice);
    }
    return value;
  }

  JinjaNode either() {
    JinjaNode first = both();
    if (!is_word("or")) return first;
    JinjaNode all = node(JinjaKind::or_);
    add(all, std::move(first));
    while (take_word("or")) add(all, both());
    return all;
  }

  JinjaNode both() {
    JinjaNode first = negation();
    if (!is_word("and")) return first;
    JinjaNode all = node(JinjaKind::and_);
    add(all, std::move(first));
    while (take_word("and")) add(all, negation());
    return all;
  }

  JinjaNode negation() {
    if (!is_word("not")) return comparison();
    const Level level(*this);
    JinjaNode all = node(JinjaKind::not_);
    advance();
    add(all, negation());
    return all;
  }

  JinjaNode comparison() {
    JinjaNode value = sum();
    JinjaNode all = node(JinjaKind::comparison);
    while (true) {
      JinjaNode operand = node(JinjaKind::operand, token_.text);
      if (is("==") || is("!=") || is("<") || is("<=") || is(">") || is(">=") || is_word("in")) {
        advance();
      } else if (is_word("not")) {
        operand.text = "not in";
        advance();
        expect_word("in");
      } else {
        break;
      }
      add(operand, sum());
      if (all.children.empty()) add(all, std::exchange(value, JinjaNode()));
      add(all, std::move(operand));
    }
    return all.children.empty() ? std::move(value) : std::move(all);
  }

  JinjaNode sum() {
    JinjaNode value = concatenation();
    while (is("+") || is("-")) value = operation(std::move(value), &JinjaExpressions::concatenation);
    return value;
  }
  JinjaNode concatenation() {
    JinjaNode value = product();
    while (is("~")) value = operation(std::move(value), &JinjaExpressions::product);
    return value;
  }
  JinjaNode product() {
    JinjaNode value = power();
    while (is("*") || is("/") || is("//") || is("%")) value = operation(std::move(value), &JinjaExpressions::power);
    return value;
  }
  JinjaNode power() {
    JinjaNode value = unary(true);
    while (is("**")) value = operation(std::move(value), &JinjaExpressions::unary_with_filters);
    return value;
  }
  JinjaNode operation(JinjaNode left, JinjaNode (JinjaExpressions::*right)()) {
    JinjaNode all = node(JinjaKind::operation, token_.text);
    advance();
    add(all, std::move(left));
    add(all, (this->*right)());
    return all;
  }

  JinjaNode unary_with_filters() { return unary(true); }
  JinjaNode unary(bool with_filters) {
    JinjaNode value;
    if (is("-") || is("+")) {
      const Level level(*this);
      value = node(is("-") ? JinjaKind::negative : JinjaKind::unsupported, "a plus sign");
      advance();
      add(value, unary(false));
    } else {
      value = primary();
    }
    value = postfix(std::move(value));
    return with_filters ? filters(std::move(value)) : std::move(value);
  }

  JinjaNode primary() {
    JinjaNode value = node(JinjaKind::string, token_.text);
    if (token_.kind == Kind::string) {
      advance();
      if (token_.kind == Kind::string) value.kind = JinjaKind::unsupported, value.text = "joining adjacent strings";
      while (token_.kind == Kind::string) advance();
      return value;
    }
    if (token_.kind == Kind::number) {
      value.kind = JinjaKind::number;
      advance();
      return value;
    }
    if (token_.kind == Kind::name) {
      value.kind = JinjaKind::name;
      constexpr std::string_view constants[][2] = {{"true", "true"},   {"True", "true"}, {"false", "false"},
                                                   {"False", "false"}, {"none", "none"}, {"None", "none"}};
      for (const auto& [word, constant] : constants) {
        if (token_.text == word) value.kind = JinjaKind::constant, value.text = constant;
      }
      advance();
      return value;
    }
    const Level level(*this);
    if (take("(")) {
      value = is(")") ? node(JinjaKind::list) : tuple(true);
      expect(")");
      return value;
    }
    if (take("[")) {
      value = node(JinjaKind::list);
      while (!take("]")) {
        if (!value.children.empty()) expect(",");
        if (take("]")) break;
        add(value, expression());
      }
      return value;
    }
    if (!take("{")) wrong(token_, "a value");
    value = node(JinjaKind::mapping);
    while (!take("}")) {
      if (!value.children.empty()) expect(",");
      if (take("}")) break;
      add(value, expression());
      expect(":");
      add(value, expression());
    }
    return value;
  }

  JinjaNode postfix(JinjaNode value) {
    while (true) {
      if (is(".")) {
        advance();
        JinjaNode attribute = node(JinjaKind::attribute, token_.text);
        if (token_.kind == Kind::number) {
          attribute = node(JinjaKind::unsupported, "a number after a dot");
          advance();
        } else {
          name();
        }
        add(attribute, std::move(value));
        value = std::move(attribute);
      } else if (is("[")) {
        value = subscript(std::move(value));
      } else if (is("(")) {
        JinjaNode call = node(JinjaKind::call);
        add(call, std::move(value));
        arguments(call);
        value = std::move(call);
      } else {
        return value;
      }
    }
  }

  JinjaNode subscript(JinjaNode object) {
    const Level level(*this);
    JinjaNode item = node(JinjaKind::item);
    advance();
    add(item, std::move(object));
    for (std::size_t part = 0; part < 3; ++part) {
      const bool absent = is(":") || is("]");
      add(item, absent ? node(JinjaKind::nothing) : expression());
      if (!take(":")) {
        if (part == 0 && absent) wrong(token_, "a value");
        break;
      }
      item.kind = JinjaKind::slice;
    }
    if (item.kind == JinjaKind::slice) {
      while (item.children.size() < 4) add(item, node(JinjaKind::nothing));
    }
    if (is(",")) source_.wrong(ErrorCode::not_supported, token_.at, "an index with a comma is not supported");
    expect("]");
    return item;
  }

  JinjaNode filters(JinjaNode value) {
    while (true) {
      if (is("(")) {
        value = postfix(std::move(value));
      } else if (is("|") || is_word("is")) {
        const bool is_test = !is("|");
        advance();
        const bool negated = is_test && take_word("not");
        JinjaNode all = node(is_test ? JinjaKind::test : JinjaKind::filter, token_.text);
        name();
        while (take(".")) {
          name();
          all.kind = JinjaKind::unsupported;  // a dotted name: no filter or test of Jinja's own has one
        }
        add(all, std::move(value));
        if (is("(")) {
          arguments(all);
        } else if (is_test && begins_argument()) {
          add(all, postfix(primary()));
        }
        value = std::move(all);
        if (negated) {
          JinjaNode opposite = node(JinjaKind::not_);
          add(opposite, std::move(value));
          value = std::move(opposite);
        }
      } else {
        return value;
      }
    }
  }

  /// Whether a test's argument follows without parentheses.
  bool begins_argument() const {
    if (token_.kind == Kind::name) return !is_word("else") && !is_word("or") && !is_word("and");
    return token_.kind == Kind::string || token_.kind == Kind::number || is("[") || is("{");
  }

  void arguments(JinjaNode& call) {
    const Level level(*this);
    expect("(");
    for (bool first = true; !take(")"); first = false) {
      if (!first) expect(",");
      if (take(")")) break;
      if (is("*") || is("**")) {
        JinjaNode unpacked = node(JinjaKind::unsupported, "unpacking arguments with * or **");
        advance();
        add(unpacked, expression());
        add(call, std::move(unpacked));
        continue;
      }
      JinjaLexer ahead = lexer_;
      const JinjaToken after = token_.kind == Kind::name ? ahead.next() : JinjaToken{};
      if (after.kind == Kind::symbol && after.text == "=") {
        JinjaNode keyword = node(JinjaKind::keyword, token_.text);
        advance();
        advance();
        add(keyword, expression());
        add(call, std::move(keyword));
      } else {
        add(call, expression());
      }
    }
  }
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
