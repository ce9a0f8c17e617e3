// SPDX-License-Identifier: Apache-2.0
#include "ple/text/tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "ple/text/stream_decoder.h"

namespace ple::tokenizer_test {

namespace {

using nlohmann::json;
using ple::Token;

const std::string data = PLE_TEST_DATA "/text/";

std::vector<json> read_lines(const std::string& name) {
  std::ifstream file(data + name, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), "cannot read " << data << name);
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  return lines;
}

std::vector<Token> ids_of(const json& value) { return value.get<std::vector<Token>>(); }

// What the decode fields of a case mean: see the script that writes them.
struct Decoded {
  std::string all;
  std::string without_specials;
};
Decoded decoded_of(const json& c) {
  Decoded result;
  result.all = c.value("decoded", c.value("text", std::string()));
  result.without_specials = c.value("skipped", result.all);
  return result;
}

std::string stream(const ple::Tokenizer& tokenizer, const std::vector<Token>& tokens, bool skip_special) {
  ple::StreamDecoder decoder(tokenizer, skip_special);
  std::string text;
  for (const Token token : tokens) {
    const std::string part = decoder.push(token);
    CHECK(ple::is_utf8(part));
    text += part;
  }
  return text + decoder.finish();
}

void check_decode(const ple::Tokenizer& tokenizer, const std::vector<Token>& ids, const Decoded& expected) {
  CHECK(tokenizer.decode(ids, false) == expected.all);
  CHECK(tokenizer.decode(ids, true) == expected.without_specials);
  CHECK(stream(tokenizer, ids, false) == expected.all);
  CHECK(stream(tokenizer, ids, true) == expected.without_specials);
}

bool has_control(const ple::Tokenizer& tokenizer, const std::vector<Token>& ids) {
  // unk stands for characters that have no piece.
  return std::any_of(ids.begin(), ids.end(),
                     [&](Token id) { return tokenizer.is_control(id) && id != tokenizer.token_to_id("<unk>"); });
}

// False if the reference makes a control token of a text even where special tokens stay text, as it does where the
// model itself builds one: there we differ.
bool check_case(const ple::Tokenizer& tokenizer, const json& c) {
  const std::string text = c["text"];
  CAPTURE(c.dump());
  const auto ids = tokenizer.encode(text, {.add_special = false});
  CHECK(ids == ids_of(c["ids"]));
  const auto plain = tokenizer.encode(text, {.add_special = false, .parse_special = false});
  const auto expected = ids_of(c.contains("plain") ? c["plain"] : c["ids"]);
  const bool same = !has_control(tokenizer, expected);
  CHECK((plain == expected) == same);
  CHECK(!has_control(tokenizer, plain));
  check_decode(tokenizer, ids, decoded_of(c));
  return same;
}

}  // namespace

TEST_CASE("Gemma's pipeline gives the reference's tokens and text") {
  const std::vector<json> cases = read_lines("tokenizer_cases.jsonl");
  REQUIRE(cases.size() >= 3000);
  // As the tokenizers library writes the file, and as transformers does.
  for (const char* const file : {"tokenizer.json", "tokenizer_saved.json"}) {
    CAPTURE(file);
    const auto tokenizer = ple::Tokenizer::open(data + file);
    const Token bos = tokenizer.token_to_id("<bos>").value();
    for (const json& c : cases) {
      CHECK(check_case(tokenizer, c));
      auto with_bos = ids_of(c["ids"]);
      with_bos.insert(with_bos.begin(), bos);
      CHECK(tokenizer.encode(c["text"].get<std::string>()) == with_bos);
    }
  }
}

TEST_CASE("any sequence of ids decodes as in the reference") {
  const auto tokenizer = ple::Tokenizer::open(data + "tokenizer.json");
  const std::vector<json> cases = read_lines("decode_cases.jsonl");
  REQUIRE(cases.size() >= 500);
  for (const json& c : cases) {
    CAPTURE(c.dump());
    check_decode(tokenizer, ids_of(c["ids"]), decoded_of(c));
  }
}

TEST_CASE("the other supported components do what the reference's do") {
  for (const json& file : read_lines("component_cases.jsonl")) {
    const std::string name = file["name"];
    CAPTURE(name);
    const auto tokenizer = ple::Tokenizer::parse(file["tokenizer"].dump(), name);
    for (const json& c : file["cases"]) {
      const bool same = check_case(tokenizer, c);
      CHECK((same || name == "ignore_merges" || name == "built"));
      CHECK(tokenizer.encode(c["text"].get<std::string>()) == ids_of(c["full"]));
    }
  }
}

TEST_CASE("merges written as strings are the same merges") {
  const auto tokenizer = ple::Tokenizer::open(data + "tokenizer.json");
  std::ifstream file(data + "tokenizer.json", std::ios::binary);
  json contents = json::parse(file);
  json joined = json::array({"#version: 0.2"});
  for (const json& pair : contents["model"]["merges"]) {
    joined.push_back(pair[0].get<std::string>() + " " + pair[1].get<std::string>());
  }
  contents["model"]["merges"] = joined;
  const auto other = ple::Tokenizer::parse(contents.dump(), "joined");
  for (const json& c : read_lines("tokenizer_cases.jsonl")) {
    CHECK(other.encode(c["text"].get<std::string>(), {.add_special = false}) == ids_of(c["ids"]));
  }
}

