// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ple/text/tokenizer.h"

namespace ple::tokenizer_malformed_test {

namespace {

using nlohmann::json;
using ple::ErrorCode;

// A whole tokenizer.json in little, from which every case below breaks one thing.
json small_file() {
  json file = json::parse(R"({
    "added_tokens": [{"id": 0, "content": "<bos>", "special": true, "normalized": false,
                      "single_word": false, "lstrip": false, "rstrip": false}],
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "_"},
    "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<bos>": {"id": "<bos>", "ids": [0], "tokens": ["<bos>"]}}},
    "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
    "model": {"type": "BPE", "unk_token": null, "byte_fallback": false,
      "vocab": {"<bos>": 0, "a": 1, "b": 2, "ab": 3, "_": 4}, "merges": [["a", "b"]]}})");
  return file;
}

struct Failure {
  ErrorCode code;
  std::string message;
};

std::optional<Failure> failure_of(std::string_view text) {
  try {
    ple::Tokenizer::parse(text, "small.json");
  } catch (const ple::Error& error) {
    return Failure{error.code(), error.what()};
  }
  return std::nullopt;
}

// The error must have this code, name the file, and contain this text.
void check_refused(std::string_view text, ErrorCode code, std::string_view part) {
  CAPTURE(part);
  const auto failure = failure_of(text);
  REQUIRE(failure.has_value());
  CAPTURE(failure->message);
  CHECK(failure->code == code);
  CHECK(failure->message.find("small.json") != std::string::npos);
  CHECK(failure->message.find(part) != std::string::npos);
}

void check_change(const std::function<void(json&)>& change, ErrorCode code, std::string_view part) {
  json file = small_file();
  change(file);
  check_refused(file.dump(), code, part);
}

}  // namespace

TEST_CASE("the small file itself is fine") {
  const auto tokenizer = ple::Tokenizer::parse(small_file().dump(), "small.json");
  CHECK(tokenizer.encode("ab a") == std::vector<ple::Token>{0, 3, 4, 1});
}

TEST_CASE("a file that cannot be read") {
  for (const char* const path : {"/no/such/tokenizer.json", "/"}) {
    try {
      ple::Tokenizer::open(path);
      FAIL("opened " << path);
    } catch (const ple::Error& error) {
      CHECK(error.code() == ErrorCode::file);
      CHECK(std::string(error.what()).find(path) != std::string::npos);
    }
  }
}

TEST_CASE("every truncation is refused") {
  const std::string text = small_file().dump();
  for (std::size_t size = 0; size < text.size(); ++size) {
    check_refused(text.substr(0, size), ErrorCode::malformed, "not valid JSON");
  }
  check_refused(text + "x", ErrorCode::malformed, "not valid JSON");
}

TEST_CASE("deep nesting is refused, wherever it is") {
  const std::string deep(1u << 20, '[');
  check_refused(deep, ErrorCode::malformed, "nested deeper");
  check_refused(R"({"model":)" + deep, ErrorCode::malformed, "nested deeper");
  check_refused(R"({"model":{"vocab":)" + deep, ErrorCode::malformed, "nested deeper");
  check_refused(R"({"model":{"vocab":{"a":)" + deep, ErrorCode::malformed, "model.vocab['a']");
  check_refused(R"({"model":{"merges":)" + deep, ErrorCode::malformed, "merge 0");
}

