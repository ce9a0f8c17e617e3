// SPDX-License-Identifier: Apache-2.0
#include "ple/train/shuffle.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace ple::shuffle_test {

namespace {

std::vector<TrainingText> numbered(std::size_t count) {
  std::vector<TrainingText> texts;
  for (std::size_t i = 0; i < count; ++i) texts.push_back({{static_cast<Token>(i)}, {0}});
  return texts;
}

std::vector<Token> numbers(const std::vector<TrainingText>& texts) {
  std::vector<Token> found;
  for (const TrainingText& text : texts) found.push_back(text.tokens.at(0));
  return found;
}

std::string error_of(std::size_t texts, const HeldOut& held_out) {
  try {
    split_texts(numbered(texts), held_out);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::argument);
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("the generator is SplitMix64, as its authors' C code gives it") {
  SplitMix64 random(1234567);
  for (const std::uint64_t expected :
       {6457827717110365317u, 3203168211198807973u, 9817491932198370423u, 4593380528125082431u, 16408922859458223821u})
    CHECK(random.next() == expected);
}

TEST_CASE("numbers below a limit are equally likely") {
  SplitMix64 random(1);
  std::vector<int> counts(7);
  for (int i = 0; i < 70000; ++i) ++counts.at(static_cast<std::size_t>(random.below(7)));
  for (const int count : counts) CHECK(std::abs(count - 10000) < 400);  // 4 standard deviations
  CHECK(random.below(1) == 0);
  constexpr std::uint64_t most = (std::numeric_limits<std::uint64_t>::max)();
  for (int i = 0; i < 100; ++i) {
    CHECK(random.below(most / 2 + 2) < most / 2 + 2);  // almost half of all numbers are drawn again
    CHECK(random.below(std::uint64_t{1} << 63) < std::uint64_t{1} << 63);
  }
}

TEST_CASE("an order is of a seed and an epoch, the same everywhere") {
  CHECK(shuffled_order(10, 0) == std::vector<std::size_t>{0, 1, 4, 6, 3, 9, 8, 7, 2, 5});
  CHECK(shuffled_order(10, 0, 1) == std::vector<std::size_t>{7, 8, 9, 5, 4, 3, 1, 6, 2, 0});
  CHECK(shuffled_order(0, 5).empty());
  CHECK(shuffled_order(1, 5) == std::vector<std::size_t>{0});
  std::vector<std::vector<std::size_t>> orders;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    for (std::uint64_t epoch = 0; epoch < 8; ++epoch) {
      std::vector<std::size_t> order = shuffled_order(50, seed, epoch);
      orders.push_back(order);
      std::sort(order.begin(), order.end());
      for (std::size_t i = 0; i < order.size(); ++i) CHECK(order[i] == i);
    }
  }
  std::sort(orders.begin(), orders.end());
  CHECK(std::adjacent_find(orders.begin(), orders.end()) == orders.end());
}

TEST_CASE("of three numbers, each of the six orders is as likely") {
  std::vector<int> counts(6);
  for (std::uint64_t epoch = 0; epoch < 6000; ++epoch) {
    const auto order = shuffled_order(3, 1, epoch);
    ++counts[order[0] * 2 + (order[1] > order[2] ? 1 : 0)];
  }
  for (const int count : counts) CHECK(std::abs(count - 1000) < 120);
}

TEST_CASE("texts are held out by share or by number, and none is lost") {
  CHECK(split_texts(numbered(5), {}).training.size() == 5);
  CHECK(split_texts(numbered(5), {}).held_out.empty());
  CHECK(split_texts({}, {}).training.empty());

  const SplitTexts every = split_texts(numbered(7), {.every = 3});
  CHECK(numbers(every.held_out) == std::vector<Token>{2, 5});
  CHECK(numbers(every.training) == std::vector<Token>{0, 1, 3, 4, 6});

  for (const std::size_t count : {2, 3, 10, 101}) {
    for (const double fraction : {0.0001, 0.1, 0.5, 0.9999}) {
      CAPTURE(count);
      CAPTURE(fraction);
      const SplitTexts split = split_texts(numbered(count), {.fraction = fraction, .seed = 3});
      const auto wanted = static_cast<std::size_t>(fraction * static_cast<double>(count) + 0.5);
      CHECK(split.held_out.size() == std::min(std::max<std::size_t>(wanted, 1), count - 1));
      std::vector<Token> all = numbers(split.training), held_out = numbers(split.held_out);
      CHECK(std::is_sorted(all.begin(), all.end()));
      CHECK(std::is_sorted(held_out.begin(), held_out.end()));
      all.insert(all.end(), held_out.begin(), held_out.end());
      std::sort(all.begin(), all.end());
      CHECK(all == numbers(numbered(count)));
      CHECK(numbers(split_texts(numbered(count), {.fraction = fraction, .seed = 3}).held_out) == held_out);
    }
  }
  CHECK(numbers(split_texts(numbered(100), {.fraction = 0.1, .seed = 1}).held_out) !=
        numbers(split_texts(numbered(100), {.fraction = 0.1, .seed = 2}).held_out));
}

TEST_CASE("a split that is impossible is an error with both values") {
  CHECK(error_of(5, {.fraction = 1}) == "HeldOut::fraction is 1, expected 0 to less than 1");
  CHECK(error_of(5, {.fraction = -0.5}) == "HeldOut::fraction is -0.5, expected 0 to less than 1");
  CHECK(error_of(5, {.fraction = std::numeric_limits<double>::quiet_NaN()}).starts_with("HeldOut::fraction is "));
  CHECK(error_of(5, {.fraction = 0.5, .every = 2}) ==
        "HeldOut::fraction is 0.5 and HeldOut::every is 2, expected one of them to be 0");
  CHECK(error_of(1, {.fraction = 0.5}) == "HeldOut::fraction is 0.5 of 1 texts, expected 2 or more");
  CHECK(error_of(5, {.every = 1}) == "HeldOut::every is 1, expected 0, or 2 to the number of texts, 5");
  CHECK(error_of(5, {.every = 6}) == "HeldOut::every is 6, expected 0, or 2 to the number of texts, 5");
}

}  // namespace ple::shuffle_test
