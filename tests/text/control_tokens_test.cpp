// SPDX-License-Identifier: Apache-2.0
// No control token comes out of a stranger's text, however a tokenizer's file is made.
#include "ple/text/control_tokens.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../formats/gguf_writer.h"
#include "../temporary.h"
#include "ple/text/open_tokenizer.h"
#include "ple/text/tokenizer.h"

namespace ple::control_tokens_test {

using nlohmann::json;
using ple::testing::GgufWriter;
using ple::testing::TemporaryFolder;

namespace {

const std::string space = "\xE2\x96\x81";
const std::vector<std::string> roles = {"<pad>", "<eos>", "<bos>", "<unk>", "<mask>"};
const std::vector<std::string> turns = {"<|turn>",         "<turn|>",       "<|channel>",        "<|think|>",
                                        "<start_of_turn>", "<end_of_turn>", "<image_soft_token>"};

std::string byte_piece(unsigned byte) {
  char name[8];
  std::snprintf(name, sizeof name, "<0x%02X>", byte);
  return name;
}

/// A vocabulary in which every control token's name can be built of ordinary pieces, and merges that do it.
struct Made {
  std::vector<std::string> pieces;
  std::vector<std::pair<std::string, std::string>> merges;
  std::set<std::string> names;  // of control tokens

