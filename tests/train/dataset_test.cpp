// SPDX-License-Identifier: Apache-2.0
#include "ple/train/dataset.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../temporary.h"

namespace ple::dataset_test {

namespace {

using nlohmann::json;
using testing::TemporaryFolder;

const std::string data = PLE_TEST_DATA "/text/";

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), "cannot read " << path);
  return {std::istreambuf_iterator<char>(file), {}};
}

const Tokenizer& gemma4_tokenizer() {
  static const Tokenizer tokenizer = Tokenizer::open(data + "tokenizer.json");
  return tokenizer;
}

std::string replaced(std::string text, std::string_view old, std::string_view by) {
  for (std::size_t at = 0; (at = text.find(old, at)) != std::string::npos; at += by.size())
    text.replace(at, old.size(), by);
  return text;
}

/// The same with the names of Gemma 3's turns.
const Tokenizer& gemma3_tokenizer() {
  static const Tokenizer tokenizer = Tokenizer::parse(
      replaced(replaced(read(data + "tokenizer.json"), "<|turn>", "<start_of_turn>"), "<turn|>", "<end_of_turn>"),
      "gemma3");
  return tokenizer;
}

std::filesystem::path write(const TemporaryFolder& folder, const std::string& name, std::string_view text) {
  return folder.write(name, std::as_bytes(std::span(text)));
}

Dataset of_text(std::string_view text, const DatasetOptions& options = {},
                const std::optional<ChatFormat>& format = ChatFormat(), const Tokenizer& tokenizer = gemma4_tokenizer(),
                const std::string& name = "data.jsonl") {
  const TemporaryFolder folder;
  return read_dataset(write(folder, name, text), tokenizer, format, options);
}

Dataset of_plain_text(std::string_view text, const DatasetOptions& options = {},
                      const Tokenizer& tokenizer = gemma4_tokenizer()) {
  return of_text(text, options, std::nullopt, tokenizer, "data.txt");
}

/// What the error says after the file's name.
std::string error_of(ErrorCode code, std::string_view text, const DatasetOptions& options = {},
                     const std::optional<ChatFormat>& format = ChatFormat(), const std::string& name = "data.jsonl") {
  try {
    of_text(text, options, format, gemma4_tokenizer(), name);
  } catch (const Error& error) {
    CHECK(error.code() == code);
    const std::string message = error.what();
    const std::size_t at = message.find(name + ": ");
    return at == std::string::npos ? message : message.substr(at + name.size() + 2);
  }
  return "no error";
}

/// The text of the tokens that count, a bar between runs of them.
std::string learnt(const Tokenizer& tokenizer, const TrainingText& text) {
  std::string all;
  std::vector<Token> run;
  for (std::size_t i = 0; i <= text.tokens.size(); ++i) {
    if (i < text.tokens.size() && text.learnt.at(i) != 0) {
      run.push_back(text.tokens[i]);
    } else if (!run.empty()) {
      all += (all.empty() ? "" : "|") + tokenizer.decode(run, /*skip_special=*/false);
      run.clear();
    }
  }
  return all;
}

std::string whole(const Tokenizer& tokenizer, const TrainingText& text) {
  return tokenizer.decode(text.tokens, /*skip_special=*/false);
}

const std::string chat = R"({"messages": [{"role": "system", "content": "Be brief."},
  {"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Hello!\n"},
  {"role": "user", "content": "Bye"}, {"role": "model", "content": " Bye bye. "}]})";
const std::string chat_line = replaced(chat, "\n  ", "");

}  // namespace

TEST_CASE("Gemma 4: only answers count, with the mark that ends them and the line break") {
  const Dataset dataset = of_text(chat_line);
  CHECK(dataset.chats == 1);
  CHECK(dataset.plain == 0);
  REQUIRE(dataset.texts.size() == 1);
  const TrainingText& text = dataset.texts[0];
  CHECK(whole(gemma4_tokenizer(), text) ==
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nHi<turn|>\n<|turn>model\nHello!<turn|>\n"
        "<|turn>user\nBye<turn|>\n<|turn>model\nBye bye.<turn|>\n");
  CHECK(learnt(gemma4_tokenizer(), text) == "Hello!<turn|>\n|Bye bye.<turn|>\n");
  CHECK(text.tokens == gemma4_tokenizer().encode(whole(gemma4_tokenizer(), text), {.add_special = false}));
}

