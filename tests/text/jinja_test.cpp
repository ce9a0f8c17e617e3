// SPDX-License-Identifier: Apache-2.0
#include "ple/text/jinja.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace ple::jinja_test {

namespace {

using nlohmann::ordered_json;

struct Rendered {
  std::string text, error;
  ErrorCode code = ErrorCode::file;
  bool failed = false;
};

Rendered render(std::string_view text, std::string_view variables = "{}") {
  Rendered rendered;
  try {
    rendered.text = JinjaTemplate(text, "t").render(parse_json(variables, "variables"));
  } catch (const Error& error) {
    rendered = {{}, error.what(), error.code(), true};
  }
  return rendered;
}

std::string repeated(std::string_view text, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace

TEST_CASE("templates render as the reference renders them, or are refused where it refuses them") {
  std::ifstream file(PLE_TEST_DATA "/text/jinja_cases.jsonl", std::ios::binary);
  std::string line;
  REQUIRE(std::getline(file, line));
  const std::vector<std::string> templates = ordered_json::parse(line)["templates"];
  std::size_t texts = 0, errors = 0, not_supported = 0;
  while (std::getline(file, line)) {
    const ordered_json group = ordered_json::parse(line);
    const std::string variables = group["variables"].dump();
    for (const ordered_json& c : group["cases"]) {
      const ordered_json& source = c["template"];
      const std::string text = source.is_string() ? source.get<std::string>() : templates[source.get<std::size_t>()];
      CAPTURE(text);
      CAPTURE(variables);
      const Rendered rendered = render(text, variables);
      CAPTURE(rendered.error);
      if (!c.value("supported", true)) {
        CHECK(rendered.failed);
        CHECK(rendered.code == ErrorCode::not_supported);
        ++not_supported;
      } else if (c["text"].is_null()) {
        CHECK(rendered.failed);
        CHECK(rendered.code != ErrorCode::limit);
        ++errors;
      } else {
        CHECK(!rendered.failed);
        CHECK(rendered.text == c["text"].get<std::string>());
        ++texts;
      }
    }
  }
  CHECK(texts >= 600);
  CHECK(errors >= 140);
  CHECK(not_supported >= 20);
}

TEST_CASE("errors name the template and the line") {
  CHECK(render("a\n{{ q.x }}").error == "t: line 2: 'q' is undefined");
  CHECK(render("\n\n{{ raise_exception('by turns') }}").error == "t: line 3: the template raised: by turns");
  CHECK(render("{% if x %}").error == "t: line 1: found 'the end', expected 'endif'");
  CHECK(render("{{ 'a' | sort }}").error == "t: line 1: the filter 'sort' is not supported");
  CHECK(render("{{ 'a' | sort }}").code == ErrorCode::not_supported);
  CHECK(render("{{ 1 + }}").code == ErrorCode::malformed);
}

TEST_CASE("a template may be rendered again, and leaves nothing behind") {
  const JinjaTemplate counter("{% set ns = namespace(n=start) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}");
  CHECK(counter.render(parse_json(R"({"start":1})", "variables")) == "2");
  CHECK(counter.render(parse_json(R"({"start":5})", "variables")) == "6");
}

TEST_CASE("a hostile template ends soon, in an error") {
  const std::string doubling = "{% set ns = namespace(s='0123456789', l=[1]) %}{% for i in range(99) %}";
  const std::string hostile[] = {
      "{{ " + repeated("(", 5000),
      "{{ " + repeated("[", 5000),
      "{{ " + repeated("not ", 5000) + "x }}",
      "{{ " + repeated("-", 5000) + "1 }}",
      "{{ x" + repeated(" if x else x", 5000) + " }}",
      "{{ 1" + repeated(" + 1", 5000) + " }}",
      "{{ x" + repeated("[0]", 5000) + " }}",
      "{{ x" + repeated(" | trim", 5000) + " }}",
      "{{ x" + repeated(" is y", 5000) + " }}",
      repeated("{% if x %}", 5000),
      repeated("{% for i in x %}", 300) + repeated("{% endfor %}", 300),
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
      doubling + "{% set ns.s = ns.s + ns.s %}{% endfor %}",
      doubling + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      doubling + "{% set ns.l = ns.l + ns.l %}{% endfor %}",
      doubling + "{% set ns.s = ns.s | replace('0', ns.s) %}{% endfor %}",
      doubling + "{% set ns.s = ns.s | join(ns.s) %}{% endfor %}",
      doubling + "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l == [ns.l[0], ns.l[0]] }}",
      doubling + "{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l[0] == [ns.l[0][0]] }}",
      "{{ range(2000000000) | length }}",
      "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
      "{% for i in range(9999) %}{{ '" + repeated("x", 9999) + "' }}{% endfor %}",
      "{% for i in range(9999) %}{{ '" + repeated("x", 9999) + "' | length }}{% endfor %}",
      "{% for i in range(9999) %}{{ '" + repeated("x", 9999) + "' in '" + repeated("x", 9998) + "y' }}{% endfor %}",
      "{% for i in range(99) %}{{ '" + repeated("x", 9999) + "y' in '" + repeated("x", 99999) + "' }}{% endfor %}",
      repeated("{% set a = namespace(b=a) %}", 9000) +
          "{% for i in range(99999) %}{{ a.b.b.b is defined }}{% endfor %}",
      "{% for i in range(9999) %}{% set " + repeated("a, ", 99) + "b = range(100) %}{{ c }}{% endfor %}",
      repeated("{", 300000),
      repeated("{{x}}", 60000),
      "{# " + repeated("{#", 99999),
      "{{ '" + repeated("\\n", 99999),
  };
  for (const std::string& text : hostile) {
    CAPTURE(text.substr(0, 100));
    const Rendered rendered = render(text, R"({"x":[[1]]})");
    CHECK(rendered.failed);
  }
  // A long template that does little is no attack.
  CHECK(render(repeated("{{x}}", 9000), R"({"x":"y"})").text == repeated("y", 9000));
  CHECK(render("{{ " + repeated("'a' + ", 40) + "'a' }}").text == repeated("a", 41));
}

}  // namespace ple::jinja_test