  Token id(const std::string& piece) const {
    return static_cast<Token>(std::find(pieces.begin(), pieces.end(), piece) - pieces.begin());
  }
};

Made made_up(unsigned seed, const std::vector<std::string>& more_names = {}) {
  std::mt19937 random(seed);
  Made made;
  std::set<std::string> known;
  const auto add = [&](const std::string& piece) {
    if (known.insert(piece).second) made.pieces.push_back(piece);
  };
  for (const auto* list : {&roles, &turns, &more_names}) {
    for (const std::string& name : *list) {
      made.names.insert(name);
      add(name);
    }
  }
  for (unsigned byte = 0; byte < 256; ++byte) add(byte_piece(byte));
  for (char letter = '!'; letter < '{'; ++letter) add(std::string(1, letter));
  for (const char* piece : {"|", "\n", "\n\n", "<table>"}) add(piece);
  add(space);
  // Each name is cut at random until only letters are left; all parts are pieces.
  const std::function<void(const std::string&)> cut = [&](const std::string& text) {
    if (text.size() < 2) return;
    const std::size_t at = 1 + random() % (text.size() - 1);
    for (const std::string& part : {text.substr(0, at), text.substr(at)}) {
      cut(part);
      add(part);
    }
    made.merges.emplace_back(text.substr(0, at), text.substr(at));
  };
  for (const std::string& name : made.names) {
    for (int times = 0; times < 3; ++times) cut(name);
    // A piece that holds a control token's name, with a merge from it.
    add(name + "s");
    made.merges.emplace_back(name, "s");
  }
  return made;
}

json json_file(const Made& made, std::mt19937& random) {
  json vocabulary = json::object(), merges = json::array(), added = json::array();
  for (std::size_t i = 0; i < made.pieces.size(); ++i) vocabulary[made.pieces[i]] = i;
  for (const auto& [left, right] : made.merges) merges.push_back({left, right});
  for (const std::string& name : made.names) {
    if (random() % 3 == 0) continue;  // not an added token at all
    added.push_back({{"id", made.id(name)},
                     {"content", name},
                     {"special", random() % 2 == 0},
                     {"normalized", random() % 2 == 0},
                     {"lstrip", random() % 4 == 0},
                     {"rstrip", random() % 4 == 0}});
  }
  for (const char* name : {"\n\n", "<table>"}) {
    added.push_back({{"id", made.id(name)}, {"content", name}, {"special", false}, {"normalized", false}});
  }
  const auto replace = [](const std::string& from, const std::string& to) {
    return json{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
  };
  return {{"added_tokens", added},
          {"normalizer", replace(" ", space)},
          {"decoder",
           {{"type", "Sequence"}, {"decoders", {replace(space, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", random() % 2 == 0},
            {"vocab", vocabulary},
            {"merges", merges}}}};
}

/// Any types, any scores.
GgufWriter gguf_file(const Made& made, const std::string& model, std::mt19937& random) {
  std::vector<std::int32_t> types;
  std::vector<float> scores;
  std::vector<std::string> merges;
  for (const std::string& piece : made.pieces) {
    const bool is_byte = piece.size() == 6 && piece.starts_with("<0x");
    const bool is_user = piece == "\n\n" || piece == "<table>";
    const std::int32_t any[] = {1, 3, 4, 5};
    types.push_back(is_byte ? 6 : is_user ? 4 : made.names.count(piece) ? any[random() % 4] : 1);
    scores.push_back(static_cast<float>(random() % 50));
  }
  for (const auto& [left, right] : made.merges) merges.push_back(left + " " + right);
  GgufWriter gguf;
  gguf.text("tokenizer.ggml.model", model).texts("tokenizer.ggml.tokens", made.pieces);
  gguf.numbers("tokenizer.ggml.token_type", GgufWriter::i32, types);
  gguf.numbers("tokenizer.ggml.scores", GgufWriter::float32, scores).texts("tokenizer.ggml.merges", merges);
  gguf.flag("tokenizer.ggml.add_space_prefix", false);
  return gguf.count("tokenizer.ggml.bos_token_id", static_cast<std::size_t>(made.id("<bos>")));
}

Tokenizer open(const GgufWriter& writer) {
  const TemporaryFolder folder;
  writer.write(folder / "tokenizer.gguf");
  return open_tokenizer(folder / "tokenizer.gguf");
}

std::string random_text(const Made& made, std::mt19937& random) {
  const std::vector<std::string> names(made.names.begin(), made.names.end());
  std::string text;
  for (std::size_t n = random() % 12; n > 0; --n) {
    const std::string& name = names[random() % names.size()];
    const std::size_t begin = random() % 3 == 0 ? random() % name.size() : 0;
    text += name.substr(begin, random() % 3 == 0 ? random() % name.size() : name.size());
    if (random() % 4 == 0) text += std::vector<std::string>{"s", " ", "\n\n", "<table>", "\xC3\xA9", "~"}[random() % 6];
  }
  return text;
}

void check_texts(const Tokenizer& tokenizer, const Made& made, std::mt19937& random) {
  for (const std::string& name : made.names) {
    CAPTURE(name);
    CHECK(tokenizer.is_control(made.id(name)));
  }
  for (const char* piece : {"a", "\n\n", "<table>", "<0x0A>", "<bos>s"}) CHECK(!tokenizer.is_control(made.id(piece)));
  for (int i = 0; i < 200; ++i) {
    const std::string text = random_text(made, random);
    CAPTURE(text);
    const auto tokens = tokenizer.encode(text, {.add_special = false, .parse_special = false});
    for (const Token token : tokens) {
      CAPTURE(token);
      CHECK(made.names.count(std::string(tokenizer.piece(token))) == 0);
    }
    CHECK(tokenizer.decode(tokens) == text);
    CHECK(tokenizer.decode(tokens, false) == text);
  }
  // What is no control token is still found in a text.
  const Token table = made.id("<table>"), breaks = made.id("\n\n");
  CHECK(tokenizer.encode("<table>\n\n", {.add_special = false, .parse_special = false}) ==
        std::vector<Token>{table, breaks});
}

std::vector<Token> plain(const Tokenizer& tokenizer, const std::string& text, std::vector<Token> never = {}) {
  return tokenizer.encode(text, {.add_special = false, .parse_special = false, .never = never});
}

json tiny_json(const json& vocabulary, const std::vector<std::array<std::string, 2>>& merges) {
  return {{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json(merges)}}}};
}

}  // namespace

TEST_CASE("a tokenizer.json: text never becomes a control token, however merges and flags are") {
  for (unsigned seed = 0; seed < 24; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    const Made made = made_up(seed);
    check_texts(Tokenizer::parse(json_file(made, random).dump(), "made.json"), made, random);
  }
}

TEST_CASE("a GGUF file: text never becomes a control token, whatever its type") {
  for (unsigned seed = 0; seed < 24; ++seed) {
    for (const char* model : {"gemma4", "llama"}) {
      CAPTURE(seed);
      CAPTURE(model);
      std::mt19937 random(seed);
      // The last three are control tokens only because keys name them.
      Made made = made_up(seed, {"[STOP]", "</s>", "[EOT]"});
      GgufWriter gguf = gguf_file(made, model, random);
      gguf.count("tokenizer.ggml.eos_token_id", static_cast<std::size_t>(made.id("</s>")));
      gguf.count("tokenizer.ggml.eot_token_id", static_cast<std::size_t>(made.id("[EOT]")));
      gguf.numbers<std::uint32_t>("tokenizer.ggml.eos_token_ids", GgufWriter::u32,
                                  {static_cast<std::uint32_t>(made.id("[STOP]")), 0xFFFFFFFFu});
      gguf.count("tokenizer.ggml.unknown_token_id", static_cast<std::size_t>(made.id("<unk>")));
      const Tokenizer tokenizer = open(gguf);
      check_texts(tokenizer, made, random);
      // In a text that may have them they are tokens, and decode() leaves them out.
      for (const std::string& name : made.names) {
        CAPTURE(name);
        CHECK(tokenizer.encode(name, {.add_special = false}) == std::vector<Token>{made.id(name)});
        CHECK(tokenizer.decode(std::vector<Token>{made.id(name)}).empty());
      }
    }
  }
}

TEST_CASE("with parse_special merges build what they build in the reference") {
  json file =
      tiny_json({{"<", 0}, {"b", 1}, {">", 2}, {"<b", 3}, {"<bos>", 4}, {"os>", 5}, {"o", 6}, {"s", 7}, {"s>", 8}},
                {{"<", "b"}, {"s", ">"}, {"o", "s>"}, {"<b", "os>"}});
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "bos.json");
  CHECK(tokenizer.encode("<bos>") == std::vector<Token>{4});
  CHECK(plain(tokenizer, "<bos>") == std::vector<Token>{3, 5});
  file["model"]["ignore_merges"] = true;
  CHECK(plain(Tokenizer::parse(file.dump(), "bos.json"), "<bos>") == std::vector<Token>{3, 5});
}

TEST_CASE("a normalizer does not make a control token of a text") {
  json file = tiny_json({{"<bos>", 0}, {"a", 1}, {"<", 2}, {"bos>", 3}}, {{{"<", "bos>"}}});
  file["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "<bos>"}};
  file["added_tokens"] = {{{"id", 0}, {"content", "<bos>"}, {"special", false}, {"normalized", true}}};
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "normalizer.json");
  CHECK(tokenizer.encode("a") == std::vector<Token>{0});
  const auto tokens = plain(tokenizer, "a");
  CHECK(std::find(tokens.begin(), tokens.end(), 0) == tokens.end());
}

TEST_CASE("a character or a byte whose piece is a control token becomes something else") {
  json vocabulary = {{"<unk>", 0}, {"<eos>", 1}, {"\n", 2}, {"a", 3}};
  for (unsigned byte = 0; byte < 256; ++byte) vocabulary[byte_piece(byte)] = 10 + byte;
  json file = tiny_json(vocabulary, {});
  file["model"]["byte_fallback"] = true;
  file["model"]["unk_token"] = "<unk>";
  file["added_tokens"] = {{{"id", 2}, {"content", "\n"}, {"special", true}}};
  CHECK(plain(Tokenizer::parse(file.dump(), "newline.json"), "a\n") == std::vector<Token>{3, 10 + '\n'});
  file["added_tokens"].push_back({{"id", 20}, {"content", "<0x0A>"}, {"special", true}});
  CHECK(plain(Tokenizer::parse(file.dump(), "newline.json"), "a\n") == std::vector<Token>{3, 0});
  // An unknown character is unk, but not if that would be <eos>.
  file["model"]["unk_token"] = "<eos>";
  const Tokenizer stops = Tokenizer::parse(file.dump(), "newline.json");
  CHECK(plain(stops, "a\n") == std::vector<Token>{3});
  CHECK(stops.encode("a\n") == std::vector<Token>{3, 2});
}

TEST_CASE("a caller can name more tokens that text shall not become") {
  const Tokenizer tokenizer =
      Tokenizer::parse(tiny_json({{"a", 0}, {"b", 1}, {"ab", 2}}, {{{"a", "b"}}}).dump(), "ab.json");
  CHECK(plain(tokenizer, "abb") == std::vector<Token>{2, 1});
  CHECK(plain(tokenizer, "abb", {2}) == std::vector<Token>{0, 1, 1});
  CHECK(tokenizer.encode("ab", {.never = std::vector<Token>{2}}) == std::vector<Token>{2});
}

TEST_CASE("names of control tokens") {
  for (const char* name : {"<bos>", "<unk>", "<|turn>", "<turn|>", "<|\"|>", "<|image|>", "<end_of_turn>"})
    CHECK(is_control_name(name));
  for (const char* name : {"", "<", "<|>", "bos", "<table>", "<0x0A>", "<unused1>", "<|turn", "turn|>", "<bos> "})
    CHECK(!is_control_name(name));
}

}  // namespace ple::control_tokens_test
