// SPDX-License-Identifier: Apache-2.0
// Filters, tests, methods and functions of Jinja templates: those that chat templates use on text.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/text/jinja_operators.h"
#include "ple/text/jinja_value.h"
#include "ple/text/utf8.h"

namespace ple::inline PLE_ABI {
namespace detail {

class JinjaBuiltins : public JinjaOperators {
 public:
  using Arguments = JinjaArguments;
  using JinjaOperators::JinjaOperators;

  /// The value of `loop` at item i.
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

  Value filter(std::string_view name, const Value& value, const Arguments& arguments) {
    const auto string_argument = [&](std::size_t place, std::string_view keyword, std::string_view otherwise) {
      const Value* found = arguments.find(place, keyword);
      return found ? heap_.text_of(*found) : otherwise;
    };
    if (name == "trim") return strip(heap_.text_of(value), arguments, true, true);
    if (name == "length" || name == "count") return Value::integer(length_of(value));
    if (name == "upper" || name == "lower") return cased(heap_.text_of(value), name == "upper");
    if (name == "string") return Value::string(heap_.text_of(value));
    if (name == "safe") return value;
    if (name == "list") return list_of(value);
    if (name == "default" || name == "d") {
      const Value *otherwise = arguments.find(0, "default_value"), *falsy = arguments.find(1, "boolean");
      const bool missing = value.is(Kind::undefined) || (falsy != nullptr && falsy->is_true() && !value.is_true());
      return !missing ? value : otherwise ? *otherwise : Value::string({});
    }
    if (name == "first" || name == "last") {
      const auto& all = list_of(value).items->values;
      return all.empty() ? Value::undefined("an item") : name == "first" ? all.front() : all.back();
    }
    if (name == "reverse") {
      Value all = list_of(value);
      std::reverse(all.items->values.begin(), all.items->values.end());
      return value.is(Kind::string) ? join(*all.items, {}) : all;
    }
    if (name == "join") {
      if (arguments.find(1, "attribute")) heap_.not_supported("joining attributes");
      return join(*list_of(value).items, string_argument(0, "d", {}));
    }
    if (name == "replace") {
      if (arguments.values.size() != 2) heap_.not_supported("this form of 'replace'");
      return replace(heap_.text_of(value), string_argument(0, "old", {}), string_argument(1, "new", {}));
    }
    if (name == "items" || name == "dictsort") {
      if (name == "items" && value.is(Kind::undefined)) return list_of(value);
      if (!value.is(Kind::mapping)) heap_.wrong("the items of a value that is not a mapping");
      if (!arguments.values.empty()) heap_.not_supported("this form of 'dictsort'");
      return pairs(value, name == "dictsort");
    }
    if (name == "map" || name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr")
      return each(name, value, arguments);
    heap_.not_supported("the filter '" + std::string(name) + "'");
  }

  bool test(std::string_view name, const Value& value, const Arguments& arguments) {
    if (name == "defined") return !value.is(Kind::undefined);
    if (name == "undefined") return value.is(Kind::undefined);
    if (name == "none") return value.is(Kind::none);
    if (name == "boolean") return value.is(Kind::boolean);
    if (name == "true" || name == "false") return value.is(Kind::boolean) && (value.number != 0) == (name == "true");
    if (name == "integer") return value.is(Kind::integer);
    if (name == "number") return value.is_number();
    if (name == "string") return value.is(Kind::string);
    if (name == "mapping") return value.is(Kind::mapping);
    if (name == "callable") return value.is(Kind::macro) || value.is(Kind::function);
    // As in Jinja, strings, mappings and undefined values are iterable and sequences too.
    if (name == "iterable" || name == "sequence")
      return value.is(Kind::list) || value.is(Kind::mapping) || value.is(Kind::string) || value.is(Kind::undefined);
    if (name == "odd" || name == "even") return (integer(value) % 2 != 0) == (name == "odd");
    const Value* other = arguments.find(0, {});
    if (other == nullptr) heap_.not_supported("the test '" + std::string(name) + "'");
    if (name == "equalto" || name == "eq" || name == "==") return jinja_equal(heap_, value, *other);
    if (name == "ne" || name == "!=") return !jinja_equal(heap_, value, *other);
    if (name == "in") return contains(*other, value);
    if (name == "divisibleby") {
      if (integer(*other) == 0) heap_.wrong("division by 0");
      return integer(value) % integer(*other) == 0;
    }
    heap_.not_supported("the test '" + std::string(name) + "'");
  }

  static bool has_method(const Value& object, std::string_view name) {
    constexpr std::string_view of_mappings[] = {"get", "items", "keys", "values", "copy", "pop", "update"};
    constexpr std::string_view of_text[] = {"strip", "lstrip",     "rstrip",   "upper", "lower", "replace",
                                            "split", "startswith", "endswith", "title", "count", "format"};
    const auto has = [name](const auto& names) {
      return std::find(std::begin(names), std::end(names), name) != std::end(names);
    };
    return (object.is(Kind::mapping) && has(of_mappings)) || (object.is(Kind::string) && has(of_text));
  }

  Value method(const Value& object, std::string_view name, const Arguments& arguments) {
    const Value *first = arguments.find(0, {}), *second = arguments.find(1, {});
    if (object.is(Kind::mapping)) {
      heap_.charge(object.items->keys.size());
      if (name == "get" && first != nullptr) {
        const Value* found = first->is(Kind::string) ? object.items->find(first->text) : nullptr;
        return found ? *found : second ? *second : Value::none();
      }
      if (name == "items") return pairs(object, false);
      if (name == "keys") return list_of(object);
      if (name == "values") {
        JinjaItems& all = heap_.items();
        for (const Value& value : object.items->values) heap_.push(all, value);
        return Value::of(Kind::list, all);
      }
    } else if (object.is(Kind::string)) {
      if (name == "strip") return strip(object.text, arguments, true, true);
      if (name == "lstrip") return strip(object.text, arguments, true, false);
      if (name == "rstrip") return strip(object.text, arguments, false, true);
      if (name == "upper" || name == "lower") return cased(object.text, name == "upper");
      if (first != nullptr && second == nullptr && first->is(Kind::string)) {
        if (name == "startswith") return Value::boolean(object.text.starts_with(first->text));
        if (name == "endswith") return Value::boolean(object.text.ends_with(first->text));
        if (name == "split" && !first->text.empty()) return split(object.text, first->text);
      }
      if (name == "replace" && arguments.values.size() == 2) return replace(object.text, text(*first), text(*second));
    }
    heap_.not_supported("the method '" + std::string(name) + "', or this form of it,");
  }

  Value function(std::string_view name, const Arguments& arguments) {
    if (name == "namespace") {
      JinjaItems& all = heap_.items();
      for (std::size_t i = 0; i < arguments.values.size(); ++i) {
        if (arguments.keywords[i].empty()) heap_.not_supported("a namespace made from a mapping");
        heap_.put(all, arguments.keywords[i], arguments.values[i]);
      }
      return Value::of(Kind::record, all);
    }
    if (name == "range") return range(arguments);
    if (name == "raise_exception") {
      const Value* message = arguments.find(0, "message");
      heap_.wrong("the template raised: " + std::string(message ? heap_.text_of(*message) : ""));
    }
    heap_.not_supported("the function '" + std::string(name) + "'");
  }

 private:
  Value split(std::string_view text, std::string_view by) {
    JinjaItems& parts = heap_.items();
    while (true) {
      const std::size_t end = find(text, by);
      heap_.push(parts, Value::string(text.substr(0, end)));
      if (end == std::string_view::npos) return Value::of(Kind::list, parts);
      text.remove_prefix(end + by.size());
    }
  }

  Value replace(std::string_view text, std::string_view old, std::string_view replacement) {
    if (old.empty()) heap_.not_supported("replacing an empty string");
    return join(*split(text, old).items, replacement);
  }

  Value strip(std::string_view text, const Arguments& arguments, bool left, bool right) {
    heap_.charge(text.size());
    if (const Value* characters = arguments.find(0, "chars"); characters && !characters->is(Kind::none)) {
      const std::string_view set = this->text(*characters);
      for (const char c : set) {
        if (static_cast<unsigned char>(c) >= 0x80) heap_.not_supported("stripping non-ASCII characters");
      }
      heap_.charge(text.size() / 8 * set.size());
      if (left) text.remove_prefix((std::min)(text.find_first_not_of(set), text.size()));
      if (right) text = text.substr(0, text.find_last_not_of(set) + 1);
      return Value::string(text);
    }
    if (left) text = strip_left(text);
    if (right) text = strip_right(text);
    return Value::string(text);
  }

  Value cased(std::string_view text, bool upper) {
    std::string changed(text);
    for (char& c : changed) {
      if (static_cast<unsigned char>(c) >= 0x80) heap_.not_supported("changing the case of non-ASCII characters");
      if (upper && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
      if (!upper && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    return heap_.string(std::move(changed));
  }

  /// [key, value] lists; if asked, sorted by key regardless of case.
  Value pairs(const Value& mapping, bool sorted) {
    const std::vector<std::string_view>& keys = mapping.items->keys;
    std::vector<std::string_view> left;  // lower-case keys still to come; null once taken
    for (std::size_t i = 0; sorted && i < keys.size(); ++i) left.push_back(cased(keys[i], false).text);
    JinjaItems& all = heap_.items();
    for (std::size_t i = 0; i < keys.size(); ++i) {
      std::size_t next = sorted ? keys.size() : i;
      heap_.charge(left.size());
      for (std::size_t k = 0; k < left.size(); ++k) {
        if (left[k].data() != nullptr && (next == keys.size() || left[k] < left[next])) next = k;
      }
      if (sorted) left[next] = {};
      JinjaItems& pair = heap_.items();
      heap_.push(pair, Value::string(keys[next]));
      heap_.push(pair, mapping.items->values[next]);
      heap_.push(all, Value::of(Kind::list, pair));
    }
    return Value::of(Kind::list, all);
  }

  /// map, select, reject, selectattr, rejectattr: a filter or a test on each item or on its attribute.
  Value each(std::string_view name, const Value& value, const Arguments& arguments) {
    Arguments rest;
    std::string_view attribute, apply;
    const Value* first = arguments.find(0, "attribute");
    const bool by_attribute = name.ends_with("attr") || (first != nullptr && !arguments.keywords[0].empty());
    if (first != nullptr) (by_attribute ? attribute : apply) = text(*first);
    if (by_attribute && attribute.find('.') != std::string_view::npos)
      heap_.not_supported("an attribute of an attribute");
    if (name.ends_with("attr") && arguments.values.size() > 1) apply = text(arguments.values[1]);
    for (std::size_t i = name.ends_with("attr") ? 2 : 1; i < arguments.values.size(); ++i) {
      rest.values.push_back(arguments.values[i]);
      rest.keywords.push_back(arguments.keywords[i]);
    }
    JinjaItems& all = heap_.items();
    for (const Value& item : list_of(value).items->values) {
      Value found = item;
      if (by_attribute) {
        const Value* member = item.items && !item.is(Kind::list) ? item.items->find(attribute) : nullptr;
        found = member ? *member : Value::undefined(attribute);
      }
      if (name == "map") {
        if (!by_attribute) found = filter(apply, found, rest);
        if (by_attribute && !rest.values.empty()) heap_.not_supported("this form of 'map'");
        heap_.push(all, found);
      } else if ((apply.empty() ? found.is_true() : test(apply, found, rest)) == name.starts_with("select")) {
        heap_.push(all, item);
      }
    }
    return Value::of(Kind::list, all);
  }

  Value range(const Arguments& arguments) {
    if (arguments.values.empty() || arguments.values.size() > 3) heap_.wrong("'range' takes 1 to 3 numbers");
    const bool one = arguments.values.size() == 1;
    const std::int64_t begin = one ? 0 : integer(arguments.values[0]), end = integer(arguments.values[one ? 0 : 1]);
    const std::int64_t step = arguments.values.size() == 3 ? integer(arguments.values[2]) : 1;
    if (step == 0) heap_.wrong("a range with step 0");
    JinjaItems& all = heap_.items();
    for (std::int64_t i = begin; step > 0 ? i < end : i > end; i += step) heap_.push(all, Value::integer(i));
    return Value::of(Kind::list, all);
  }
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
