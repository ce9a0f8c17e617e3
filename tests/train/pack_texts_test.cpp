// SPDX-License-Identifier: Apache-2.0
#include "ple/train/pack_texts.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "ple/train/shuffle.h"

namespace ple::pack_texts_test {

namespace {

/// Text i has the tokens 1000 i, 1000 i + 1, ...; all but the first count.
std::vector<TrainingText> texts_of(const std::vector<std::size_t>& lengths) {
  std::vector<TrainingText> texts;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    TrainingText& text = texts.emplace_back();
    for (std::size_t t = 0; t < lengths[i]; ++t) text.tokens.push_back(static_cast<Token>(1000 * i + t));
    text.learnt.assign(lengths[i], 1);
    if (!text.learnt.empty()) text.learnt[0] = 0;
  }
  return texts;
}

std::string error_of(const std::vector<TrainingText>& texts, std::size_t max_length) {
  try {
    pack_texts(texts, max_length);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::argument);
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("the longest texts come first to where they leave the least room") {
  // 6 + 3, 5 + 4, 2: the text of 2 fits in both of the others, but fills neither.
  const auto packed = pack_texts(texts_of({3, 6, 2, 5, 4}), 9);
  REQUIRE(packed.size() == 3);
  CHECK(packed[0].tokens == std::vector<Token>{0, 1, 2, 1000, 1001, 1002, 1003, 1004, 1005});
  CHECK(packed[0].begins == std::vector<std::size_t>{0, 3});
  CHECK(packed[0].learnt == std::vector<std::uint8_t>{0, 1, 1, 0, 1, 1, 1, 1, 1});
  CHECK(packed[0].learnt_count() == 7);
  CHECK(packed[1].tokens == std::vector<Token>{2000, 2001});
  CHECK(packed[1].begins == std::vector<std::size_t>{0});
  CHECK(packed[2].begins == std::vector<std::size_t>{0, 5});
}

TEST_CASE("the first token of each text does not count, whatever it says") {
  TrainingText text{{7, 8}, {1, 1}};
  const auto packed = pack_texts(std::vector<TrainingText>{text, text}, 4);
  REQUIRE(packed.size() == 1);
  CHECK(packed[0].learnt == std::vector<std::uint8_t>{0, 1, 0, 1});
}

TEST_CASE("every text is in one sequence, whole, and sequences are well filled") {
  SplitMix64 random(5);
  for (const std::size_t max_length : {1, 2, 16, 512}) {
    std::vector<std::size_t> lengths(2000);
    for (std::size_t& length : lengths) length = static_cast<std::size_t>(random.below(max_length + 1));
    const auto texts = texts_of(lengths);
    const auto packed = pack_texts(texts, max_length);
    std::vector<std::size_t> seen(texts.size());
    std::size_t half_empty = 0;
    for (const PackedTexts& sequence : packed) {
      CHECK(sequence.tokens.size() <= max_length);
      CHECK(sequence.learnt.size() == sequence.tokens.size());
      REQUIRE_FALSE(sequence.begins.empty());
      CHECK(sequence.begins[0] == 0);
      if (2 * sequence.tokens.size() <= max_length) ++half_empty;
      for (std::size_t i = 0; i < sequence.begins.size(); ++i) {
        const std::size_t begin = sequence.begins[i];
        const std::size_t end = i + 1 < sequence.begins.size() ? sequence.begins[i + 1] : sequence.tokens.size();
        REQUIRE(begin < end);
        const auto text = static_cast<std::size_t>(sequence.tokens[begin] / 1000);
        ++seen[text];
        CHECK(std::vector<Token>(sequence.tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                                 sequence.tokens.begin() + static_cast<std::ptrdiff_t>(end)) == texts[text].tokens);
      }
    }
    for (std::size_t i = 0; i < texts.size(); ++i) CHECK(seen[i] == (lengths[i] > 0 ? 1 : 0));
    CHECK(half_empty <= 1);  // two that are half empty would have been one
    const auto tokens = std::accumulate(lengths.begin(), lengths.end(), std::size_t{0});
    CHECK(packed.size() * max_length < tokens + tokens / 20 + 2 * max_length);
  }
}

TEST_CASE("what cannot be packed is an error with both values") {
  CHECK(pack_texts({}, 5).empty());
  CHECK(pack_texts(texts_of({0, 0}), 5).empty());
  CHECK(error_of(texts_of({2, 6}), 5) == "pack_texts: text 1 has 6 tokens, expected at most 5");
  CHECK(error_of({{{1, 2}, {1}}}, 5) == "pack_texts: text 0 has 2 tokens, but 1 values of `learnt`");
}

}  // namespace ple::pack_texts_test
