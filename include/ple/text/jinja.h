// SPDX-License-Identifier: Apache-2.0
// Renders Jinja templates: the part of the language that chat templates use, as transformers sets it up, at a bounded
// cost. What is not in that part is an error where it is come to, and only there.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/json.h"
#include "ple/text/jinja_builtins.h"
#include "ple/text/jinja_parser.h"
#include "ple/text/jinja_value.h"

namespace ple {
inline namespace PLE_ABI {

namespace detail {

/// One rendering.
class JinjaRenderer {
 public:
  explicit JinjaRenderer(const JinjaSource& source) : heap_(source), builtins_(heap_) {}

  std::string render(const JinjaNode& all, const Json& variables) {
    for (const Json& variable : variables.members())
      globals_.put(heap_.keep(std::string(variable.key())), heap_.from_json(variable));
    run(all);
    return std::move(output_);
  }

 private:
  using Value = JinjaValue;
  using Kind = JinjaValue::Kind;
  enum class Flow : std::uint8_t { on, break_loop, next_round };

  static constexpr std::size_t deepest = 200;  // levels of the tree, through macros

  void at_node(const JinjaNode& node) {
    heap_.at = node.at;
    heap_.charge(JinjaHeap::step);
  }

  void write(std::string_view text) {
    heap_.charge(text.size());
    output_ += text;
  }

  // Variables: those of the template, and those of the scopes inside. A macro sees its own and the template's.
  struct Variable {
    std::string_view name;
    Value value;
  };
  struct Scope {
    std::size_t begin, floor;
    bool is_inner;
  };

  Scope enter(bool macro) {
    const Scope outside{scope_begin_, floor_, in_scope_};
    scope_begin_ = locals_.size();
    if (macro) floor_ = locals_.size();
    in_scope_ = true;
    return outside;
  }
  void leave(const Scope& outside) {
    locals_.resize(scope_begin_);
    scope_begin_ = outside.begin;
    floor_ = outside.floor;
    in_scope_ = outside.is_inner;
  }

  void assign(std::string_view name, const Value& value) {
    if (!in_scope_) return heap_.put(globals_, name, value);
    heap_.charge(sizeof(Variable) + locals_.size() - scope_begin_);
    for (std::size_t i = scope_begin_; i < locals_.size(); ++i) {
      if (locals_[i].name == name) return void(locals_[i].value = value);
    }
    locals_.push_back({name, value});
  }

  Value look_up(std::string_view name) {
    heap_.charge(locals_.size() - floor_ + globals_.keys.size());
    for (std::size_t i = locals_.size(); i > floor_; --i) {
      if (locals_[i - 1].name == name) return locals_[i - 1].value;
    }
    if (const Value* found = globals_.find(name)) return *found;
    for (const std::string_view function :
         {"namespace", "range", "raise_exception", "strftime_now", "dict", "cycler", "joiner", "lipsum"}) {
      if (name == function) return Value::function(function);
    }
    return Value::undefined(name);
  }

  void bind(const JinjaNode& target, const Value& value) {
    if (target.kind == JinjaKind::name) return assign(target.text, value);
    if (target.kind == JinjaKind::attribute) {
      const Value record = look_up(target.children[0].text);
      if (!record.is(Kind::record)) heap_.wrong("an attribute is set of what is no namespace");
      return heap_.put(*record.items, target.text, value);
    }
    const Value items = builtins_.list_of(value);
    if (items.items->values.size() != target.children.size()) heap_.wrong("as many names as values are expected");
    for (std::size_t i = 0; i < target.children.size(); ++i) assign(target.children[i].text, items.items->values[i]);
  }

  // Statements.

  Flow run(const JinjaNode& node) {
    at_node(node);
    if (++level_ > deepest) heap_.not_supported("nesting this deep");
    Flow flow = Flow::on;
    const auto& children = node.children;
    switch (node.kind) {
      case JinjaKind::block:
        for (std::size_t i = 0; i < children.size() && flow == Flow::on; ++i) flow = run(children[i]);
        break;
      case JinjaKind::text: write(node.text); break;
      case JinjaKind::output: write(heap_.text_of(evaluate(children[0]))); break;
      case JinjaKind::if_tag: flow = run_if(children); break;
      case JinjaKind::for_tag: run_for(children); break;
      case JinjaKind::set: bind(children[0], evaluate(children[1])); break;
      case JinjaKind::set_block: bind(children[0], Value::string(capture(children[1]))); break;
      case JinjaKind::macro: {
        Value macro = Value::function(node.text);
        macro.kind = Kind::macro;
        macro.macro = &node;
        assign(node.text, macro);
        break;
      }
      case JinjaKind::scope: {
        const Scope outside = enter(false);
        flow = run(children[0]);
        leave(outside);
        break;
      }
      case JinjaKind::break_tag: flow = Flow::break_loop; break;
      case JinjaKind::continue_tag: flow = Flow::next_round; break;
      default: heap_.not_supported("'" + std::string(node.text) + "'");
    }
    --level_;
    return flow;
  }

  Flow run_if(const std::vector<JinjaNode>& children) {
    std::size_t i = 0;
    for (; i + 1 < children.size(); i += 2) {
      if (evaluate(children[i]).is_true()) return run(children[i + 1]);
    }
    return i < children.size() ? run(children[i]) : Flow::on;
  }

  void run_for(const std::vector<JinjaNode>& children) {
    Value items = builtins_.list_of(evaluate(children[1]));
    const Scope outside = enter(false);
    if (children[2].kind != JinjaKind::nothing) {
      JinjaItems& kept = heap_.items();
      for (const Value& item : items.items->values) {
        bind(children[0], item);
        if (evaluate(children[2]).is_true()) heap_.push(kept, item);
        locals_.resize(scope_begin_);
      }
      items = Value::of(Kind::list, kept);
    }
    const auto& values = items.items->values;
    for (std::size_t i = 0; i < values.size(); ++i) {
      locals_.resize(scope_begin_);
      bind(children[0], values[i]);
      assign("loop", loop(values, i));
      if (run(children[3]) == Flow::break_loop) break;
    }
    leave(outside);
    if (values.empty() && children[4].kind != JinjaKind::nothing) run(children[4]);
  }

  Value loop(const std::vector<Value>& values, std::size_t i) {
    const auto number = [](std::size_t n) { return Value::integer(static_cast<std::int64_t>(n)); };
    JinjaItems& all = heap_.items();
    heap_.put(all, "index", number(i + 1));
    heap_.put(all, "index0", number(i));
    heap_.put(all, "revindex", number(values.size() - i));
    heap_.put(all, "revindex0", number(values.size() - i - 1));
    heap_.put(all, "length", number(values.size()));
    heap_.put(all, "first", Value::boolean(i == 0));
    heap_.put(all, "last", Value::boolean(i + 1 == values.size()));
    if (i > 0) heap_.put(all, "previtem", values[i - 1]);
    if (i + 1 < values.size()) heap_.put(all, "nextitem", values[i + 1]);
    return Value::of(Kind::record, all);
  }

  /// What a block writes, in a scope of its own.
  std::string_view capture(const JinjaNode& block) {
    const Scope outside = enter(false);
    std::string before = std::exchange(output_, {});
    run(block);
    leave(outside);
    return heap_.keep(std::exchange(output_, std::move(before)));
  }

  Value call(const JinjaNode& macro, const JinjaArguments& arguments) {
    const std::size_t count = macro.children.size() - 1;
    std::size_t used = 0;
    const Scope outside = enter(true);
    for (std::size_t i = 0; i < count; ++i) {
      const JinjaNode& parameter = macro.children[i];
      const Value* given = arguments.find(i, parameter.text);
      used += given != nullptr;
      Value value = given ? *given : Value::undefined(parameter.text);
      if (given == nullptr && !parameter.children.empty()) value = evaluate(parameter.children[0]);
      assign(parameter.text, value);
    }
    if (used != arguments.values.size()) heap_.wrong("a macro is called with other arguments than it has");
    const std::string_view text = capture(macro.children[count]);
    leave(outside);
    return Value::string(text);
  }

  // Expressions.

  Value evaluate(const JinjaNode& node) {
    at_node(node);
    if (++level_ > deepest) heap_.not_supported("nesting this deep");
    const Value value = compute(node);
    heap_.at = node.at;
    --level_;
    return value;
  }

  Value compute(const JinjaNode& node) {
    const auto& children = node.children;
    switch (node.kind) {
      case JinjaKind::string: return Value::string(unescaped(node.text));
      case JinjaKind::number: return number(node.text);
      case JinjaKind::constant: return node.text == "none" ? Value::none() : Value::boolean(node.text == "true");
      case JinjaKind::name: return look_up(node.text);
      case JinjaKind::list: return list(children);
      case JinjaKind::mapping: return mapping(children);
      case JinjaKind::attribute: return attribute(evaluate(children[0]), node.text, /*key_first=*/false);
      case JinjaKind::item: return item(evaluate(children[0]), evaluate(children[1]));
      case JinjaKind::slice: return slice(children);
      case JinjaKind::call: return call(children);
      case JinjaKind::filter: {
        const Value value = evaluate(children[0]);
        return builtins_.filter(node.text, value, arguments(children));
      }
      case JinjaKind::test: {
        const Value value = evaluate(children[0]);
        return Value::boolean(builtins_.test(node.text, value, arguments(children)));
      }
      case JinjaKind::not_: return Value::boolean(!evaluate(children[0]).is_true());
      case JinjaKind::and_:
      case JinjaKind::or_: return first_that_is(node.kind == JinjaKind::or_, children);
      case JinjaKind::choice:
        if (evaluate(children[1]).is_true()) return evaluate(children[0]);
        return children[2].kind == JinjaKind::nothing ? Value() : evaluate(children[2]);
      case JinjaKind::negative: return Value::integer(-builtins_.integer(evaluate(children[0])));
      case JinjaKind::operation: return operation(node);
      case JinjaKind::comparison: return comparison(children);
      default: heap_.not_supported("'" + std::string(node.text) + "'");
    }
  }

  Value first_that_is(bool wanted, const std::vector<JinjaNode>& children) {
    Value value;
    for (const JinjaNode& child : children) {
      value = evaluate(child);
      if (value.is_true() == wanted) break;
    }
    return value;
  }

  std::string_view unescaped(std::string_view text) {
    if (text.find('\\') == std::string_view::npos) return text;
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '\\') {
        plain += text[i];
        continue;
      }
      constexpr std::string_view names = "nrt\\'\"\n", meanings = "\n\r\t\\'\"";
      const std::size_t which = names.find(text[++i]);  // a string does not end in a lone backslash
      if (which == std::string_view::npos) heap_.not_supported("the escape '\\" + std::string(1, text[i]) + "'");
      plain += meanings.substr(which, 1);  // a line break that is escaped is none
    }
    return heap_.keep(std::move(plain));
  }

  Value number(std::string_view digits) {
    std::int64_t value = 0;
    for (const char c : digits) {
      if (c < '0' || c > '9' || digits.size() > 9) heap_.not_supported("the number " + std::string(digits));
      value = value * 10 + (c - '0');
    }
    return Value::integer(value);
  }

  Value list(const std::vector<JinjaNode>& children) {
    JinjaItems& all = heap_.items();
    for (const JinjaNode& child : children) heap_.push(all, evaluate(child));
    return Value::of(Kind::list, all);
  }

  Value mapping(const std::vector<JinjaNode>& children) {
    JinjaItems& all = heap_.items();
    for (std::size_t i = 0; i < children.size(); i += 2) {
      const Value key = evaluate(children[i]);
      if (!key.is(Kind::string)) heap_.not_supported("a key that is no text");
      heap_.put(all, key.text, evaluate(children[i + 1]));
    }
    return Value::of(Kind::mapping, all);
  }

  Value attribute(const Value& object, std::string_view name, bool key_first) {
    if (object.is(Kind::undefined)) heap_.wrong("'" + std::string(object.text) + "' is undefined");
    const bool method = JinjaBuiltins::has_method(object, name);
    if (method && !key_first) return Value::function(name);
    if (object.is(Kind::mapping) || object.is(Kind::record)) {
      heap_.charge(object.items->keys.size());
      if (const Value* found = object.items->find(name)) return *found;
    }
    return method && object.is(Kind::mapping) ? Value::function(name) : Value::undefined(name);
  }

  Value item(const Value& object, const Value& key) {
    if (key.is(Kind::string)) return attribute(object, key.text, /*key_first=*/true);
    if (object.is(Kind::undefined)) heap_.wrong("'" + std::string(object.text) + "' is undefined");
    if (!key.is_number() || !(object.is(Kind::list) || object.is(Kind::string))) return Value::undefined("an item");
    const Value all = object.is(Kind::list) ? object : builtins_.list_of(object);
    const auto size = static_cast<std::int64_t>(all.items->values.size());
    const std::int64_t i = key.number < 0 ? key.number + size : key.number;
    return i < 0 || i >= size ? Value::undefined("an item") : all.items->values[static_cast<std::size_t>(i)];
  }

  Value slice(const std::vector<JinjaNode>& children) {
    const Value object = evaluate(children[0]);
    if (!object.is(Kind::list) && !object.is(Kind::string)) heap_.wrong("a part of what is neither list nor text");
    const JinjaItems& all = *builtins_.list_of(object).items;
    const auto size = static_cast<std::int64_t>(all.values.size());
    const auto bound = [&](std::size_t child, std::int64_t otherwise) {
      if (children[child].kind == JinjaKind::nothing) return otherwise;
      const Value value = evaluate(children[child]);
      return value.is(Kind::none) ? otherwise : builtins_.integer(value);
    };
    const std::int64_t step = bound(3, 1);
    if (step == 0) heap_.wrong("a part in steps of 0");
    const std::int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
    const auto inside = [&](std::int64_t i) { return std::clamp(i < 0 ? i + size : i, low, high); };
    const std::int64_t absent = std::int64_t{1} << 40;
    std::int64_t begin = bound(1, absent), end = bound(2, absent);
    begin = begin == absent ? (step > 0 ? low : high) : inside(begin);
    end = end == absent ? (step > 0 ? high : low) : inside(end);
    JinjaItems& part = heap_.items();
    for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += step)
      heap_.push(part, all.values[static_cast<std::size_t>(i)]);
    return object.is(Kind::string) ? builtins_.join(part, {}) : Value::of(Kind::list, part);
  }