TEST_CASE("wrong types and missing fields") {
  const ErrorCode malformed = ErrorCode::malformed;
  for (const char* const text : {"[]", "1", "null", "\"x\""}) check_refused(text, malformed, "expected an object");
  check_refused("{}", ErrorCode::missing, "'model'");
  check_change([](json& f) { f["model"] = 3; }, malformed, "tokenizer.model is number");
  check_change([](json& f) { f["model"].erase("type"); }, ErrorCode::missing, "'type'");
  check_change([](json& f) { f["model"].erase("merges"); }, ErrorCode::missing, "'merges'");
  check_change([](json& f) { f["model"]["merges"] = json::object(); }, malformed, "merges is object");
  check_change([](json& f) { f["model"]["merges"] = "a b"; }, malformed, "merges is string");
  check_change([](json& f) { f["model"]["vocab"] = json::array({"a"}); }, malformed, "vocab is array");
  check_change([](json& f) { f["model"].erase("vocab"); }, ErrorCode::missing, "vocab");
  check_change(
      [](json& f) {
        f["model"]["vocab"] = json::object();
        f["model"]["merges"] = json::array();
      },
      ErrorCode::missing, "vocab");
  check_change([](json& f) { f["model"]["byte_fallback"] = "yes"; }, malformed, "byte_fallback is string");
  check_change([](json& f) { f["model"]["unk_token"] = 3; }, malformed, "unk_token is number");
  check_change([](json& f) { f["model"]["unk_token"] = "<unk>"; }, malformed, "unk_token '<unk>'");
  check_change([](json& f) { f["added_tokens"] = json::object(); }, malformed, "added_tokens is object");
  check_change([](json& f) { f["added_tokens"][0].erase("content"); }, ErrorCode::missing,
               "added_tokens[0] has no 'content'");
  check_change(
      [](json& f) {
        f["added_tokens"][0]["content"] = "";
        f["added_tokens"][0]["id"] = 9;
      },
      malformed, "is empty");
  check_change([](json& f) { f["added_tokens"][0]["special"] = 1; }, malformed, "added_tokens[0].special");
  check_change([](json& f) { f["normalizer"] = "NFC"; }, malformed, "tokenizer.normalizer is string");
  check_change([](json& f) { f["decoder"]["decoders"] = 3; }, malformed, "decoders is number");
  check_change([](json& f) { f["post_processor"]["single"].erase(1); }, malformed, "no Sequence");
}

TEST_CASE("ids that cannot be") {
  const ErrorCode malformed = ErrorCode::malformed;
  for (const json& id : {json(-1), json(1u << 22), json(std::uint64_t{1} << 40), json(18446744073709551615u),
                         json(std::uint64_t{1} << 62)}) {
    CAPTURE(id.dump());
    check_change([&](json& f) { f["model"]["vocab"]["c"] = id; }, malformed,
                 !id.is_number_unsigned() ? "['c'] is -1" : "piece 'c' has id");
    check_change([&](json& f) { f["added_tokens"][0]["id"] = id; }, malformed, "added_tokens[0].id is " + id.dump());
    check_change([&](json& f) { f["post_processor"]["special_tokens"]["<bos>"]["ids"][0] = id; }, malformed, "ids[0]");
  }
  for (const json& id : {json(1.0), json("1"), json(nullptr), json(true), json::object(), json::array()}) {
    CAPTURE(id.dump());
    check_change([&](json& f) { f["model"]["vocab"]["c"] = id; }, malformed, "model.vocab['c']");
    check_change([&](json& f) { f["added_tokens"][0]["id"] = id; }, malformed, "added_tokens[0].id");
  }
  check_change([](json& f) { f["model"]["vocab"]["c"] = 1; }, malformed, "id 1 belongs to both");
  check_change([](json& f) { f["added_tokens"][0]["id"] = 1; }, malformed, "'<bos>' has id 1, but 0");
  check_change([](json& f) { f["added_tokens"][0]["content"] = "<x>"; }, malformed, "id 0 is '<x>', but '<bos>'");
  check_change([](json& f) { f["added_tokens"].push_back(f["added_tokens"][0]); }, malformed, "twice");
  check_change([](json& f) { f["post_processor"]["special_tokens"]["<bos>"]["ids"][0] = 77; }, malformed, "is 77");
  // A JSON library would not write one key twice.
  check_refused(R"({"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}})", malformed, "'a' appears twice");
}

TEST_CASE("merges that cannot be") {
  const ErrorCode malformed = ErrorCode::malformed;
  const auto with = [](const json& merge) { return [merge](json& f) { f["model"]["merges"].push_back(merge); }; };
  check_change(with({"a", "x"}), malformed, "merge 1 needs 'x'");
  check_change(with({"x", "a"}), malformed, "merge 1 needs 'x'");
  check_change(with({"b", "a"}), malformed, "merge 1 needs 'ba'");
  check_change(with("a x"), malformed, "merge 1 needs 'x'");
  check_change(with("ab"), malformed, "merge 1 is 'ab'");
  check_change(with("a b c"), malformed, "merge 1 is 'a b c'");
  check_change(with({"a"}), malformed, "merge 1 has 1 sides");
  check_change(with(json::array()), malformed, "merge 1 has 0 sides");
  check_change(with({"a", "b", "a"}), malformed, "merge 1 has more than two sides");
  for (const json& merge :
       {json(3), json(1.5), json(nullptr), json(true), json({{"a", "b"}}), json({"a", 2}), json({"a", {"b"}})}) {
    CAPTURE(merge.dump());
    check_change(with(merge), malformed, "merge 1 is or holds");
  }
}

