// SPDX-License-Identifier: Apache-2.0
// Tokenizers that GGUF files carry: Gemma 4's against tokenizer.json, SentencePiece's against its definition.
#include "ple/text/gguf_tokenizer.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "../formats/gguf_writer.h"
#include "../temporary.h"
#include "gguf_tokenizer_writer.h"
#include "ple/convert/gguf_tokenizer_keys.h"
#include "ple/text/open_tokenizer.h"
#include "ple/text/tokenizer.h"

namespace ple::gguf_tokenizer_test {

using nlohmann::json;
using ple::testing::add_tokenizer;
using ple::testing::GgufWriter;
using ple::testing::TemporaryFolder;

namespace {

constexpr std::int32_t normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6;
const std::string space = "\xE2\x96\x81";

Tokenizer open(const GgufWriter& writer) {
  TemporaryFolder folder;
  writer.write(folder / "tokenizer.gguf");
  return open_tokenizer(folder / "tokenizer.gguf");
}

json read_json(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), "cannot read " << path);
  return json::parse(file);
}

/// Gemma 4's kind in little: <pad> <eos> <bos> <unk>, letters and two merges.
GgufWriter small_gemma4() {
  GgufWriter gguf;
  gguf.text("tokenizer.ggml.model", "gemma4");
  gguf.texts("tokenizer.ggml.tokens", {"<pad>", "<eos>", "<bos>", "<unk>", "a", "b", "ab", "abb", space});
  gguf.numbers<std::int32_t>("tokenizer.ggml.token_type", GgufWriter::i32,
                             {control, control, control, control, normal, normal, normal, normal, normal});
  gguf.texts("tokenizer.ggml.merges", {"a b", "ab b"});
  gguf.count("tokenizer.ggml.bos_token_id", 2).count("tokenizer.ggml.unknown_token_id", 3);
  return gguf;
}

void check_refused(const std::function<void(GgufWriter&)>& change, ErrorCode code, const std::string& part,
                   GgufWriter gguf = small_gemma4()) {
  change(gguf);
  CAPTURE(part);
  try {
    open(gguf);
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(error.code() == code);
    CHECK(message.find(part) != std::string::npos);
    CHECK(message.find("tokenizer.gguf") != std::string::npos);
    return;
  }
  FAIL_CHECK("no error");
}

void check_message(const std::function<void()>& f, ErrorCode code, const std::string& part) {
  CAPTURE(part);
  try {
    f();
  } catch (const Error& error) {
    const std::string message = error.what();
    CAPTURE(message);
    CHECK(error.code() == code);
    CHECK(message.find(part) != std::string::npos);
    return;
  }
  FAIL_CHECK("no error");
}

struct Piece {
  std::string text;
  float score;
  std::int32_t type;
};

/// A vocabulary of SentencePiece's kind: specials, bytes, letters, and pieces made of others, with few different
/// scores.
std::vector<Piece> made_up_pieces(unsigned seed) {
  std::vector<Piece> pieces = {{"<unk>", 0, unknown}, {"<s>", 0, control}, {"</s>", 0, control}};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(b));
    pieces.push_back({name, 0, byte});
  }
  std::vector<std::string> known = {"a", "b", "c", "<", "s", ">", "/", "\xC3\xA9", space};
  for (const std::string& letter : known) pieces.push_back({letter, -100, normal});
  // "<s>" is made of pieces, and still no text becomes it.
  pieces.push_back({"<s", 5, normal});
  known.push_back("<s");
  pieces.push_back({"   ", 0, user_defined});
  std::mt19937 random(seed);
  for (int tries = 0; tries < 200; ++tries) {
    // Some are made of pieces, some hang in the air, as in real vocabularies.
    const std::string text = known[random() % known.size()] + known[random() % known.size()] +
                             (random() % 4 == 0 ? known[random() % known.size()] : "");
    const bool taken = std::any_of(pieces.begin(), pieces.end(), [&](const Piece& p) { return p.text == text; });
    if (taken || text.size() > 16) continue;
    pieces.push_back({text, -static_cast<float>(random() % 12), random() % 10 == 0 ? unused : normal});
    known.push_back(text);
  }
  return pieces;
}