  /// The arguments of a call, a filter or a test: all its children but the first.
  JinjaArguments arguments(const std::vector<JinjaNode>& children) {
    JinjaArguments all;
    for (std::size_t i = 1; i < children.size(); ++i) {
      const bool has_keyword = children[i].kind == JinjaKind::keyword;
      all.values.push_back(evaluate(has_keyword ? children[i].children[0] : children[i]));
      all.keywords.push_back(has_keyword ? children[i].text : std::string_view());
    }
    return all;
  }

  Value call(const std::vector<JinjaNode>& children) {
    const JinjaNode& callee = children[0];
    if (callee.kind == JinjaKind::attribute) {
      const Value object = evaluate(callee.children[0]);
      if (object.is(Kind::undefined)) heap_.wrong("'" + std::string(object.text) + "' is undefined");
      if (!object.is(Kind::record)) return builtins_.method(object, callee.text, arguments(children));
    }
    const Value function = evaluate(callee);
    if (function.is(Kind::macro)) return call(*function.macro, arguments(children));
    if (function.is(Kind::function) && callee.kind == JinjaKind::name)
      return builtins_.function(function.text, arguments(children));
    if (function.is(Kind::undefined)) heap_.wrong("'" + std::string(function.text) + "' is undefined");
    heap_.not_supported("a call of this");
  }

