// SPDX-License-Identifier: Apache-2.0
#include "ple/core/function_ref.h"

#include <doctest/doctest.h>

namespace ple::function_ref_test {

namespace {

int twice(int x) { return 2 * x; }
int apply(FunctionRef<int(int)> f, int x) { return f(x); }

}  // namespace

TEST_CASE("what is borrowed is called, not copied: a lambda, a const one, a function's address, another reference") {
  int calls = 0;
  auto counting = [&calls](int x) { return x + ++calls; };
  CHECK(apply(counting, 10) == 11);
  CHECK(apply(counting, 10) == 12);
  const auto constant = [](int x) { return x - 1; };
  CHECK(apply(constant, 10) == 9);
  CHECK(apply(&twice, 10) == 20);
  CHECK(apply([](int x) { return x * x; }, 10) == 100);
  FunctionRef<int(int)> reference = counting;
  const FunctionRef<int(int)> copy = reference;
  reference = constant;
  CHECK(copy(0) == 3);
  CHECK(reference(0) == -1);
  struct Adder {
    int state = 0;
    int operator()(int x) { return state += x; }
  } changing;
  FunctionRef<int(int)> f = changing;
  f(3);
  f(4);
  CHECK(changing.state == 7);
}

TEST_CASE("it may refer to nothing") {
  FunctionRef<void()> nothing;
  CHECK(!nothing);
  const auto something = [] {};
  nothing = something;
  CHECK(nothing);
}

}  // namespace ple::function_ref_test
