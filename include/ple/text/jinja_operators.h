// SPDX-License-Identifier: Apache-2.0
// Jinja's operators and literals.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "ple/core/config.h"
#include "ple/text/jinja_value.h"
#include "ple/text/utf8.h"

namespace ple::inline PLE_ABI {
namespace detail {

class JinjaOperators {
 public:
  using Value = JinjaValue;
  using Kind = JinjaValue::Kind;

  explicit JinjaOperators(JinjaHeap& heap) : heap_(heap) {}

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
      plain += meanings.substr(which, 1);  // an escaped line break gives nothing
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

  /// The items that a loop over `value` visits, as a list.
  Value list_of(const Value& value) {
    JinjaItems& all = heap_.items();
    if (value.is(Kind::list)) {
      for (const Value& item : value.items->values) heap_.push(all, item);
    } else if (value.is(Kind::mapping)) {
      for (const std::string_view key : value.items->keys) heap_.push(all, Value::string(key));
    } else if (value.is(Kind::string)) {
      for (std::string_view rest = value.text; !rest.empty();) {
        const std::size_t length = std::max<std::size_t>(1, utf8_length(rest));
        heap_.push(all, Value::string(rest.substr(0, length)));
        rest.remove_prefix(length);
      }
    } else if (!value.is(Kind::undefined)) {
      heap_.wrong("a loop over a value without items");
    }
    return Value::of(Kind::list, all);
  }

  std::int64_t length_of(const Value& value) {
    if (value.is(Kind::string)) return static_cast<std::int64_t>(list_of(value).items->values.size());
    if (value.is(Kind::list) || value.is(Kind::mapping)) return static_cast<std::int64_t>(value.items->values.size());
    if (!value.is(Kind::undefined)) heap_.wrong("the length of a value without items");
    return 0;
  }

  bool contains(const Value& all, const Value& one) {
    if (all.is(Kind::string)) return find(all.text, text(one)) != std::string_view::npos;
    if (all.is(Kind::mapping)) {
      heap_.charge(all.items->keys.size());
      return one.is(Kind::string) && all.items->find(one.text) != nullptr;
    }
    for (const Value& item : list_of(all).items->values) {
      if (jinja_equal(heap_, item, one)) return true;
    }
    return false;
  }

  bool less(const Value& a, const Value& b) {
    if (a.is_number() && b.is_number()) return a.number < b.number;
    return text(a) < text(b);
  }

  Value operation(std::string_view sign, const Value& a, const Value& b) {
    if (sign == "~" || (sign == "+" && a.is(Kind::string))) {
      const std::string_view left = heap_.text_of(a), right = sign == "~" ? heap_.text_of(b) : text(b);
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
    const std::int64_t x = integer(a), y = integer(b);
    if ((sign == "//" || sign == "%") && y == 0) heap_.wrong("division by 0");
    const std::int64_t quotient = y == 0 ? 0 : x / y - (x % y != 0 && (x < 0) != (y < 0));  // rounds down, as Python
    const std::int64_t result = sign == "+"    ? x + y
                                : sign == "-"  ? x - y
                                : sign == "*"  ? x * y
                                : sign == "//" ? quotient
                                               : x - quotient * y;
    if (static_cast<double>(result) >= JinjaHeap::largest || static_cast<double>(result) <= -JinjaHeap::largest)
      heap_.not_supported("a number this large");
    return Value::integer(result);
  }

  bool compare(std::string_view sign, const Value& left, const Value& right) {
    return sign == "=="       ? jinja_equal(heap_, left, right)
           : sign == "!="     ? !jinja_equal(heap_, left, right)
           : sign == "in"     ? contains(right, left)
           : sign == "not in" ? !contains(right, left)
           : sign == "<"      ? less(left, right)
           : sign == ">"      ? less(right, left)
           : sign == "<="     ? !less(right, left)
                              : !less(left, right);
  }

  /// object[begin:end:step], as in Python.
  Value slice(const Value& object, std::optional<std::int64_t> begin, std::optional<std::int64_t> end,
              std::optional<std::int64_t> steps) {
    if (!object.is(Kind::list) && !object.is(Kind::string)) heap_.wrong("slicing needs a list or a string");
    const JinjaItems& all = *list_of(object).items;
    const auto size = static_cast<std::int64_t>(all.values.size());
    const std::int64_t step = steps.value_or(1);
    if (step == 0) heap_.wrong("a slice with step 0");
    const std::int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
    const auto inside = [&](std::int64_t i) { return std::clamp(i < 0 ? i + size : i, low, high); };
    const std::int64_t first = begin      ? inside(*begin)
                               : step > 0 ? low
                                          : high,
                       last = end        ? inside(*end)
                              : step > 0 ? high
                                         : low;
    JinjaItems& part = heap_.items();
    for (std::int64_t i = first; step > 0 ? i < last : i > last; i += step)
      heap_.push(part, all.values[static_cast<std::size_t>(i)]);
    return object.is(Kind::string) ? join(part, {}) : Value::of(Kind::list, part);
  }

  std::int64_t integer(const Value& value) {
    if (!value.is_number()) heap_.wrong("arithmetic on a value that is not an integer");
    return value.number;
  }

  std::string_view text(const Value& value) {
    if (!value.is(Kind::string))
      heap_.wrong(value.is(Kind::undefined) ? "expected a string, found an undefined value" : "expected a string");
    return value.text;
  }

  Value join(const JinjaItems& items, std::string_view between) {
    std::string joined;
    for (std::size_t i = 0; i < items.values.size(); ++i) {
      const std::string_view item = heap_.text_of(items.values[i]);
      heap_.charge(item.size() + between.size());
      if (i > 0) joined += between;
      joined += item;
    }
    return heap_.string(std::move(joined));
  }

 protected:
  /// std::string_view::find, whose cost may be the product of both sizes.
  std::size_t find(std::string_view text, std::string_view what, std::size_t from = 0) {
    const std::size_t found = text.find(what, from);
    const std::size_t looked_at = (std::min)(text.size(), found) - (std::min)(text.size(), from);
    heap_.charge(1 + looked_at + looked_at / 16 * what.size());
    return found;
  }

  JinjaHeap& heap_;
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