TEST_CASE("looking up pieces and ids") {
  const auto tokenizer = ple::Tokenizer::open(data + "tokenizer.json");
  CHECK(tokenizer.token_to_id("<pad>") == 0);
  CHECK(tokenizer.token_to_id("<eos>") == 1);
  CHECK(tokenizer.token_to_id("<bos>") == 2);
  CHECK(tokenizer.piece(2) == "<bos>");
  CHECK(tokenizer.is_special(2));
  CHECK(tokenizer.prefix().size() == 1);
  CHECK(tokenizer.prefix()[0] == 2);
  CHECK(tokenizer.suffix().empty());
  CHECK_FALSE(tokenizer.token_to_id("no such piece").has_value());
  const Token newline = tokenizer.token_to_id("\n").value();
  CHECK_FALSE(tokenizer.is_special(newline));
  for (std::size_t i = 0; i < tokenizer.vocab_size(); ++i) {
    const auto id = static_cast<Token>(i);
    CHECK(tokenizer.token_to_id(tokenizer.piece(id)) == id);
  }
}

TEST_CASE("ids outside the vocabulary are refused") {
  const auto tokenizer = ple::Tokenizer::open(data + "tokenizer.json");
  const auto end = static_cast<Token>(tokenizer.vocab_size());
  for (const Token id : {Token{-1}, end, Token{2147483647}, Token{-2147483647 - 1}}) {
    CAPTURE(id);
    const std::vector<Token> ids = {id};
    CHECK_THROWS_AS(tokenizer.decode(ids), ple::Error);
    CHECK_THROWS_AS(tokenizer.piece(id), ple::Error);
    CHECK_THROWS_AS(ple::StreamDecoder(tokenizer).push(id), ple::Error);
    CHECK_FALSE(tokenizer.is_special(id));
  }
}

TEST_CASE("bytes that are not UTF-8 become their byte tokens") {
  const auto tokenizer = ple::Tokenizer::open(data + "tokenizer.json");
  const auto byte = [&](std::string_view piece) { return tokenizer.token_to_id(piece).value(); };
  const auto encode = [&](std::string_view text) { return tokenizer.encode(text, {.add_special = false}); };
  CHECK(encode("\xFF") == std::vector<Token>{byte("<0xFF>")});
  CHECK(encode("\xE2\x96") == std::vector<Token>{byte("<0xE2>"), byte("<0x96>")});                      // cut short
  CHECK(encode("\xC0\x80") == std::vector<Token>{byte("<0xC0>"), byte("<0x80>")});                      // overlong NUL
  CHECK(encode("\xED\xA0\x80") == std::vector<Token>{byte("<0xED>"), byte("<0xA0>"), byte("<0x80>")});  // surrogate
  CHECK(encode("\xF4\x90\x80\x80").size() == 4);  // above U+10FFFF
  // The text around a bad byte is encoded as ever.
  auto expected = encode("the sky");
  expected.push_back(byte("<0x80>"));
  expected.push_back(byte("<|turn>"));
  CHECK(encode("the sky\x80<|turn>") == expected);

  // Random bytes: nothing breaks, and the byte pieces keep what was in the text.
  unsigned state = 1;
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < round % 12; ++i) {
      state = state * 1664525u + 1013904223u;
      text += static_cast<char>(static_cast<unsigned char>(state >> 24));
    }
    const auto ids = encode(text);
    const std::string decoded = tokenizer.decode(ids, false);
    CHECK(ple::is_utf8(decoded));
    CHECK(stream(tokenizer, ids, false) == decoded);
    if (ple::is_utf8(text)) CHECK(decoded == text);
  }
}

TEST_CASE("a bad byte is one unk without byte fallback") {
  for (const json& file : read_lines("component_cases.jsonl")) {
    if (file["name"] != "unk" && file["name"] != "fuse_unk") continue;
    const auto tokenizer = ple::Tokenizer::parse(file["tokenizer"].dump(), "unk");
    const std::size_t expected = file["name"] == "unk" ? 2 : 1;
    CHECK(tokenizer.encode("\xFF\xFE", {.add_special = false}) ==
          std::vector<Token>(expected, tokenizer.token_to_id("<unk>").value()));
  }
}

TEST_CASE("text without a break takes neither quadratic time nor deep recursion") {
  const auto tokenizer = ple::Tokenizer::open(data + "tokenizer.json");
  for (const std::string_view unit :
       {"a", "the", "\n", " ", "<", "<unused", "\xE2\x96\x81", "\xFF", "\xF0\x9F\x98\x80"}) {
    std::string text;
    while (text.size() < (1u << 20)) text += unit;
    const auto ids = tokenizer.encode(text, {.add_special = false});
    CHECK(ids.size() <= text.size());
    if (ple::is_utf8(text) && unit != "\xE2\x96\x81") CHECK(tokenizer.decode(ids, false) == text);
  }
}

TEST_CASE("tokens that take white space with them are found in no quadratic time") {
  // As the reference, each finds the next one in the white space that it took.
  const std::string text(std::size_t{1} << 18, '\n');
  for (const char* side : {"rstrip", "lstrip"}) {
    json file = {{"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"\n", 1}}}, {"merges", json::array()}}}};
    file["added_tokens"] = {{{"id", 1}, {"content", "\n"}, {"special", false}, {side, true}}};
    const auto tokenizer = ple::Tokenizer::parse(file.dump(), "strip");
    CHECK(tokenizer.encode(text + "a") == [&] {
      std::vector<Token> expected(text.size(), 1);
      expected.push_back(0);
      return expected;
    }());
  }
}

}  // namespace ple::tokenizer_test