TEST_CASE("Gemma 3: the same with its marks, the system's text in the first turn") {
  const Dataset dataset = of_text(chat_line, {}, ChatFormat::gemma3n(), gemma3_tokenizer());
  REQUIRE(dataset.texts.size() == 1);
  const TrainingText& text = dataset.texts[0];
  CHECK(whole(gemma3_tokenizer(), text) ==
        "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\nBye bye.<end_of_turn>\n");
  CHECK(learnt(gemma3_tokenizer(), text) == "Hello!<end_of_turn>\n|Bye bye.<end_of_turn>\n");
  CHECK(text.tokens == gemma3_tokenizer().encode(whole(gemma3_tokenizer(), text), {.add_special = false}));
}

TEST_CASE("chats of the reference: its tokens, and of them its answers") {
  std::ifstream file(data + "chat_cases.jsonl", std::ios::binary);
  std::size_t count = 0, answered = 0, in_one_go = 0;
  for (std::string line; std::getline(file, line); ++count) {
    CAPTURE(line);
    const json c = json::parse(line);
    ChatFormat format;
    format.thinking = c["thinking"];
    format.empty_thought_channel = c["empty_thought_channel"];
    std::vector<ChatMessage> messages;
    json lines = json::array();
    std::string answers;
    bool empty_answer = false, after_answer = false;
    for (const json& turn : c["messages"]) {
      const std::string role = turn[0], content = turn[1];
      messages.push_back({role == "system" ? ChatRole::system
                          : role == "user" ? ChatRole::user
                                           : ChatRole::model,
                          content});
      lines.push_back({{"role", role}, {"content", content}});
      if (messages.back().role != ChatRole::model) {
        after_answer = false;
        continue;
      }
      const std::string answer = format.without_thoughts(content);
      empty_answer |= answer.empty();
      answers += (answers.empty() || after_answer ? "" : "|") + answer + "<turn|>\n";
      after_answer = true;
    }

    const TrainingText text = chat_text(gemma4_tokenizer(), format, messages);
    CHECK(text.tokens == encode_chat(gemma4_tokenizer(), format.segments(messages, false)));
    CHECK(whole(gemma4_tokenizer(), text) == c["text"].get<std::string>());
    CHECK(learnt(gemma4_tokenizer(), text) == answers);
    // Text that spells a special token, which it stays here, is encoded in another way; all other in one go.
    const bool spelled = std::any_of(messages.begin(), messages.end(), [](const ChatMessage& m) {
      return m.content.find("<|") != std::string::npos || m.content.find("|>") != std::string::npos;
    });
    if (!spelled) {
      ++in_one_go;
      CHECK(text.tokens == gemma4_tokenizer().encode(c["text"].get<std::string>(), {.add_special = false}));
    }

    const std::string json_line = json{{"messages", lines}}.dump();
    if (answers.empty() || empty_answer) {
      CHECK_THROWS_AS(of_text(json_line, {.max_length = 100000}, format), Error);
    } else {
      ++answered;
      const Dataset dataset = of_text(json_line, {.max_length = 100000}, format);
      REQUIRE(dataset.texts.size() == 1);
      CHECK(dataset.texts[0].tokens == text.tokens);
      CHECK(dataset.texts[0].learnt == text.learnt);
    }
  }
  CHECK(count >= 300);
  CHECK(answered >= 100);
  CHECK(in_one_go >= 100);
}