GgufWriter gguf_of(const std::vector<Piece>& pieces) {
  GgufWriter gguf;
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  std::vector<float> scores;
  for (const Piece& piece : pieces) {
    tokens.push_back(piece.text);
    types.push_back(piece.type);
    scores.push_back(piece.score);
  }
  gguf.text("tokenizer.ggml.model", "llama").texts("tokenizer.ggml.tokens", tokens);
  gguf.numbers("tokenizer.ggml.token_type", GgufWriter::i32, types);
  gguf.numbers("tokenizer.ggml.scores", GgufWriter::float32, scores);
  gguf.count("tokenizer.ggml.bos_token_id", 1).count("tokenizer.ggml.eos_token_id", 2);
  return gguf.count("tokenizer.ggml.unknown_token_id", 0);
}

/// By definition: the neighbours whose joined text is the piece of the highest score become one, the leftmost of
/// equals, until there are none. `text` has no special tokens in it.
std::vector<Token> encode_by_definition(const std::vector<Piece>& pieces, const std::string& text) {
  std::map<std::string, Token> ids;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const std::int32_t type = pieces[i].type;
    if (type == normal || type == user_defined || type == unused) ids[pieces[i].text] = static_cast<Token>(i);
  }
  std::vector<std::string> symbols;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(std::string_view(text).substr(at));
    symbols.push_back(text.substr(at, length));
    at += length;
  }
  while (true) {
    std::size_t best = symbols.size();
    float score = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ids.find(symbols[i] + symbols[i + 1]);
      if (found == ids.end()) continue;
      const float candidate = pieces[static_cast<std::size_t>(found->second)].score;
      if (best == symbols.size() || candidate > score) {
        best = i;
        score = candidate;
      }
    }
    if (best == symbols.size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::vector<Token> tokens;
  for (const std::string& symbol : symbols) {
    if (ids.count(symbol)) {
      tokens.push_back(ids[symbol]);
    } else {
      for (const char c : symbol) tokens.push_back(3 + static_cast<unsigned char>(c));
    }
  }
  return tokens;
}

}  // namespace

TEST_CASE("Gemma 4's tokenizer in a GGUF file is the one of its tokenizer.json") {
  std::vector<std::string> texts;
  std::ifstream cases(PLE_TEST_DATA "/text/tokenizer_cases.jsonl", std::ios::binary);
  for (std::string line; std::getline(cases, line);) texts.push_back(json::parse(line)["text"]);
  REQUIRE(texts.size() >= 3000);
  for (const std::string path : {PLE_MODEL_DIR "/storyteller/tokenizer.json", PLE_TEST_DATA "/text/tokenizer.json"}) {
    CAPTURE(path);
    GgufWriter gguf;
    add_tokenizer(gguf, read_json(path));
    const Tokenizer expected = Tokenizer::open(path), tokenizer = open(gguf);
    CHECK(tokenizer.vocab_size() == expected.vocab_size());
    CHECK(tokenizer.is_special(*tokenizer.token_to_id("<|channel>")));
    for (const std::string& text : texts) {
      CAPTURE(text);
      for (const bool parse_special : {true, false}) {
        const EncodeOptions options{.add_special = true, .parse_special = parse_special};
        const std::vector<Token> tokens = expected.encode(text, options);
        CHECK(tokenizer.encode(text, options) == tokens);
        for (const bool skip_special : {true, false})
          CHECK(tokenizer.decode(tokens, skip_special) == expected.decode(tokens, skip_special));
      }
    }
  }
}