  Value operation(const JinjaNode& node) {
    const Value a = evaluate(node.children[0]), b = evaluate(node.children[1]);
    heap_.at = node.at;
    const std::string_view sign = node.text;
    if (sign == "~" || (sign == "+" && a.is(Kind::string))) {
      const std::string_view left = heap_.text_of(a), right = sign == "~" ? heap_.text_of(b) : builtins_.text(b);
      heap_.charge(left.size() + right.size());
      return heap_.string(std::string(left) += right);
    }
    if (sign == "+" && a.is(Kind::list) && b.is(Kind::list)) {
      JinjaItems& both = heap_.items();
      for (const Value& value : a.items->values) heap_.push(both, value);
      for (const Value& value : b.items->values) heap_.push(both, value);
      return Value::of(Kind::list, both);
    }
    if (sign == "/" || sign == "**" || ((sign == "*" || sign == "%") && !(a.is_number() && b.is_number())))
      heap_.not_supported("this use of '" + std::string(sign) + "'");
    const std::int64_t x = builtins_.integer(a), y = builtins_.integer(b);
    if ((sign == "//" || sign == "%") && y == 0) heap_.wrong("a division by 0");
    const std::int64_t quotient = y == 0 ? 0 : x / y - (x % y != 0 && (x < 0) != (y < 0));  // Python's, rounded down
    const std::int64_t result = sign == "+"    ? x + y
                                : sign == "-"  ? x - y
                                : sign == "*"  ? x * y
                                : sign == "//" ? quotient
                                               : x - quotient * y;
    if (static_cast<double>(result) >= JinjaHeap::largest || static_cast<double>(result) <= -JinjaHeap::largest)
      heap_.not_supported("a number as large as this");
    return Value::integer(result);
  }

