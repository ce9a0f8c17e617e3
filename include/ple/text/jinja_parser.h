// SPDX-License-Identifier: Apache-2.0
// Parses a Jinja template into a tree. What ple cannot run becomes an `unsupported` node, which is an error only where
// rendering reaches it: a branch that is not taken may hold anything. Source: jinja2's parser.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/text/jinja_expressions.h"

namespace ple::inline PLE_ABI {
namespace detail {

class JinjaParser : private JinjaExpressions {
 public:
  explicit JinjaParser(const JinjaSource& source) : JinjaExpressions(source) {}

  JinjaNode parse() { return block({}); }

  using JinjaTokens::deepest, JinjaTokens::highest;

 private:
  /// The content before a tag in `ends`, or up to the end of the text if there are none. Moves that tag to ended_by_.
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

  /// A Jinja tag that ple does not run. Any other name is an error, as in Jinja.
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

  /// One name, or several that unpack a list.
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
      if (is("|")) all.kind = JinjaKind::unsupported, all.text = "a filter on a block";
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

  std::string_view ended_by_;
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