TEST_CASE(
    "a tokenizer.json written as keys of a GGUF file gives the same tokens, and what llama.cpp's converter writes") {
  std::vector<std::string> texts;
  std::ifstream cases(PLE_TEST_DATA "/text/tokenizer_cases.jsonl", std::ios::binary);
  std::size_t lines = 0;
  for (std::string line; std::getline(cases, line); ++lines) {
    if (lines % 7 == 0) texts.push_back(json::parse(line)["text"]);
  }
  REQUIRE(texts.size() >= 400);
  for (const std::string path : {PLE_MODEL_DIR "/storyteller/tokenizer.json", PLE_TEST_DATA "/text/tokenizer.json"}) {
    CAPTURE(path);
    const Tokenizer expected = Tokenizer::open(path);
    const std::size_t padded = expected.vocab_size() + 2;  // the model has more rows than the tokenizer tokens
    const TemporaryFolder folder;
    GgufFileWriter(folder / "tokenizer.gguf", gguf_tokenizer_keys(path, padded), {}).finish({});
    const Tokenizer tokenizer = open_tokenizer(folder / "tokenizer.gguf");
    CHECK(tokenizer.vocab_size() == padded);
    CHECK(tokenizer.piece(static_cast<Token>(padded - 1)) == "[PAD" + std::to_string(padded - 1) + "]");
    for (Token id = 0; static_cast<std::size_t>(id) < expected.vocab_size(); ++id) {
      CHECK(tokenizer.piece(id) == expected.piece(id));
      CHECK(tokenizer.is_special(id) == expected.is_special(id));
    }
    for (const std::string& text : texts) {
      CAPTURE(text);
      for (const bool parse_special : {true, false}) {
        const EncodeOptions options{.add_special = true, .parse_special = parse_special};
        CHECK(tokenizer.encode(text, options) == expected.encode(text, options));
      }
    }
    GgufWriter converted;
    add_tokenizer(converted, read_json(path));
    converted.write(folder / "converted.gguf");
    const GgufFile ours = GgufFile::open(folder / "tokenizer.gguf"), theirs = GgufFile::open(folder / "converted.gguf");
    CHECK(ours.metadata().texts("tokenizer.ggml.merges") == theirs.metadata().texts("tokenizer.ggml.merges"));
    for (const auto& item : theirs.metadata().all()) {
      const std::string& key = item.first;
      const GgufValue& value = item.second;
      CAPTURE(key);
      // Those of the checkpoint, not of the tokenizer.
      if (key == "tokenizer.ggml.eos_token_id" || key == "tokenizer.ggml.padding_token_id") continue;
      const GgufValue* found = ours.metadata().find(key);
      REQUIRE(found != nullptr);
      CHECK(found->type == value.type);
      CHECK(found->element == value.element);
      if (value.type == GgufType::uint32) CHECK(ours.metadata().count(key) == theirs.metadata().count(key));
    }
    check_message([&] { gguf_tokenizer_keys(path, expected.vocab_size() - 1); }, ErrorCode::config,
                  ", but the model knows only " + std::to_string(expected.vocab_size() - 1));
  }
}

