// SPDX-License-Identifier: Apache-2.0
#include "ple/core/number_text.h"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "../comma_locale.h"
#include "ple/core/error.h"
#include "ple/core/json.h"
#include "ple/core/json_text.h"

namespace ple::number_text_test {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// All that the library does with numbers as text.
void check_numbers() {
  CHECK(parse_number<double>("0.25") == 0.25);
  CHECK(parse_number<float>("0.1") == 0.1f);
  CHECK(parse_number<double>("-12.5e3") == -12500.0);
  CHECK(parse_number<double>("1e-06") == 1e-6);
  CHECK(parse_number<double>("0.1000000000000000055511151231257827021181583404541015625") == 0.1);
  // Halfway between two floats, and a hair above it: rounding by way of a double would see no difference.
  CHECK(parse_number<float>("1.000000059604644775390625") == 1.0f);
  CHECK(parse_number<float>("1.000000059604644775390626") == std::nextafter(1.0f, 2.0f));
  CHECK(parse_number<double>("1e400") == infinity);
  CHECK(parse_number<double>("-1e400") == -infinity);
  CHECK(parse_number<double>("1e-400") == 0.0);
  CHECK(parse_number<float>("1e39") == std::numeric_limits<float>::infinity());
  CHECK(parse_number<double>("4.9e-324") == std::numeric_limits<double>::denorm_min());
  for (const char* text : {"", " 1", "1 ", "+1", "1,5", "0x10", "inf", "nan", "1e", "--1", "1.5.", "a"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_number<double>(text));
    CHECK_FALSE(parse_number<float>(text));
  }
  CHECK_FALSE(parse_number<double>(std::string_view("1\0", 2)));
  for (const char* text : {"0.25", "-1e400", "1e-400", "2.5e-3", "7", "-0.0"}) {
    CAPTURE(text);
    CHECK(detail::scanned_number<double>(text) == parse_number<double>(text));
  }

  CHECK(number_text(0.25) == "0.25");
  CHECK(number_text(0.1f) == "0.1");
  CHECK(number_text(1e-6) == "1e-06");
  CHECK(number_text(120.0) == "120");
  CHECK(real_text(120.0) == "120.0");
  CHECK(real_text(0.95f) == "0.95");
  CHECK(real_text(1e300) == "1e+300");
  CHECK(detail::printed_number(-1234.5, 6) == "-1234.5");
  CHECK(detail::printed_number(1e-6, 6) == "1e-06");
  CHECK(detail::printed_number(infinity, 6) == "inf");
  CHECK(detail::printed_number(-infinity, 6) == "-inf");
  CHECK(detail::printed_number(std::nan(""), 6) == "nan");

  const Json json = parse_json(R"({"partial_rotary_factor": 0.25, "eps": 1e-06, "top_p": 0.95})", "config.json");
  CHECK(json.find("partial_rotary_factor")->number() == 0.25);
  CHECK(json.find("eps")->number() == 1e-6);
  CHECK(json_text(json) == "{\n  \"partial_rotary_factor\": 0.25,\n  \"eps\": 1e-06,\n  \"top_p\": 0.95\n}\n");
  CHECK(json.find("top_p")->brief() == "0.95");
  CHECK_THROWS_WITH(fail(ErrorCode::config, "top_p is ", 1.5, ", expected 0 to ", 0.5f),
                    "top_p is 1.5, expected 0 to 0.5");
}

}  // namespace

TEST_CASE("numbers as text are what files have") { check_numbers(); }

TEST_CASE("and have a point where the program's locale has none") {
  for (const std::string name : {"de_DE", "ps_AF"}) {
    const testing::CommaLocale locale(name);
    CAPTURE(name);
    if (!locale.works) {
      MESSAGE("left out: this system has no locale " << name << ", and none can be built");
      continue;
    }
    char text[16];
    std::snprintf(text, sizeof text, "%.1f", 0.5);
    REQUIRE(std::string(text) != "0.5");  // it is in force
    check_numbers();
  }
}

TEST_CASE("every number comes back from its text") {
  std::mt19937_64 generator(1);
  for (int i = 0; i < 20000; ++i) {
    const auto number = std::bit_cast<double>(generator());
    const auto single = std::bit_cast<float>(static_cast<std::uint32_t>(generator()));
    if (!std::isfinite(number) || !std::isfinite(single)) continue;
    CAPTURE(number_text(number));
    CHECK(parse_number<double>(number_text(number)) == number);
    CHECK(parse_number<float>(number_text(single)) == single);
    CHECK(detail::scanned_number<double>(number_text(number)) == number);
    CHECK(detail::scanned_number<float>(number_text(single)) == single);
    CHECK(parse_number<double>(detail::printed_number(number, 17)) == number);
  }
}

}  // namespace ple::number_text_test