TEST_CASE("the start of an answer is where the tokens of the role line end") {
  // A line break and the answer's first letter are one token here; "model" and the line break are two others.
  const auto tokenizer = Tokenizer::parse(R"({"model": {"type": "BPE", "vocab": {
    "<bos>": 0, "<|turn>": 1, "<turn|>": 2, "m": 3, "o": 4, "d": 5, "e": 6, "l": 7, "\n": 8, "a": 9, "\na": 10, "u": 11,
    "s": 12, "r": 13, "\u00e4": 14}, "merges": [["\n", "a"]]}, "decoder": {"type": "Fuse"},
    "added_tokens": [{"id": 0, "content": "<bos>", "special": true}, {"id": 1, "content": "<|turn>", "special": true},
                     {"id": 2, "content": "<turn|>", "special": true}]})",
                                          "small");
  const auto of = [&](const std::string& answer) {
    return chat_text(tokenizer, ChatFormat(),
                     std::vector<ChatMessage>{{ChatRole::user, "a"}, {ChatRole::model, answer}});
  };
  const std::vector<Token> user = {0, 1, 11, 12, 6, 13, 10, 2, 8, 1, 3, 4, 5, 6, 7};
  const auto with = [&](std::vector<Token> tokens, std::vector<std::uint8_t> marks) {
    std::vector<std::uint8_t> all_marks(user.size());
    tokens.insert(tokens.begin(), user.begin(), user.end());
    all_marks.insert(all_marks.end(), marks.begin(), marks.end());
    return std::pair(tokens, all_marks);
  };
  const auto pair_of = [](const TrainingText& text) { return std::pair(text.tokens, text.learnt); };
  CHECK(pair_of(of("oa")) == with({8, 4, 9, 2, 8}, {0, 1, 1, 1, 1}));
  // The model, whose prompt ends with the line break, cannot write that token.
  CHECK(pair_of(of("aa")) == with({10, 9, 2, 8}, {0, 1, 1, 1}));
  CHECK(pair_of(of("\xC3\xA4")) == with({8, 14, 2, 8}, {0, 1, 1, 1}));
}

TEST_CASE("nobody's text passes for an answer") {
  const ChatFormat format;
  const std::vector<ChatMessage> messages = {{ChatRole::system, "model\nno"},
                                             {ChatRole::user, "x<turn|>\n<|turn>model\nno<turn|>\n"},
                                             {ChatRole::model, "yes<turn|>\n<|turn>user\nme"},
                                             {ChatRole::user, "model\nno"}};
  const TrainingText text = chat_text(gemma4_tokenizer(), format, messages);
  CHECK(learnt(gemma4_tokenizer(), text) == "yes<turn|>\n<|turn>user\nme<turn|>\n");
  const Token turn = *gemma4_tokenizer().token_to_id("<|turn>");
  CHECK(std::count(text.tokens.begin(), text.tokens.end(), turn) == 4);
}

TEST_CASE("answers as large models are prompted for them: after an empty thought channel, which does not count") {
  const ChatFormat large{.empty_thought_channel = true};
  const std::vector<ChatMessage> messages = {
      {ChatRole::user, "Hi"}, {ChatRole::model, "Hello!"}, {ChatRole::user, "Bye"}, {ChatRole::model, "Bye."}};
  const TrainingText text = chat_text(gemma4_tokenizer(), large, messages, /*as_prompted=*/true);
  CHECK(whole(gemma4_tokenizer(), text) ==
        "<bos><|turn>user\nHi<turn|>\n<|turn>model\n<|channel>thought\n<channel|>Hello!<turn|>\n"
        "<|turn>user\nBye<turn|>\n<|turn>model\n<|channel>thought\n<channel|>Bye.<turn|>\n");
  CHECK(learnt(gemma4_tokenizer(), text) == "Hello!<turn|>\n|Bye.<turn|>\n");
  // Up to the first answer it is the prompt, token for token.
  const auto prompt = encode_chat(gemma4_tokenizer(), large.segments(std::span(messages).first(1)));
  CHECK(std::equal(prompt.begin(), prompt.end(), text.tokens.begin()));
  CHECK(text.learnt[prompt.size() - 1] == 0);
  CHECK(text.learnt[prompt.size()] == 1);
  // A format without it: nothing changes.
  const TrainingText small = chat_text(gemma4_tokenizer(), ChatFormat(), messages, true);
  CHECK(small.tokens == chat_text(gemma4_tokenizer(), ChatFormat(), messages).tokens);
}

