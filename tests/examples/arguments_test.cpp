// SPDX-License-Identifier: Apache-2.0
#include "../../examples/arguments.h"

#include <doctest/doctest.h>

#include <clocale>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/table.h"

namespace ple::arguments_test {

using examples::Arguments;
using examples::bytes_of_text;
using examples::number_of;
using examples::numbers_of;

namespace {

Arguments arguments(std::initializer_list<const char*> words) {
  std::vector<const char*> all{"program"};
  all.insert(all.end(), words);
  return Arguments(static_cast<int>(all.size()), all.data());
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("a whole number is digits between two limits, and nothing behind them") {
  CHECK(number_of<std::size_t>("--n", "0") == 0);
  CHECK(number_of<std::uint64_t>("--seed", "18446744073709551615") == UINT64_MAX);
  CHECK(number_of<int>("--n", "-3") == -3);
  for (const char* bad : {"-1", "18446744073709551616", "1e3", "1.5", "", " 1", "1 ", "+1", "0x10", "1,000", "many"}) {
    CAPTURE(bad);
    CHECK(error_of([&] { number_of<std::uint64_t>("--n", bad); }) ==
          "--n: '" + std::string(bad) + "' is not a whole number from 0 to 18446744073709551615");
  }
  CHECK(error_of([] { number_of<std::size_t>("--n", "0", 1, 1024); }) ==
        "--n: '0' is not a whole number from 1 to 1024");
  CHECK(error_of([] { number_of<std::size_t>("--n", "1025", 1, 1024); }).find("from 1 to 1024") != std::string::npos);
}

TEST_CASE("a real number is finite, and the same in every locale") {
  const std::string before = std::setlocale(LC_ALL, nullptr);
  for (const char* locale : {"C", "de_DE.UTF-8", "de_DE.utf8"}) {
    std::setlocale(LC_ALL, locale);  // stays as it was where the system has no such one
    CHECK(number_of<float>("--top-p", "0.25") == 0.25f);
    CHECK(number_of<double>("--x", "1e3") == 1000);
    CHECK(number_of<float>("--x", "-0.5") == -0.5f);
    for (const char* bad : {"0,25", "nan", "inf", "-inf", "1e39", "", ".", "1.5.2", "half"}) {
      CAPTURE(bad);
      CHECK(error_of([&] { number_of<float>("--x", bad); }) == "--x: '" + std::string(bad) + "' is not a number");
    }
    CHECK(error_of([] { number_of<float>("--min-p", "1.5", 0, 1); }) == "--min-p: '1.5' is not a number from 0 to 1");
    CHECK(error_of([] { number_of<float>("--x", "-1", 0); }) == "--x: '-1' is not a number from 0 up");
  }
  std::setlocale(LC_ALL, before.c_str());
}

TEST_CASE("bytes have a unit, the option's own if none is written") {
  CHECK(bytes_of_text("--budget", "64") == 64u << 20);
  CHECK(bytes_of_text("--budget", "0") == 0);
  CHECK(bytes_of_text("--budget", "0.5") == 1u << 19);
  CHECK(bytes_of_text("--budget", "64MiB", 1024) == 64u << 20);
  CHECK(bytes_of_text("--budget", "512KiB") == 512u << 10);
  CHECK(bytes_of_text("--budget", "1.5GiB") == 3u << 29);
  CHECK(bytes_of_text("--budget", "16", 1024) == 16u << 10);
  for (const char* bad : {"-1", "-1MiB", "nan", "MiB", "64MB", "64 MiB", "64mib"}) {
    CAPTURE(bad);
    CHECK(error_of([&] { bytes_of_text("--budget", bad); }).find("not a number from 0 up") != std::string::npos);
  }
  CHECK(error_of([] { bytes_of_text("--budget", "1e30"); }) == "--budget: '1e30' is more than any machine has");
}

TEST_CASE("a list of numbers has one at least, and nothing but commas between") {
  CHECK(numbers_of<int>("--skip", "7") == std::vector{7});
  CHECK(numbers_of<std::size_t>("--skip", "20,21,22") == std::vector<std::size_t>{20, 21, 22});
  for (const char* bad : {"", ",", "1,", ",1", "1,,2", "1;2", "1, 2", "1,-2", "1,x"}) {
    CAPTURE(bad);
    CHECK(error_of([&] { numbers_of<int>("--skip", bad); }).find("is not a whole number") != std::string::npos);
  }
  CHECK(error_of([] { numbers_of<int>("--depths", "0,8", 0, 7); }) ==
        "--depths: '8' is not a whole number from 0 to 7");
}

TEST_CASE("options are taken by name; what is left is an error that says why") {
  Arguments some = arguments({"model", "--seed", "3", "--thinking", "--chat=--seed?", "--x="});
  CHECK(some.first("MODEL") == "model");
  CHECK(some.number<int>("--seed", 0) == 3);
  CHECK(some.number<int>("--top-k", 5) == 5);
  CHECK(some.flag("--thinking"));
  CHECK_FALSE(some.flag("--thinking"));
  CHECK(some.text("--chat") == "--seed?");
  CHECK(some.text("--x") == "");
  CHECK_NOTHROW(some.done());

  CHECK(error_of([] { arguments({"--seed"}).text("--seed"); }) == "--seed needs a value");
  CHECK(error_of([] { arguments({"--chat", "--seed", "3"}).text("--chat"); }) == "--chat needs a value");
  CHECK(error_of([] {
          arguments({"--seed", "3"}).first("MODEL");
        }) == "MODEL is missing; --help shows what goes where");
  CHECK(error_of([] { arguments({"--sed", "3"}).done(); }) == "what is '--sed'? --help lists the options");
  Arguments twice = arguments({"--seed", "3", "--seed", "4"});
  twice.number<int>("--seed", 0);
  CHECK(error_of([&] { twice.done(); }) == "--seed was given twice");
  CHECK(error_of([] {
          arguments({"--threads", "0"}).threads();
        }) == "--threads: '0' is not a whole number from 1 to 1024");
  CHECK(arguments({}).threads() == 0);
}

TEST_CASE("at the command line, the library's options have the names of the program's") {
  CHECK(examples::in_options("past the context of 3; SessionOptions::context makes it longer") ==
        "past the context of 3; --context makes it longer");
  CHECK(examples::in_options("model: no such folder") == "model: no such folder");
}

TEST_CASE("where a table lives has a budget where rows are kept") {
  const auto storage = [](std::initializer_list<const char*> words) {
    Arguments all = arguments(words);
    examples::table_storage(all);
  };
  CHECK_NOTHROW(storage({}));
  CHECK_NOTHROW(storage({"--table", "streamed", "--budget", "1.5GiB", "--direct"}));
  CHECK(error_of([&] { storage({"--budget", "-1"}); }).find("'-1' is not a number") != std::string::npos);
  CHECK(error_of([&] {
          storage({"--table", "none", "--budget", "1"});
        }) == "--budget goes with --table streamed or mapped");
  CHECK(error_of([&] { storage({"--direct"}); }) == "--direct goes with --table streamed");
  CHECK(error_of([&] {
          storage({"--table", "packed.ple"});
        }) == "where the PLE table lives is 'packed.ple', expected mapped, resident, streamed or none");
  CHECK(error_of([&] {
          storage({"--table", __FILE__});
        }) == "--table says where the PLE table lives; to take it from a file: --table-file " + std::string(__FILE__));
}

}  // namespace ple::arguments_test
