// SPDX-License-Identifier: Apache-2.0
// Renders the Jinja of chat templates, set up as in transformers, at a bounded cost. The rest is an error when reached.
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
#include "ple/core/json.h"
#include "ple/text/jinja_builtins.h"
#include "ple/text/jinja_parser.h"
#include "ple/text/jinja_scopes.h"
#include "ple/text/jinja_value.h"

namespace ple::inline PLE_ABI {
namespace detail {

class JinjaRenderer {
 public:
  explicit JinjaRenderer(const JinjaSource& source) : heap_(source), builtins_(heap_), scopes_(heap_) {}

  std::string render(const JinjaNode& all, const Json& variables) {
    for (const Json& variable : variables.members())
      scopes_.set_global(heap_.keep(std::string(variable.key())), heap_.from_json(variable));
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

  void bind(const JinjaNode& target, const Value& value) {
    if (target.kind == JinjaKind::name) return scopes_.assign(target.text, value);
    if (target.kind == JinjaKind::attribute) {
      const Value record = scopes_.look_up(target.children[0].text);
      if (!record.is(Kind::record)) heap_.wrong("only a namespace's attributes can be set");
      return heap_.put(*record.items, target.text, value);
    }
    const Value items = builtins_.list_of(value);
    if (items.items->values.size() != target.children.size()) heap_.wrong("expected as many values as names");
    for (std::size_t i = 0; i < target.children.size(); ++i)
      scopes_.assign(target.children[i].text, items.items->values[i]);
  }

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
        scopes_.assign(node.text, macro);
        break;
      }
      case JinjaKind::scope: {
        const JinjaScopes::Scope outside = scopes_.enter(false);
        flow = run(children[0]);
        scopes_.leave(outside);
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
    const JinjaScopes::Scope outside = scopes_.enter(false);
    if (children[2].kind != JinjaKind::nothing) {
      JinjaItems& kept = heap_.items();
      for (const Value& item : items.items->values) {
        bind(children[0], item);
        if (evaluate(children[2]).is_true()) heap_.push(kept, item);
        scopes_.clear();
      }
      items = Value::of(Kind::list, kept);
    }
    const auto& values = items.items->values;
    for (std::size_t i = 0; i < values.size(); ++i) {
      scopes_.clear();
      bind(children[0], values[i]);
      scopes_.assign("loop", builtins_.loop(values, i));
      if (run(children[3]) == Flow::break_loop) break;
    }
    scopes_.leave(outside);
    if (values.empty() && children[4].kind != JinjaKind::nothing) run(children[4]);
  }

  /// What a block writes, in a scope of its own.
  std::string_view capture(const JinjaNode& block) {
    const JinjaScopes::Scope outside = scopes_.enter(false);
    std::string before = std::exchange(output_, {});
    run(block);
    scopes_.leave(outside);
    return heap_.keep(std::exchange(output_, std::move(before)));
  }

  Value call(const JinjaNode& macro, const JinjaArguments& arguments) {
    const std::size_t count = macro.children.size() - 1;
    std::size_t used = 0;
    const JinjaScopes::Scope outside = scopes_.enter(true);
    for (std::size_t i = 0; i < count; ++i) {
      const JinjaNode& parameter = macro.children[i];
      const Value* given = arguments.find(i, parameter.text);
      used += given != nullptr;
      Value value = given ? *given : Value::undefined(parameter.text);
      if (given == nullptr && !parameter.children.empty()) value = evaluate(parameter.children[0]);
      scopes_.assign(parameter.text, value);
    }
    if (used != arguments.values.size()) heap_.wrong("a macro is called with arguments that it does not have");
    const std::string_view text = capture(macro.children[count]);
    scopes_.leave(outside);
    return Value::string(text);
  }

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
      case JinjaKind::string: return Value::string(builtins_.unescaped(node.text));
      case JinjaKind::number: return builtins_.number(node.text);
      case JinjaKind::constant: return node.text == "none" ? Value::none() : Value::boolean(node.text == "true");
      case JinjaKind::name: return scopes_.look_up(node.text);
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
      case JinjaKind::operation: {
        const Value a = evaluate(children[0]), b = evaluate(children[1]);
        heap_.at = node.at;
        return builtins_.operation(node.text, a, b);
      }
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

  Value list(const std::vector<JinjaNode>& children) {
    JinjaItems& all = heap_.items();
    for (const JinjaNode& child : children) heap_.push(all, evaluate(child));
    return Value::of(Kind::list, all);
  }

  Value mapping(const std::vector<JinjaNode>& children) {
    JinjaItems& all = heap_.items();
    for (std::size_t i = 0; i < children.size(); i += 2) {
      const Value key = evaluate(children[i]);
      if (!key.is(Kind::string)) heap_.not_supported("a mapping key that is not a string");
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
    std::optional<std::int64_t> bounds[3];  // begin, end, step
    for (std::size_t i = 0; i < 3; ++i) {
      const Value bound = children[i + 1].kind == JinjaKind::nothing ? Value::none() : evaluate(children[i + 1]);
      if (!bound.is(Kind::none)) bounds[i] = builtins_.integer(bound);
    }
    return builtins_.slice(object, bounds[0], bounds[1], bounds[2]);
  }

  /// The arguments of a call, a filter or a test: all children but the first.
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
    heap_.not_supported("calling this value");
  }

  Value comparison(const std::vector<JinjaNode>& children) {
    Value left = evaluate(children[0]);
    for (std::size_t i = 1; i < children.size(); ++i) {
      const Value right = evaluate(children[i].children[0]);
      heap_.at = children[i].at;
      if (!builtins_.compare(children[i].text, left, right)) return Value::boolean(false);
      left = right;
    }
    return Value::boolean(true);
  }

  JinjaHeap heap_;
  JinjaBuiltins builtins_;
  JinjaScopes scopes_;
  std::size_t level_ = 0;
  std::string output_;
};

}  // namespace detail

/// A parsed template. Any number of threads may render it at once.
class JinjaTemplate {
 public:
  /// Errors give `name` and line: ErrorCode::malformed; not_supported for `raw`; limit above 256 KiB or deep nesting.
  explicit JinjaTemplate(std::string_view text, std::string name = "chat template")
      : source_(checked(text, name), std::move(name)), all_(detail::JinjaParser(source_).parse()) {}
  JinjaTemplate(const JinjaTemplate&) = delete;  // the tree points into the text
  JinjaTemplate& operator=(const JinjaTemplate&) = delete;

  /// `variables`: an object of the template's variables. Errors, with the line: ErrorCode::malformed for what Jinja
  /// refuses too and raise_exception; not_supported; limit above about a second of work and 64 MiB.
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

}  // namespace ple::inline PLE_ABI