TEST_CASE("a text begins with <bos>, ends with <eos>, and all of it counts") {
  const Dataset dataset = of_text("{\"text\": \"Once upon a time\"}\n", {}, std::nullopt);
  CHECK(dataset.plain == 1);
  REQUIRE(dataset.texts.size() == 1);
  CHECK(whole(gemma4_tokenizer(), dataset.texts[0]) == "<bos>Once upon a time<eos>");
  CHECK(learnt(gemma4_tokenizer(), dataset.texts[0]) == "Once upon a time<eos>");
  CHECK(dataset.texts[0].learnt_count() == dataset.texts[0].tokens.size() - 1);
  const Dataset open = of_text("{\"text\": \"Once upon a time\"}", {.end_texts = false});
  CHECK(open.texts.at(0).tokens == gemma4_tokenizer().encode("Once upon a time"));

  // Special tokens that it spells are text, unless the program knows that the text was rendered from a chat.
  const std::string rendered = R"({"text": "<bos><|turn>user\nHi<turn|>\n"})";
  const Token turn = *gemma4_tokenizer().token_to_id("<|turn>");
  const auto count = [&](const Dataset& d) {
    return std::count(d.texts.at(0).tokens.begin(), d.texts.at(0).tokens.end(), turn);
  };
  CHECK(count(of_text(rendered)) == 0);
  const Dataset parsed = of_text(rendered, {.parse_special = true});
  CHECK(count(parsed) == 1);
  CHECK(whole(gemma4_tokenizer(), parsed.texts[0]) == "<bos><|turn>user\nHi<turn|>\n<eos>");  // one <bos>
}

TEST_CASE("what is longer than max_length is cut off and counted, or left out if nothing in it counts") {
  const TrainingText all = of_text(chat_line).texts.at(0);
  const std::size_t size = all.tokens.size();
  const auto first = static_cast<std::size_t>(std::find(all.learnt.begin(), all.learnt.end(), 1) - all.learnt.begin());
  const auto cut_to = [&](std::size_t length) {
    return of_text(chat_line + "\n{\"text\": \"a\"}\n", {.max_length = length});
  };
  CHECK(cut_to(size).cut == 0);
  CHECK(cut_to(size).cut_tokens == 0);
  const Dataset cut = cut_to(first + 1);
  CHECK(cut.cut == 1);
  CHECK(cut.cut_tokens == size - first - 1);
  CHECK(cut.unlearnt == 0);
  REQUIRE(cut.texts.size() == 2);
  CHECK(cut.texts[0].tokens == std::vector<Token>(all.tokens.begin(), all.tokens.begin() + first + 1));
  CHECK(cut.texts[0].learnt_count() == 1);
  const Dataset none = cut_to(first);
  CHECK(none.unlearnt == 1);
  CHECK(none.cut == 0);
  CHECK(none.chats == 1);
  CHECK(none.texts.size() == 1);
  CHECK(error_of(ErrorCode::argument, chat_line, {.max_length = first}) ==
        "none of its 1 texts has a token that counts among the first " + std::to_string(first) +
            ", DatasetOptions::max_length");
  CHECK(error_of(ErrorCode::argument, chat_line, {.max_length = 1}) ==
        "DatasetOptions::max_length is 1, expected 2 or more: the first token does not count");
}

TEST_CASE("windows have all tokens of a text, each learnt once") {
  std::string story;
  for (int i = 0; i < 40; ++i) story += "Once upon a time there was a fox named Pip. ";
  const std::vector<Token> tokens = gemma4_tokenizer().encode(story, {.add_special = false});
  const std::string no_bos = replaced(read(data + "tokenizer.json"), "\"post_processor\"", "\"ignored\"");
  const auto without_bos = Tokenizer::parse(no_bos, "without bos");
  REQUIRE(without_bos.prefix().empty());
  for (const std::size_t length : {2, 3, 10, 64, 100000}) {
    CAPTURE(length);
    const Dataset dataset = of_plain_text(story, {.max_length = length});
    std::vector<Token> joined;
    for (const TrainingText& window : dataset.texts) {
      CHECK(window.tokens.size() <= length);
      CHECK(window.tokens[0] == 2);
      CHECK(window.learnt_count() == window.tokens.size() - 1);
      joined.insert(joined.end(), window.tokens.begin() + 1, window.tokens.end());
    }
    CHECK(joined == tokens);
    CHECK(dataset.plain == 1);
    CHECK(dataset.cut == 0);

    // Each begins with the last token of the one before: the very first is never learnt.
    const Dataset bare = of_plain_text(story, {.max_length = length}, without_bos);
    joined.assign(1, tokens[0]);
    for (const TrainingText& window : bare.texts) {
      CHECK(window.tokens.size() <= length);
      CHECK(window.tokens[0] == joined.back());
      CHECK(window.learnt_count() == window.tokens.size() - 1);
      joined.insert(joined.end(), window.tokens.begin() + 1, window.tokens.end());
    }
    CHECK(joined == tokens);

    // Of a line, too, if asked for; then the last ends with <eos>.
    const Dataset line = of_text(json{{"text", story}}.dump(), {.max_length = length, .windows = true});
    CHECK(line.texts.size() == (tokens.size() + 1 + length - 2) / (length - 1));
    CHECK(line.texts.back().tokens.back() == 1);
    CHECK(line.cut == 0);
    CHECK(of_text(json{{"text", story}}.dump(), {.max_length = length}).texts.size() == 1);
  }
}

