// SPDX-License-Identifier: Apache-2.0
#include "ple/core/json.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "../allocations.h"
#include "ple/core/json_text.h"

namespace ple::json_test {

namespace {

/// As another library has it, to compare with.
nlohmann::json converted(const Json& value) {
  if (value.is_null()) return nullptr;
  if (value.is_boolean()) return value.boolean();
  if (value.is_natural()) return value.natural();
  if (value.is_number()) return value.number();
  if (value.is_string()) return value.text();
  nlohmann::json all = value.is_array() ? nlohmann::json::array() : nlohmann::json::object();
  if (value.is_array()) {
    for (const Json& item : value.items()) all.push_back(converted(item));
  } else {
    for (const Json& member : value.members()) all[std::string(member.key())] = converted(member);
  }
  return all;
}

std::string error_of(const std::string& text) {
  try {
    parse_json(text, "config.json");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::malformed);
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("what JSON allows is read as another library reads it") {
  for (const char* text : {"null",
                           " true ",
                           "false",
                           "0",
                           "-0",
                           "18446744073709551615",
                           "18446744073709551616",
                           "-9223372036854775808",
                           "-9223372036854775809",
                           "1.5e3",
                           "1E+2",
                           "-2.5e-3",
                           "\"\"",
                           "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
                           "\"\\u0041\\u00e9\\u4e2d\\ud83d\\ude00\"",
                           "\"\\u0000\"",
                           "[]",
                           "[ ]",
                           "{}",
                           "{ }",
                           "[1,[2,[3]],{}]",
                           "{\"a\":{\"b\":[true,null]},\"c\":\"d\"}",
                           "\t[\r\n1 , 2 ]\n"}) {
    CAPTURE(text);
    CHECK(converted(parse_json(text, "config.json")) == nlohmann::json::parse(text));
  }
}

TEST_CASE("what JSON forbids is refused, with the position") {
  for (const char* text : {"",
                           " ",
                           "nul",
                           "truex",
                           "+1",
                           "01",
                           "1.",
                           ".5",
                           "1e",
                           "-",
                           "--1",
                           "0x10",
                           "NaN",
                           "Infinity",
                           "\"",
                           "\"a",
                           "\"\n\"",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\ud800\"",
                           "\"\\ud800\\u0041\"",
                           "\"\\udc00\"",
                           "[",
                           "[1",
                           "[1,",
                           "[1,]",
                           "[,1]",
                           "[1 2]",
                           "]",
                           "{",
                           "{\"a\"",
                           "{\"a\":",
                           "{\"a\":1",
                           "{\"a\":1,",
                           "{\"a\":1,}",
                           "{a:1}",
                           "{1:2}",
                           "{\"a\" 1}",
                           "[1}",
                           "{\"a\":1]",
                           "1 2",
                           "{}{}",
                           "// x\n1",
                           "'a'"}) {
    CAPTURE(text);
    CHECK(!nlohmann::json::accept(text));
    CHECK(error_of(text).starts_with("config.json: not valid JSON: found "));
  }
  CHECK(error_of("{\"a\": tru}") == "config.json: not valid JSON: found t at byte 6, expected a value");
}

TEST_CASE("a key that stands twice, and nesting without end, are refused") {
  CHECK(error_of("{\"a\":1,\"b\":2,\"a\":3}") == "config.json: 'a' appears twice in one object");
  CHECK(error_of(std::string(1'000'000, '[')) == "config.json: nested deeper than 64 levels");
  CHECK(error_of(std::string(64, '[') + std::string(64, ']')) == "no error");
}

TEST_CASE("a whole number may be written with a fraction or an exponent") {
  const Json json = parse_json("[10, 10.0, 1e1, 0.0, 9007199254740991.0, 18446744073709551615]", "x");
  for (std::size_t i = 0; i < 3; ++i) CHECK(json.items()[i].whole() == 10u);
  CHECK(json.items()[3].whole() == 0u);
  CHECK(json.items()[4].whole() == 9007199254740991u);
  CHECK(json.items()[5].whole() == 18446744073709551615u);
  // 2^53 + 1 is read as 2^53: nobody knows which one was meant.
  for (const char* text : {"-1", "-1.0", "10.5", "1e400", "9007199254740993.0", "\"10\"", "true", "null", "[10]"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_json(text, "x").whole());
  }
  CHECK(json.items()[1].brief() == "10.0");
}

TEST_CASE("what is asked of a value of another type is empty") {
  const Json json = parse_json(R"({"a": 1, "b": "", "c": [], "d": {}})", "x");
  for (const Json& member : json.members()) {
    CHECK(member.text().empty());
    CHECK(member.items().empty());
    CHECK(member.find("a") == nullptr);
  }
  CHECK(json.key().empty());
  CHECK(json.members()[0].key() == "a");
  const Json copy = json;
  CHECK(json_text(copy) == json_text(json));
  CHECK(&copy.members()[0] != &json.members()[0]);
}

TEST_CASE("a text that is long, or makes many values, is refused before it takes memory") {
  const auto refused = [](const std::string& text, const JsonLimits& limits) -> std::string {
    try {
      parse_json(text, "config.json", limits);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::limit);
      return error.what();
    }
    return "no error";
  };
  CHECK(refused("[1,2]", {.bytes = 5}) == "no error");
  CHECK(refused("[1,2]", {.bytes = 4}) == "config.json: has 5 bytes of JSON, more than JsonLimits::bytes, which is 4");
  CHECK(refused("[1,{\"a\":2}]", {.nodes = 4}) == "no error");
  CHECK(refused("[1,{\"a\":2}]", {.nodes = 3}) ==
        "config.json: has more JSON values than JsonLimits::nodes, which is 3");

  // Without a word from the program: 20 MiB of numbers, once 1.7 GB of values.
  std::string numbers = "[0";
  for (std::size_t i = 0; i < (std::size_t{10} << 20); ++i) numbers += ",0";
  const std::size_t before = testing::allocated_bytes();
  CHECK(refused(numbers + "]", {}) == "config.json: has more JSON values than JsonLimits::nodes, which is 1048576");
  CHECK(testing::allocated_bytes() - before < std::size_t{128}
                                                  << 20);  // the text again, and 24 bytes a value as they grow

  // What a byte of a text costs at most.
  for (const char* unit : {"0,", "\"\",", "\"a\",", "[],", "{},", "[0],", "{\"\":0},"}) {
    CAPTURE(unit);
    std::string text = "[";
    for (int i = 0; i < 100000; ++i) text += unit;
    text.back() = ']';
    const std::size_t start = testing::allocated_bytes();
    parse_json(text, "x");
    CHECK(testing::allocated_bytes() - start < 64 * text.size());
  }
}

TEST_CASE("a text damaged anywhere is read as another library reads it, or refused") {
  const std::string good = R"({"model_type":"gemma4","n":[1,2.5e3,-7],"deep":{"x":null,"y":[true,{"z":"\u00e9\n"}]}})";
  std::mt19937 generator(1);
  for (int i = 0; i < 20000; ++i) {
    std::string text = good;
    for (unsigned k = 0; k <= generator() % 3; ++k) {
      const char alphabet[] = "{}[]\",:0123456789eE+-.\\untf a";
      text[generator() % text.size()] = alphabet[generator() % (sizeof alphabet - 1)];
    }
    const auto expected = nlohmann::json::parse(text, nullptr, false);
    CAPTURE(text);
    try {
      const Json value = parse_json(text, "x");
      if (!expected.is_discarded() && converted(value) == expected) continue;
      CHECK(converted(value) == expected);
    } catch (const Error& error) {
      const bool twice = std::string(error.what()).find("twice") != std::string::npos;
      if (!expected.is_discarded() && !twice) CHECK(expected.is_discarded());
    }
  }
}

TEST_CASE("what is written as JSON is what another library writes, but for the digits of its numbers") {
  const std::string text = R"({
  "empty": [],
  "list": [
    1,
    -2,
    1e-06,
    0.95,
    120.0,
    18446744073709551615,
    true,
    null,
    {}
  ],
  "text \"\\\u0001": "caf\u00e9 \n",
  "inside": {
    "a": false
  }
})";
  const Json json = parse_json(text, "text");
  const std::string written = json_text(json);
  CHECK(converted(parse_json(written, "written")) == converted(json));
  CHECK(written.find("\"list\": [\n    1,\n    -2,\n    1e-06,\n    0.95,\n    120.0,\n") != std::string::npos);
  CHECK(nlohmann::json::parse(written) == nlohmann::json::parse(text));
  CHECK(written.find("\"empty\": [],") != std::string::npos);
}

}  // namespace ple::json_test
