// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/text/jinja_value.h"

namespace ple::inline PLE_ABI {
namespace detail {

/// The variables of a rendering: the template's and those of inner scopes. A macro sees its own and the template's.
class JinjaScopes {
 public:
  explicit JinjaScopes(JinjaHeap& heap) : heap_(heap) {}

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

  void assign(std::string_view name, const JinjaValue& value) {
    if (!in_scope_) return heap_.put(globals_, name, value);
    heap_.charge(sizeof(Variable) + locals_.size() - scope_begin_);
    for (std::size_t i = scope_begin_; i < locals_.size(); ++i) {
      if (locals_[i].name == name) return void(locals_[i].value = value);
    }
    locals_.push_back({name, value});
  }

  JinjaValue look_up(std::string_view name) {
    heap_.charge(locals_.size() - floor_ + globals_.keys.size());
    for (std::size_t i = locals_.size(); i > floor_; --i) {
      if (locals_[i - 1].name == name) return locals_[i - 1].value;
    }
    if (const JinjaValue* found = globals_.find(name)) return *found;
    for (const std::string_view function :
         {"namespace", "range", "raise_exception", "strftime_now", "dict", "cycler", "joiner", "lipsum"}) {
      if (name == function) return JinjaValue::function(function);
    }
    return JinjaValue::undefined(name);
  }

  void set_global(std::string_view name, const JinjaValue& value) { globals_.put(name, value); }
  /// Forgets the variables of the innermost scope.
  void clear() { locals_.resize(scope_begin_); }

 private:
  struct Variable {
    std::string_view name;
    JinjaValue value;
  };

  JinjaHeap& heap_;
  JinjaItems globals_;
  std::vector<Variable> locals_;
  std::size_t scope_begin_ = 0, floor_ = 0;
  bool in_scope_ = false;
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