TEST_CASE("byte order marks, CR LF, empty lines and a missing last line break") {
  const std::string line = "{\"text\": \"a b\"}";
  const auto expected = of_text(line + "\n" + line + "\n").texts;
  REQUIRE(expected.size() == 2);
  for (const std::string& text : {line + "\n" + line, "\xEF\xBB\xBF" + line + "\r\n" + line + "\r\n",
                                  "\n\n  \n" + line + "\r\n\r\n\t\n" + line}) {
    CAPTURE(text);
    const auto texts = of_text(text).texts;
    REQUIRE(texts.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) CHECK(texts[i].tokens == expected[i].tokens);
  }
  CHECK(whole(gemma4_tokenizer(), of_plain_text("\xEF\xBB\xBF"
                                                "a\r\nb\rc\r\n")
                                      .texts.at(0)) == "<bos>a\nb\rc\n");
  // By name, or as the program says.
  CHECK(of_text(line, {.format = DatasetFormat::json_lines}, {}, gemma4_tokenizer(), "data.txt").texts[0].tokens ==
        expected[0].tokens);
  CHECK(whole(gemma4_tokenizer(), of_text(line, {.format = DatasetFormat::plain_text}).texts[0]) == "<bos>" + line);
}

TEST_CASE("a wrong line is an error that names the line and what is wrong there") {
  const auto wrong = [](const std::string& line, ErrorCode code = ErrorCode::malformed) {
    const std::string message = error_of(code, "{\"text\": \"a\"}\n\n" + line + "\n{\"text\": \"b\"}\n");
    return message.starts_with("line 3: ") ? message.substr(8) : "no line: " + message;
  };
  const auto messages = [](const std::string& list) { return "{\"messages\": [" + list + "]}"; };
  const std::string user = R"({"role": "user", "content": "Hi"})", model = R"({"role": "model", "content": "Hi"})";
  CHECK(wrong("{\"text\": 'a'}") == "not valid JSON: found ' at byte 9, expected a value");
  CHECK(wrong("{\"text\": \"a\"} x") == "not valid JSON: found x at byte 14, expected the end of the text");
  CHECK(error_of(ErrorCode::malformed, "[]") == "line 1 is array, expected an object");
  CHECK(wrong("{}") == "has neither 'messages' nor 'text'");
  CHECK(wrong(R"({"conversations": []})") == "has neither 'messages' nor 'text'");
  CHECK(wrong(R"({"text": "a", "messages": []})") == "has both 'messages' and 'text', expected one of them");
  CHECK(wrong(R"({"text": "a", "text": "b"})") == "'text' appears twice in one object");
  CHECK(wrong(R"({"text": ""})") == "text is empty");
  CHECK(wrong(R"({"text": 5})") == "text is number, expected a string");
  CHECK(wrong(R"({"messages": "Hi"})") == "messages is string, expected an array");
  CHECK(wrong(R"({"messages": []})") == "messages is empty");
  CHECK(wrong(messages("5")) == "messages[0] is number, expected an object");
  CHECK(wrong(messages(user)) == "none of 1 messages is the assistant's");
  CHECK(wrong(messages(user + R"(, {"content": "Hi"})")) == "messages[1].role is missing");
  CHECK(wrong(messages(user + R"(, {"role": "assistant"})")) == "messages[1].content is missing");
  CHECK(wrong(messages(user + R"(, {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]})")) ==
        "messages[1].content is array, expected a string");
  CHECK(wrong(messages(user + R"(, {"role": "tool", "content": "Hi"})")) ==
        "messages[1].role is 'tool', expected system, user, assistant or model");
  CHECK(wrong(messages(user + R"(, {"role": "model", "content": " \n"})")) ==
        "messages[1].content: the answer is empty");
  CHECK(wrong(messages(user + R"(, {"role": "model", "content": "<|channel>thought\nHm.<channel|>"})")) ==
        "messages[1].content: the answer is empty");
  CHECK(wrong("{\"text\": \"a\xFF\"}") == "byte 11 is 255, which is not UTF-8 there");
  const ErrorCode unsupported = ErrorCode::not_supported;
  CHECK(wrong(R"({"tools": [{}], "messages": [)" + user + ", " + model + "]}", unsupported) ==
        "tools is not supported");
  CHECK(wrong(messages(R"({"role": "model", "content": "", "tool_calls": [{}]})"), unsupported) ==
        "messages[0].tool_calls is not supported");
  CHECK(wrong(messages(R"({"role": "model", "content": "a", "weight": 0})"), unsupported) ==
        "messages[0].weight is not supported");
  // What changes nothing is passed over.
  CHECK(of_text(R"({"id": 7, "tools": [], "messages": [)" + user + ", " + model + "]}").chats == 1);
  CHECK(error_of(ErrorCode::malformed, messages(model + ", " + user), {}, ChatFormat::gemma3n()) ==
        "line 1: turn 0 of the chat is not the user's: user and model have to alternate in this format");
  CHECK(error_of(ErrorCode::missing, chat_line, {}, std::nullopt) ==
        "line 1: has messages, but no chat format was given to render them");
  CHECK(error_of(ErrorCode::missing, chat_line, {}, ChatFormat::gemma3n()) ==
        "line 1: the tokenizer has no '<start_of_turn>', which the chat format needs");
}

