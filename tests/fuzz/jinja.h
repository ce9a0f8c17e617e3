// SPDX-License-Identifier: Apache-2.0
// A Jinja template that renders a few values, the text up to its first zero byte among them.
#pragma once

#include <cstdint>

#include "harness.h"
#include "ple/text/jinja.h"

namespace ple::fuzz {

inline void jinja(std::string_view data) {
  Json variables = Json::object();
  variables.add("x", Json(std::string(data.substr(0, data.find('\0')))));
  variables.add("l", Json::array()).push_back(Json(std::uint64_t{3}));
  variables.add("d", Json::object()).add("k", Json(true));
  may_refuse([&] {
    const std::string text = JinjaTemplate(data).render(variables);
    require(text.size() <= std::size_t{8} << 20, "a template writes more than it may");
  });
}

inline std::vector<std::string> jinja_seeds() {
  using namespace std::string_literals;
  return {
      "plain"s, "{{ x }}{% if d.k %}a{% endif %}"s,
      // Most of what the reader knows.
      "{# c -#}\n{% macro f(a, b=-1) -%}{{ a ~ b }}{%- endmacro %}{% set ns = namespace(n=0, s='') %}{% for k, v in "
      "d.items() if v %}{{ loop.index }}{{ f(k, b=v) }}{% else %}{% continue %}{% endfor %}{% for i in range(5, 0, -2) "
      "%}{% set ns.n = ns.n + l[-1] // 2 % 4 * i %}{% if i in [1, 2] and not x is string or i == 3 %}{% break %}"
      "{% elif d is mapping %}{{ x[1:-1] }}{% endif %}{% endfor %}{% set y %}{{ x | upper | length }}{% endset %}{{ "
      "x.split('a') | join(',') }}{{ y if ns.n > 0 else {'a': [1, (2, 3)]}['a'][1][0] }}{{ d | dictsort | first | "
      "last }}{{ l | map('string') | select('string') | list | length }}{% generation %}{{ x }}{% endgeneration %}"s};
}

}  // namespace ple::fuzz
