// SPDX-License-Identifier: Apache-2.0
// A Jinja template as a tree. What this version cannot run is a node that says so, and is an error only where it is
// come to: a template may have anything in a branch that is not taken. Source: jinja2's parser.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/text/jinja_lexer.h"

namespace ple {
inline namespace PLE_ABI {

namespace detail {

enum class JinjaKind : std::uint8_t {
  // Statements.
  block,      // children: what comes one after another
  text,       // text
  output,     // expression
  if_tag,     // condition, block, condition, block, ..., perhaps the block of `else`
  for_tag,    // targets, iterable, filter or nothing, block, block of `else` or nothing
  set,        // target, expression
  set_block,  // target, block
  macro,      // text: name; children: parameters, block
  parameter,  // text: name; child: default, if there is one
  scope,      // block with variables of its own
  break_tag,
  continue_tag,
  // Expressions.
  nothing,
  string,      // text: as written between the quotes
  number,      // text
  constant,    // text: true, false or none
  name,        // text
  list,        // children
  mapping,     // key, value, key, value, ...
  attribute,   // text: name; child: object
  item,        // object, key
  slice,       // object, start, stop, step; nothing where left away
  call,        // callee, arguments
  keyword,     // text: name; child: the argument's value
  filter,      // text: name; children: value, arguments
  test,        // text: name; children: value, arguments
  not_,        // child
  and_,        // children
  or_,         // children
  choice,      // value, condition, other value or nothing
  negative,    // child
  operation,   // text: the operator; children: both sides
  comparison,  // value, then operand after operand
  operand,     // text: the operator; child
  unsupported  // text: what it is
};

struct JinjaNode {
  JinjaKind kind = JinjaKind::nothing;
  std::uint8_t height = 0;
  std::size_t at = 0;  // where in the source
  std::string_view text;
  std::vector<JinjaNode> children;
};

class JinjaParser {
 public:
  explicit JinjaParser(const JinjaSource& source) : source_(source), lexer_(source) { advance(); }

  JinjaNode parse() { return block({}); }

  static constexpr std::size_t deepest = 64;   // levels of brackets and blocks
  static constexpr std::size_t highest = 200;  // levels of the tree: a chain of operators makes it high, too

 private:
  using Kind = JinjaToken::Kind;

  [[noreturn]] void wrong(const JinjaToken& found, std::string_view expected) const {
    const std::string_view text = found.kind == Kind::end ? "the end" : found.text.substr(0, 40);
    source_.wrong(ErrorCode::malformed, found.at,
                  "found '" + std::string(text) + "', expected " + std::string(expected));
  }

  // Tokens: token_ is the next one.
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

  // Nodes.
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
    explicit Level(JinjaParser& p) : parser(p) {
      if (++parser.level_ > deepest) parser.too_deep(parser.token_.at);
    }
    ~Level() { --parser.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    JinjaParser& parser;
  };

  // Statements.

  /// What stands before a tag that is one of `ends`, or before the end of the text if there are none. The tag's name is
  /// taken, and ended_by_.
  JinjaNode block(std::initializer_list<std::string_view> ends) {
    const Level level(*this);
    JinjaNode all = node(JinjaKind::block);
    while (true) {
      if (token_.kind == Kind::end) {
        if (ends.size() > 0) wrong(token_, "'" + std::string(*(ends.end() - 1)) + "'");
        return all;
      }
      if (token_.kind == Kind::text) {
        add(all, node(JinjaKind::text, token_.text));
        advance();
      } else if (token_.kind == Kind::output_begin) {
        JinjaNode output = node(JinjaKind::output);
        advance();
        add(output, tuple(true));
        end_of_tag();
        add(all, std::move(output));
      } else {
        advance();
        const JinjaToken tag = name();
        if (std::find(ends.begin(), ends.end(), tag.text) != ends.end()) {
          ended_by_ = tag.text;
          return all;
        }
        add(all, statement(tag));
      }
    }
  }

  JinjaNode statement(const JinjaToken& tag) {
    if (tag.text == "if") return if_tag();
    if (tag.text == "for") return for_tag();
    if (tag.text == "set") return set();
    if (tag.text == "macro") return macro();
    if (tag.text == "break" || tag.text == "continue") {
      JinjaNode jump = node(tag.text == "break" ? JinjaKind::break_tag : JinjaKind::continue_tag);
      end_of_tag();
      return jump;
    }
    if (tag.text == "generation") {  // transformers' own: marks what the model has written
      JinjaNode scope = node(JinjaKind::scope);
      end_of_tag();
      add(scope, block({"endgeneration"}));
      end_of_tag();
      return scope;
    }
    return other_tag(tag);
  }

  /// A tag of Jinja's that is not run; what is none of its tags is an error, as there.
  JinjaNode other_tag(const JinjaToken& tag) {
    JinjaNode other{JinjaKind::unsupported, 0, tag.at, tag.text, {}};
    const auto skip = [this] {
      while (token_.kind != Kind::end_of_tag) advance();
      advance();
    };
    for (const std::string_view known : {"include", "import", "from", "extends", "do"}) {
      if (tag.text == known) return skip(), other;
    }
    constexpr std::string_view with_end[][2] = {
        {"call", "endcall"}, {"filter", "endfilter"}, {"with", "endwith"}, {"block", "endblock"}};
    for (const auto& [known, end] : with_end) {
      if (tag.text != known) continue;
      skip();
      add(other, block({end}));
      skip();
      return other;
    }
    if (tag.text == "raw") source_.wrong(ErrorCode::not_supported, tag.at, "'raw' is not supported");
    wrong(tag, "a tag of Jinja");
  }

  JinjaNode if_tag() {
    JinjaNode all = node(JinjaKind::if_tag);
    do {
      add(all, tuple(false));
      end_of_tag();
      add(all, block({"elif", "else", "endif"}));
    } while (ended_by_ == "elif");
    if (ended_by_ == "else") {
      end_of_tag();
      add(all, block({"endif"}));
    }
    end_of_tag();
    return all;
  }

  JinjaNode for_tag() {
    JinjaNode loop = node(JinjaKind::for_tag);
    add(loop, target());
    expect_word("in");
    add(loop, tuple(false));
    add(loop, take_word("if") ? expression() : node(JinjaKind::nothing));
    const bool recursive = take_word("recursive");
    end_of_tag();
    add(loop, block({"else", "endfor"}));
    JinjaNode otherwise = node(JinjaKind::nothing);
    if (ended_by_ == "else") {
      end_of_tag();
      otherwise = block({"endfor"});
    }
    add(loop, std::move(otherwise));
    end_of_tag();
    if (recursive) loop.kind = JinjaKind::unsupported, loop.text = "a recursive loop";
    return loop;
  }

  /// One name, or several that take a list's items.
  JinjaNode target() {
    JinjaNode names = node(JinjaKind::list);
    const bool in_brackets = take("(");
    do {
      JinjaNode one = node(JinjaKind::name, token_.text);
      name();
      add(names, std::move(one));
    } while (take(",") && token_.kind == Kind::name && !is_word("in"));
    if (in_brackets) expect(")");
    return names.children.size() == 1 ? std::move(names.children[0]) : std::move(names);
  }

  JinjaNode set() {
    JinjaNode all = node(JinjaKind::set);
    JinjaNode to = target();
    if (to.kind == JinjaKind::name && take(".")) {
      JinjaNode member = node(JinjaKind::attribute, token_.text);
      name();
      add(member, std::move(to));
      to = std::move(member);
    }
    add(all, std::move(to));
    if (take("=")) {
      add(all, tuple(true));
    } else {
      all.kind = JinjaKind::set_block;
      if (is("|")) all.kind = JinjaKind::unsupported, all.text = "a filter of a block";
      while (all.kind == JinjaKind::unsupported && token_.kind != Kind::end_of_tag) advance();
      end_of_tag();
      add(all, block({"endset"}));
    }
    end_of_tag();
    return all;
  }

  JinjaNode macro() {
    JinjaNode all = node(JinjaKind::macro, token_.text);
    name();
    expect("(");
    while (!take(")")) {
      if (!all.children.empty()) expect(",");
      JinjaNode parameter = node(JinjaKind::parameter, token_.text);
      name();
      if (take("=")) add(parameter, expression());
      add(all, std::move(parameter));
    }
    end_of_tag();
    add(all, block({"endmacro"}));
    end_of_tag();
    return all;
  }

  // Expressions, from what binds least to what binds most.

  /// Values with commas between them are a list. Without `choice` an `if` belongs to whoever asks.
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
    while (is("+") || is("-")) value = operation(std::move(value), &JinjaParser::concatenation);
    return value;
  }
  JinjaNode concatenation() {
    JinjaNode value = product();
    while (is("~")) value = operation(std::move(value), &JinjaParser::product);
    return value;
  }
  JinjaNode product() {
    JinjaNode value = power();
    while (is("*") || is("/") || is("//") || is("%")) value = operation(std::move(value), &JinjaParser::power);
    return value;
  }
  JinjaNode power() {
    JinjaNode value = unary(true);
    while (is("**")) value = operation(std::move(value), &JinjaParser::unary_with_filters);
    return value;
  }
  JinjaNode operation(JinjaNode left, JinjaNode (JinjaParser::*right)()) {
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
      if (token_.kind == Kind::string) value.kind = JinjaKind::unsupported, value.text = "a string after a string";
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
          attribute = node(JinjaKind::unsupported, "a number after a point");
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
    if (is(",")) source_.wrong(ErrorCode::not_supported, token_.at, "an index of several values is not supported");
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
          all.kind = JinjaKind::unsupported;  // a name of several parts: no filter or test of Jinja's own has one
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

  /// Whether a test's argument follows, which may do without brackets.
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
        JinjaNode unpacked = node(JinjaKind::unsupported, "an argument that is unpacked");
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

  const JinjaSource& source_;
  JinjaLexer lexer_;
  JinjaToken token_;
  std::string_view ended_by_;
  std::size_t level_ = 0;
};

}  // namespace detail

}  // namespace PLE_ABI
}  // namespace ple