TEST_CASE("a file without texts, a text that is not UTF-8, no file") {
  CHECK(error_of(ErrorCode::malformed, "") == "has no text to learn from");
  CHECK(error_of(ErrorCode::malformed, "\n \n\r\n") == "has no text to learn from");
  CHECK(error_of(ErrorCode::malformed, "", {}, {}, "data.txt") == "has no text to learn from");
  CHECK(error_of(ErrorCode::malformed, "ab\nc\xC3", {}, {}, "data.txt") ==
        "line 2: byte 1 is 195, which is not UTF-8 there");
  CHECK_THROWS_AS(read_dataset("/nonexistent/data.jsonl", gemma4_tokenizer(), {}), Error);
}

TEST_CASE("limits: bytes of a line, lines, bytes of a text") {
  const std::string line = "{\"text\": \"abcdef\"}";
  const DatasetOptions exact{.limits = {.line_bytes = line.size(), .lines = 2}};
  CHECK(of_text(line + "\n" + line + "\n", exact).texts.size() == 2);
  CHECK(error_of(ErrorCode::limit, line + "\n " + line, exact) ==
        "line 2: is longer than DatasetLimits::line_bytes, which is " + std::to_string(line.size()));
  CHECK(error_of(ErrorCode::limit, line + "\n" + line + "\n\n", exact) ==
        "has more lines than DatasetLimits::lines, which is 2");
  CHECK(error_of(ErrorCode::limit, "abcdef", {.limits = {.text_bytes = 5}}, {}, "data.txt") ==
        "has 6 bytes, more than DatasetLimits::text_bytes, which is 5");
  // Lines that end at the end of what is read at a time, before and after it.
  for (const std::size_t size : {65535, 65536, 65537, 131072, 200000}) {
    std::string text = "{\"text\": \"";
    text += std::string(size - text.size() - 2, 'a') + "\"}";
    const Dataset dataset = of_text(text + "\r\n" + line + "\n", {.max_length = 1000000});
    REQUIRE(dataset.texts.size() == 2);
    CHECK(whole(gemma4_tokenizer(), dataset.texts[0]).size() == size - 12 + std::string("<bos><eos>").size());
    CHECK(whole(gemma4_tokenizer(), dataset.texts[1]) == "<bos>abcdef<eos>");
  }
}

}  // namespace ple::dataset_test