TEST_CASE("byte fallback needs every byte's piece") {
  json file = small_file();
  file["model"]["byte_fallback"] = true;
  check_refused(file.dump(), ErrorCode::malformed, "'<0x00>'");
}

TEST_CASE("components that are not supported are named") {
  const ErrorCode unsupported = ErrorCode::not_supported;
  check_change([](json& f) { f["model"]["type"] = "Unigram"; }, unsupported, "model Unigram");
  check_change([](json& f) { f["model"]["dropout"] = 0.1; }, unsupported, "dropout");
  check_change([](json& f) { f["model"]["continuing_subword_prefix"] = "##"; }, unsupported,
               "continuing_subword_prefix");
  check_change([](json& f) { f["model"]["end_of_word_suffix"] = "</w>"; }, unsupported, "end_of_word_suffix");
  check_change([](json& f) { f["normalizer"] = {{"type", "NFC"}}; }, unsupported, "normalizer NFC");
  check_change([](json& f) { f["normalizer"]["pattern"] = {{"Regex", " +"}}; }, unsupported, "normalizer.pattern");
  check_change([](json& f) { f["normalizer"]["pattern"]["String"] = ""; }, unsupported, "empty String");
  check_change([](json& f) { f["pre_tokenizer"] = {{"type", "ByteLevel"}}; }, unsupported, "pre-tokenizer ByteLevel");
  check_change(
      [](json& f) {
        f["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "Odd"}};
      },
      unsupported, "behavior Odd");
  check_change([](json& f) { f["post_processor"]["type"] = "ByteLevel"; }, unsupported, "post-processor ByteLevel");
  check_change([](json& f) { f["post_processor"]["single"].push_back(f["post_processor"]["single"][1]); }, unsupported,
               "repeats the text");
  check_change([](json& f) { f["decoder"]["decoders"][0]["type"] = "Metaspace"; }, unsupported, "decoder Metaspace");
  check_change(
      [](json& f) {
        f["decoder"]["decoders"].push_back({{"type", "ByteFallback"}});
      },
      unsupported, "after Fuse");
  check_change(
      [](json& f) {
        f["decoder"]["decoders"].push_back({{"type", "Strip"}, {"content", " "}, {"start", 0}, {"stop", 1}});
      },
      unsupported, "Strip at the end");
  check_change([](json& f) { f["added_tokens"][0]["single_word"] = true; }, unsupported, "single_word");
}

TEST_CASE("merges have a largest number") {
  try {
    ple::Bpe(ple::Vocabulary(), {}, "merges.json").reserve_merges(ple::max_merges + 1);
    FAIL_CHECK("no error");
  } catch (const ple::Error& error) {
    CHECK(error.code() == ErrorCode::not_supported);
    CHECK(std::string(error.what()) == "merges.json: has 8388609 merges, expected at most 8388608");
  }
}

TEST_CASE("what a file does to a text is bounded") {
  const ErrorCode unsupported = ErrorCode::not_supported;
  const auto replace = [](const std::string& from, const std::string& to) {
    return json{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
  };
  const auto steps = [](const char* key, const json& step, std::size_t count) {
    return json{{"type", "Sequence"}, {key, json(std::vector<json>(count, step))}};
  };
  // 2^40 times the text.
  check_change([&](json& f) { f["normalizer"] = steps("normalizers", replace("a", "aa"), 40); }, unsupported,
               "tokenizer.normalizer has 40 steps, expected at most 16");
  check_change([&](json& f) { f["normalizer"] = steps("normalizers", replace("a", "aa"), 5); }, unsupported,
               "tokenizer.normalizer may turn 1 byte into 32, expected at most 16");
  check_change([&](json& f) { f["normalizer"] = replace("ab", std::string(33, 'a')); }, unsupported,
               "tokenizer.normalizer may turn 1 byte into 16.5");
  check_change(
      [&](json& f) {
        f["normalizer"] = json{{"type", "Prepend"}, {"prepend", std::string(16, '_')}};
      },
      unsupported, "tokenizer.normalizer may turn 1 byte into 17");
  check_change([&](json& f) { f["decoder"] = steps("decoders", replace("a", "aa"), 5); }, unsupported,
               "tokenizer.decoder may turn 1 byte into 32");
  check_change(
      [&](json& f) {
        f["decoder"] = steps("decoders", replace("a", "aaa"), 2);
        f["decoder"]["decoders"].push_back({{"type", "ByteFallback"}});
        f["decoder"]["decoders"].push_back(replace("a", "aa"));
      },
      unsupported, "tokenizer.decoder may turn 1 byte into 18");
  check_change([&](json& f) { f["decoder"] = steps("decoders", replace("a", "a"), 17); }, unsupported,
               "tokenizer.decoder has 17 steps");
  const json split = {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Isolated"}};
  check_change([&](json& f) { f["pre_tokenizer"] = steps("pretokenizers", split, 17); }, unsupported,
               "tokenizer.pre_tokenizer has 17 steps");
  // A pattern, a piece, an added token, what an added token becomes.
  const std::string many(40'000, 'a'), most(256, 'a');
  const std::string size = "' has 40000 bytes, expected at most 256";
  const std::string shown = "'" + many.substr(0, 40) + "..." + size;
  check_change([&](json& f) { f["normalizer"]["pattern"]["String"] = many; }, unsupported, "pattern " + shown);
  check_change([&](json& f) { f["model"]["vocab"][many] = 9; }, unsupported, "piece 9 " + shown);
  const auto add = [&](const std::string& content, bool normalized) {
    return [content, normalized](json& f) {
      f["added_tokens"].push_back({{"id", 9}, {"content", content}, {"normalized", normalized}});
    };
  };
  check_change(add(many, false), unsupported, "piece 9 " + shown);
  check_change(
      [&](json& f) {
        f["normalizer"] = replace("a", "aa");
        add(most, true)(f);
      },
      unsupported, "normalized added token 9 '" + many.substr(0, 40) + "...' has 512 bytes");
  // What a text is put between.
  const json special = {{"SpecialToken", {{"id", "<bos>"}, {"type_id", 0}}}};
  check_change([&](json& f) { f["post_processor"]["single"] = json(std::vector<json>(17, special)); }, unsupported,
               "post_processor has 17 parts");
  check_change([](json& f) { f["post_processor"]["special_tokens"]["<bos>"]["ids"] = json(std::vector<int>(17, 0)); },
               unsupported, "ids");
  // All that is just in bounds.
  json file = small_file();
  file["normalizer"] = steps("normalizers", replace("a", "aa"), 4);
  add(most, false)(file);
  const auto tokenizer = ple::Tokenizer::parse(file.dump(), "small.json");
  CHECK(tokenizer.encode("b" + most + "a").size() == 1 + 1 + 1 + 16);
}

TEST_CASE("a damaged file is read or refused, never worse") {
  const std::string text = small_file().dump();
  unsigned state = 7;
  const auto random = [&state](std::size_t end) {
    state = state * 1664525u + 1013904223u;
    return static_cast<std::size_t>(state >> 8) % end;
  };
  const std::string signs = "{}[]\",:0129-.etruefalsn\\u\xFF";
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = text;
    for (std::size_t i = 0; i <= random(3); ++i) {
      const std::size_t at = random(damaged.size());
      const std::size_t action = random(3);
      if (action == 0) damaged[at] = signs[random(signs.size())];
      if (action == 1) damaged.erase(at, 1 + random(20));
      if (action == 2) damaged.insert(at, damaged.substr(random(damaged.size()), random(40)));
    }
    // Anything but a ple::Error would end the test here.
    try {
      const auto tokenizer = ple::Tokenizer::parse(damaged, "small.json");
      tokenizer.decode(tokenizer.encode("ab <bos>\xFF a b"));
    } catch (const ple::Error&) {
      ++refused;
    }
  }
  CHECK(refused > 10000);
  CHECK(refused < 20000);
}

TEST_CASE("ids need not be dense") {
  json file = small_file();
  file["model"]["vocab"]["c"] = 1000;
  const auto tokenizer = ple::Tokenizer::parse(file.dump(), "small.json");
  CHECK(tokenizer.vocab_size() == 1001);
  CHECK(tokenizer.encode("c", {.add_special = false}) == std::vector<ple::Token>{1000});
  CHECK(tokenizer.piece(500).empty());
  CHECK(tokenizer.decode(std::vector<ple::Token>{1, 500, 1000}) == "ac");
}

}  // namespace ple::tokenizer_malformed_test