  Value comparison(const std::vector<JinjaNode>& children) {
    Value left = evaluate(children[0]);
    for (std::size_t i = 1; i < children.size(); ++i) {
      const std::string_view sign = children[i].text;
      const Value right = evaluate(children[i].children[0]);
      heap_.at = children[i].at;
      const bool holds = sign == "=="       ? jinja_equal(heap_, left, right)
                         : sign == "!="     ? !jinja_equal(heap_, left, right)
                         : sign == "in"     ? builtins_.contains(right, left)
                         : sign == "not in" ? !builtins_.contains(right, left)
                         : sign == "<"      ? builtins_.less(left, right)
                         : sign == ">"      ? builtins_.less(right, left)
                         : sign == "<="     ? !builtins_.less(right, left)
                                            : !builtins_.less(left, right);
      if (!holds) return Value::boolean(false);
      left = right;
    }
    return Value::boolean(true);
  }

  JinjaHeap heap_;
  JinjaBuiltins builtins_;
  JinjaItems globals_;
  std::vector<Variable> locals_;
  std::size_t scope_begin_ = 0, floor_ = 0, level_ = 0;
  bool in_scope_ = false;
  std::string output_;
};

}  // namespace detail

/// A template that was read, to be rendered any number of times, by several threads at once too.
class JinjaTemplate {
 public:
  /// `name` stands for it in errors. Errors: ErrorCode::malformed with the line; not_supported for `raw`; limit above
  /// 256 KiB or for deep nesting.
  explicit JinjaTemplate(std::string_view text, std::string name = "chat template")
      : source_(checked(text, name), std::move(name)), all_(detail::JinjaParser(source_).parse()) {}
  JinjaTemplate(const JinjaTemplate&) = delete;  // the tree points into the text
  JinjaTemplate& operator=(const JinjaTemplate&) = delete;

  /// variables: an object; its members are there by name. Errors, with the line: ErrorCode::malformed for what Jinja
  /// refuses too, raise_exception among it; not_supported; limit for work that no chat template needs, which a computer
  /// does in a second and 64 MiB.
  std::string render(const Json& variables) const { return detail::JinjaRenderer(source_).render(all_, variables); }

 private:
  static std::string_view checked(std::string_view text, const std::string& name) {
    constexpr std::size_t most = std::size_t{256} << 10;
    if (text.size() > most) fail(ErrorCode::limit, name, ": ", text.size(), " bytes, expected at most ", most);
    return text;
  }

  detail::JinjaSource source_;
  detail::JinjaNode all_;
};

}  // namespace PLE_ABI
}  // namespace ple