TEST_CASE("tokenizers that GGUF's 'gemma4' has no word for") {
  const json original = read_json(PLE_MODEL_DIR "/storyteller/tokenizer.json");
  const auto refused = [&](const std::function<void(json&)>& change, const std::string& part) {
    const TemporaryFolder folder;
    json changed = original;
    change(changed);
    std::ofstream(folder / "tokenizer.json") << changed.dump();
    check_message([&] { gguf_tokenizer_keys(folder / "tokenizer.json", 2000); }, ErrorCode::not_supported, part);
  };
  refused([](json& t) { t["normalizer"] = nullptr; }, "the normalizer does not just");
  refused([](json& t) { t["normalizer"]["content"] = "_"; }, "the normalizer does not just");
  refused([](json& t) { t["decoder"] = nullptr; }, "the decoder does not just");
  refused([](json& t) { t["post_processor"] = nullptr; }, "the post-processor does not just");
  refused([](json& t) { t["model"]["ignore_merges"] = true; }, "model.ignore_merges is true");
  refused([](json& t) { t["model"]["byte_fallback"] = false; }, "model.byte_fallback is false");
  refused([](json& t) { t["added_tokens"][4]["lstrip"] = true; }, "added token '<|turn>' takes whitespace with it");
  const json split = {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Isolated"}, {"invert", false}};
  refused([&](json& t) { t["pre_tokenizer"] = split; }, "the pre-tokenizer splits at something other");
}

TEST_CASE("Gemma 4 begins with <bos> even where a file denies it") {
  GgufWriter gguf = small_gemma4();
  gguf.flag("tokenizer.ggml.add_bos_token", false);
  CHECK(open(gguf).encode("abb ab") == std::vector<Token>{2, 7, 8, 6});
  gguf.flag("tokenizer.ggml.add_eos_token", true).count("tokenizer.ggml.eos_token_id", 1);
  CHECK(open(gguf).encode("a?") == std::vector<Token>{2, 4, 3, 1});  // without byte pieces: unk
}

TEST_CASE("Ollama's files of Gemma 4: called 'llama', with merges, scores that mean nothing and bytes of no type") {
  std::vector<std::string> texts = {"\xC3\xA9\xE2\x82\xAC\xFF"};
  std::ifstream cases(PLE_TEST_DATA "/text/tokenizer_cases.jsonl", std::ios::binary);
  std::size_t lines = 0;
  for (std::string line; std::getline(cases, line); ++lines) {
    if (lines % 7 == 3) texts.push_back(json::parse(line)["text"]);
  }
  REQUIRE(texts.size() >= 400);
  for (const std::string path : {PLE_MODEL_DIR "/storyteller/tokenizer.json", PLE_TEST_DATA "/text/tokenizer.json"}) {
    CAPTURE(path);
    const Tokenizer expected = Tokenizer::open(path);
    const json contents = read_json(path);
    GgufWriter gguf;
    add_tokenizer(gguf, contents);
    std::vector<std::int32_t> types(expected.vocab_size(), normal);
    for (const json& added : contents["added_tokens"])
      types[added["id"].get<std::size_t>()] = added["special"] ? control : user_defined;
    std::vector<float> scores(types.size());
    std::iota(scores.begin(), scores.end(), 0.0f);
    for (const char* key : {"model", "token_type", "scores", "add_space_prefix", "add_bos_token", "eos_token_id"})
      gguf.remove(std::string("tokenizer.ggml.") + key);
    gguf.text("general.architecture", "gemma4").text("tokenizer.ggml.model", "llama");
    gguf.text("tokenizer.ggml.pre", "gemma4").flag("tokenizer.ggml.add_bos_token", false);
    gguf.numbers("tokenizer.ggml.token_type", GgufWriter::i32, types);
    gguf.numbers("tokenizer.ggml.scores", GgufWriter::float32, scores);
    gguf.numbers<std::int32_t>("tokenizer.ggml.eos_token_ids", GgufWriter::i32, {1, 5, 4});
    const Tokenizer tokenizer = open(gguf);
    CHECK(tokenizer.prefix().size() == 1);
    for (const std::string& text : texts) {
      CAPTURE(text);
      for (const bool parse_special : {true, false}) {
        const EncodeOptions options{.add_special = true, .parse_special = parse_special};
        CHECK(tokenizer.encode(text, options) == expected.encode(text, options));
      }
      CHECK(tokenizer.decode(tokenizer.encode(text)) == expected.decode(expected.encode(text)));
    }
  }
}

TEST_CASE("which kind of tokenizer a file has: its architecture, its name, and whether there are merges") {
  const std::vector<Piece> pieces = {
      {"<pad>", 0, control}, {"<eos>", 0, control}, {"<bos>", 0, control}, {"<unk>", 0, unknown}, {"a", -9, normal},
      {"b", -9, normal},     {"c", -9, normal},     {"ab", -2, normal},    {"bc", -1, normal},    {space, -9, normal}};
  const auto file = [&](const char* architecture, const std::vector<std::string>& merges) {
    GgufWriter gguf = gguf_of(pieces);
    for (const char* key : {"bos", "eos", "unknown"}) gguf.remove(std::string("tokenizer.ggml.") + key + "_token_id");
    gguf.count("tokenizer.ggml.bos_token_id", 2);
    if (*architecture != 0) gguf.text("general.architecture", architecture);
    if (!merges.empty()) gguf.texts("tokenizer.ggml.merges", merges);
    return gguf;
  };
  const std::vector<Token> by_merges = {2, 7, 6}, by_scores = {2, 4, 8}, after_space = {2, 9, 4, 8};
  CHECK(open(file("gemma4", {"a b"})).encode("abc") == by_merges);
  CHECK(open(file("gemma4", {})).encode("abc") == by_scores);
  // Those before Gemma 4 have real scores, and no space is put in front of a text.
  CHECK(open(file("gemma3n", {"a b"})).encode("abc") == by_scores);
  CHECK(open(file("gemma3n", {}).flag("tokenizer.ggml.add_space_prefix", true)).encode("abc") == after_space);
  CHECK(open(file("llama", {"a b"})).encode("abc") == after_space);
  CHECK(open(file("", {"a b"})).encode("abc") == after_space);
}

TEST_CASE("what the ids of <bos>, <eos>, unk, padding and mask name is special, whatever its type") {
  GgufWriter gguf = small_gemma4();
  gguf.remove("tokenizer.ggml.tokens").remove("tokenizer.ggml.token_type");
  gguf.texts("tokenizer.ggml.tokens",
             {"<pad>", "[end]", "<bos>", "[what]", "a",   "b", "ab",    "abb", space, "[", "e", "n",
              "d",     "]",     "[m]",   "m",      "[p]", "p", "<eos>", "<",   "o",   "s", ">"});
  gguf.numbers("tokenizer.ggml.token_type", GgufWriter::i32, std::vector<std::int32_t>(23, normal));
  gguf.count("tokenizer.ggml.eos_token_id", 1).count("tokenizer.ggml.mask_token_id", 14);
  gguf.count("tokenizer.ggml.padding_token_id", 16).count("tokenizer.ggml.eot_token_id", 4'294'967'295u);
  const Tokenizer tokenizer = open(gguf);
  for (const Token id : {1, 2, 3, 14, 16, 18}) {  // <eos> is one by its name
    CAPTURE(id);
    CHECK(tokenizer.is_special(id));
    CHECK(tokenizer.decode(std::vector<Token>{id}).empty());
    CHECK(tokenizer.encode(tokenizer.piece(id), {.add_special = false}) == std::vector<Token>{id});
  }
  CHECK(!tokenizer.is_special(4));
  const EncodeOptions plain{.add_special = false, .parse_special = false};
  CHECK(tokenizer.encode("[end]", plain) == std::vector<Token>{9, 10, 11, 12, 13});
  CHECK(tokenizer.encode("<eos>", plain) == std::vector<Token>{19, 10, 20, 21, 22});
  check_refused([](auto& g) { g.text("tokenizer.ggml.mask_token_id", "[m]"); }, ErrorCode::config,
                "tokenizer.ggml.mask_token_id is '[m]', expected a whole number");
}

TEST_CASE("SentencePiece's BPE merges by score, whatever the vocabulary") {
  for (unsigned seed = 0; seed < 8; ++seed) {
    const std::vector<Piece> pieces = made_up_pieces(seed);
    REQUIRE(pieces.size() > 300);
    GgufWriter gguf = gguf_of(pieces);
    const Tokenizer plain = open(gguf.flag("tokenizer.ggml.add_space_prefix", false));
    std::mt19937 random(seed + 100);
    const std::string letters[] = {"a", "b", "c", "<", "s", ">", "\xC3\xA9", space, "x", "\xE6\x88\x91"};
    for (int i = 0; i < 300; ++i) {
      std::string text;
      for (std::size_t n = random() % 40; n > 0; --n) text += letters[random() % std::size(letters)];
      CAPTURE(text);
      const EncodeOptions options{.add_special = false, .parse_special = false};
      CHECK(plain.encode(text, options) == encode_by_definition(pieces, text));
    }
  }
}

TEST_CASE("around SentencePiece's BPE: spaces, bytes, special and user-defined tokens") {
  const std::vector<Piece> pieces = {{"<unk>", 0, unknown},     {"<s>", 0, control}, {"</s>", 0, control},
                                     {"a", -9, normal},         {"b", -9, normal},   {space, -9, normal},
                                     {space + "a", -1, normal}, {"ab", -2, normal},  {"\n\n", 0, user_defined}};
  GgufWriter gguf = gguf_of(pieces);
  const Tokenizer tokenizer = open(gguf);
  CHECK(tokenizer.encode("ab a") == std::vector<Token>{1, 6, 4, 6});
  CHECK(tokenizer.decode(tokenizer.encode("ab a")) == "ab a");
  // A space is put before all that follows a token; user-defined tokens are found in any text, special ones if wanted.
  CHECK(tokenizer.encode("a\n\na</s>b") == std::vector<Token>{1, 6, 8, 6, 2, 5, 4});
  CHECK(tokenizer.encode("\n\n", {.add_special = false, .parse_special = false}) == std::vector<Token>{8});
  CHECK(tokenizer.encode("").size() == 1);
  CHECK(!tokenizer.is_special(8));
  CHECK(tokenizer.is_special(2));
  gguf.flag("tokenizer.ggml.add_space_prefix", false).flag("tokenizer.ggml.add_bos_token", false);
  gguf.flag("tokenizer.ggml.add_eos_token", true);
  const Tokenizer bare = open(gguf);
  CHECK(bare.encode("ab a") == std::vector<Token>{7, 6, 2});
  CHECK(bare.decode(bare.encode(" a")) == " a");
}

TEST_CASE("tokenizers that a GGUF file cannot have") {
  CHECK(open(small_gemma4()).encode("ab") == std::vector<Token>{2, 6});
  for (const char* key : {"tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
                          "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id"}) {
    check_refused([&](auto& g) { g.remove(key); }, ErrorCode::missing, std::string(key) + " is missing");
  }
  const auto replaced = [](const std::string& key, const std::vector<std::string>& texts) {
    return [key, texts](GgufWriter& g) { g.remove(key).texts(key, texts); };
  };
  const auto types = [](const std::vector<std::int32_t>& numbers) {
    return [numbers](GgufWriter& g) {
      g.remove("tokenizer.ggml.token_type").numbers("tokenizer.ggml.token_type", GgufWriter::i32, numbers);
    };
  };
  const auto malformed = [](const std::function<void(GgufWriter&)>& change, const std::string& part) {
    check_refused(change, ErrorCode::malformed, part);
  };
  check_refused([](auto& g) { g.remove("tokenizer.ggml.model").text("tokenizer.ggml.model", "bert"); },
                ErrorCode::not_supported, "tokenizer.ggml.model is 'bert', expected 'gemma4' or 'llama'");
  check_refused([](auto& g) { g.remove("tokenizer.ggml.model").text("tokenizer.ggml.model", "llama"); },
                ErrorCode::missing, "tokenizer.ggml.scores is missing");
  malformed(types({1, 1, 1}), "token_type: has 3 entries, expected 9");
  malformed(types({3, 3, 3, 3, 1, 1, 1, 7, 1}), "token_type: entry 7 is 7, expected 1 to 6");
  malformed(types({3, 3, 3, 3, 1, 1, 1, 0, 1}), "token_type: entry 7 is 0, expected 1 to 6");
  malformed(types({3, 3, 3, 3, 6, 1, 1, 1, 1}), "'<0x00>' is not a piece");
  check_refused(types({3, 3, 3, 3, 1, 1, 1, -1, 1}), ErrorCode::config, "token_type: entry 7 is -1");
  for (const char* merge : {"ab", "ab ", " ab", ""}) {
    malformed(replaced("tokenizer.ggml.merges", {"a b", merge}),
              "merges: entry 1 is '" + std::string(merge) + "', expected two pieces");
  }
  malformed(replaced("tokenizer.ggml.merges", {"a c"}), "merge 0 needs 'c'");
  malformed(replaced("tokenizer.ggml.merges", {"b a"}), "merge 0 needs 'ba'");
  malformed(
      [](auto& g) {
        g.remove("tokenizer.ggml.tokens")
            .texts("tokenizer.ggml.tokens", {"<pad>", "<eos>", "<bos>", "<unk>", "a", "b", "ab", "a", "c"});
      },
      "piece 'a' appears twice, with ids 4 and 7");
  check_refused([](auto& g) { g.remove("tokenizer.ggml.bos_token_id").count("tokenizer.ggml.bos_token_id", 9); },
                ErrorCode::config, "bos_token_id is 9 (uint32), expected a whole number from 0 to 8");

  const GgufWriter spm = gguf_of(std::vector<Piece>{{"<unk>", 0, unknown}, {"<s>", 0, control}, {"a", 0, normal}});
  const auto scores = [&](const std::vector<float>& numbers, const std::string& part) {
    check_refused(
        [&](auto& g) {
          g.remove("tokenizer.ggml.scores").numbers("tokenizer.ggml.scores", GgufWriter::float32, numbers);
        },
        ErrorCode::malformed, part, spm);
  };
  scores({0, 0}, "scores: has 2 entries, expected 3");
  scores({0, std::numeric_limits<float>::quiet_NaN(), 0}, "scores: entry 1 is not a number");
}

TEST_CASE("long text without a break takes no quadratic time") {
  // 1 MiB of one letter, and of several: a quadratic algorithm would take many minutes.
  const Tokenizer tokenizer = open(gguf_of(made_up_pieces(1)));
  std::string text;
  for (std::size_t i = 0; i < (std::size_t{1} << 20); ++i) text += "abc"[(i * i / 7) % 3];
  for (const std::string& each : {text, std::string(std::size_t{1} << 20, 'a')}) {
    CHECK(tokenizer.decode(tokenizer.encode(each)) == each);
  }
}

}  // namespace ple::gguf_tokenizer_test
