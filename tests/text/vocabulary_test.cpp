// SPDX-License-Identifier: Apache-2.0
// Tables of pieces and merges, also of those that a stranger chose.
#include "ple/text/vocabulary.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "ple/text/pair_map.h"
#include "ple/text/secret_hash.h"

namespace ple::vocabulary_test {

namespace {

// x with x * factor == 1 modulo 2^64.
std::uint64_t inverse(std::uint64_t factor) {
  std::uint64_t x = factor;
  for (int i = 0; i < 6; ++i) x *= 2 - factor * x;
  return x;
}

// 16 bytes that MurmurHash64A, which is libstdc++'s std::hash, hashes to the same for every number.
std::string colliding_piece(std::uint64_t number) {
  constexpr std::uint64_t factor = 0xC6A4A7935BD1E995u;
  const auto mix = [](std::uint64_t x) { return x ^ (x >> 47); };
  const std::uint64_t first = number;
  std::uint64_t state = 0xC70F6907u ^ (16 * factor);
  state = (state ^ (mix(first * factor) * factor)) * factor;
  const std::uint64_t second = mix(state * inverse(factor)) * inverse(factor);  // cancels the state
  std::string piece(16, '\0');
  std::memcpy(piece.data(), &first, 8);
  std::memcpy(piece.data() + 8, &second, 8);
  return piece;
}

}  // namespace

TEST_CASE("keys that collide in one table do not in another") {
  // Slots of 256 that 2,000 keys are in. One draw of both functions may be an unlucky one; half of many are not.
  const auto slots_taken = [](const SecretHash& hash, const auto& keys) {
    std::set<std::uint64_t> slots;
    for (const auto& key : keys) slots.insert(hash(key) >> 56);
    return slots.size();
  };
  std::vector<std::size_t> by_numbers, by_texts;
  for (int draw = 0; draw < 25; ++draw) {
    const SecretHash one, other;
    std::vector<std::uint64_t> numbers;
    std::vector<std::string> texts;
    for (std::uint64_t i = 0; numbers.size() < 2000 || texts.size() < 2000; ++i) {
      const std::string text = "piece " + std::to_string(i);
      if (one(i) >> 56 == 0) numbers.push_back(i);
      if (one(text) >> 56 == 0) texts.push_back(text);
    }
    by_numbers.push_back(slots_taken(other, numbers));
    by_texts.push_back(slots_taken(other, texts));
  }
  for (auto* counts : {&by_numbers, &by_texts}) std::nth_element(counts->begin(), counts->begin() + 12, counts->end());
  CHECK(by_numbers[12] > 64);
  CHECK(by_texts[12] > 200);
}

TEST_CASE("a hash depends on every byte of a text, and on its length") {
  const SecretHash hash;
  std::set<std::uint64_t> seen;
  for (std::size_t length = 0; length <= max_piece_size; ++length) seen.insert(hash(std::string(length, '\0')));
  for (std::size_t at = 0; at < max_piece_size; ++at) {
    std::string text(max_piece_size, '\0');
    text[at] = 'x';
    seen.insert(hash(text));
  }
  CHECK(seen.size() == 2 * max_piece_size + 1);
}

TEST_CASE("pieces that all collide in std::hash are added and found in no quadratic time") {
  Vocabulary vocabulary;
  constexpr Token count = 100'000;
  for (Token id = 0; id < count; ++id) vocabulary.add(id, colliding_piece(static_cast<std::uint64_t>(id)), "collide");
  for (Token id = 0; id < count; ++id) CHECK(vocabulary.find(colliding_piece(static_cast<std::uint64_t>(id))) == id);
  CHECK(!vocabulary.find("other"));
}

TEST_CASE("pairs that all collide under a known factor are added and found in no quadratic time") {
  // As many with the same bits 20 to 63 of (key ^ key >> 29) * factor.
  constexpr std::uint64_t factor = 0x9E3779B97F4A7C15u;
  PairMap<std::uint32_t> map;
  const auto key = [](std::uint32_t i) {
    const std::uint64_t mixed = ((std::uint64_t{0x123456789} << 20) | i) * inverse(factor);
    return mixed ^ (mixed >> 29) ^ (mixed >> 58);
  };
  constexpr std::uint32_t count = 200'000;
  for (std::uint32_t i = 0; i < count; ++i)
    map(static_cast<std::uint32_t>(key(i) >> 32), static_cast<std::uint32_t>(key(i))) = i;
  CHECK(map.size() == count);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto* found = map.find(static_cast<std::uint32_t>(key(i) >> 32), static_cast<std::uint32_t>(key(i)));
    REQUIRE(found != nullptr);
    CHECK(*found == i);
  }
}

TEST_CASE("a piece has a longest size") {
  Vocabulary vocabulary;
  vocabulary.add(0, std::string(max_piece_size, 'a'), "long");
  CHECK(vocabulary.find(std::string(max_piece_size, 'a')) == 0);
  CHECK(!vocabulary.find(std::string(max_piece_size + 1, 'a')));
  CHECK_THROWS_WITH_AS(vocabulary.add(1, std::string(max_piece_size + 1, 'a'), "long"),
                       ("long: piece 1 '" + std::string(40, 'a') + "...' has 257 bytes, expected at most 256").c_str(),
                       Error);
}

}  // namespace ple::vocabulary_test
