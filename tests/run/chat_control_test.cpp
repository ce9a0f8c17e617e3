// SPDX-License-Identifier: Apache-2.0
// Whole answers, answers that are cancelled or interrupted, and conversations that began elsewhere.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <new>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../allocations.h"
#include "../table/failing_storage.h"
#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/chat.h"
#include "ple/text/jinja.h"
#include "ple/text/open_tokenizer.h"

namespace ple::chat_control_test {

namespace {

const std::filesystem::path folder = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";
constexpr const char* question = "Tell me a story about a fox named Pip.";
constexpr const char* long_question =
    "Where did Pip live, and who were his friends, and what did they find at the end of the day?";

ChatOptions greedy(std::size_t max_tokens = 0) {
  return {.sampling = SamplingOptions{}, .max_tokens = max_tokens, .session = {.threads = 1}};
}

std::vector<Token> tokens_of(Chat& chat) { return {chat.session().tokens().begin(), chat.session().tokens().end()}; }

/// Calls f until it gets by without an error, which it returns the number of.
template <class F>
std::size_t errors_until_done(F&& f) {
  for (std::size_t errors = 0;; ++errors) {
    try {
      f();
      return errors;
    } catch (const Error&) {
    } catch (const std::bad_alloc&) {
    }
    REQUIRE(errors < 10);
  }
}

}  // namespace

TEST_CASE("ask gives the whole answer, and the reasons why answers end") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  Chat chat(model, checkpoint, greedy());
  CHECK(chat.stop_reason() == StopReason::none);
  CHECK(chat.answer().text().empty());  // there is none
  std::string story;
  for (std::string_view piece : chat.say(question)) story += piece;
  chat.reset();
  CHECK(chat.ask(question) == story);
  CHECK(chat.stop_reason() == StopReason::stop_token);
  CHECK(chat.answer().text().empty());  // all of it came
  chat.reset();
  for (std::string_view piece : chat.say(question)) {
    CHECK(story.starts_with(piece));
    CHECK(std::string(piece) + chat.answer().text() == story);  // what did not come yet
    break;
  }
  Chat few(model, checkpoint, greedy(3));
  few.ask(question);
  CHECK(few.stop_reason() == StopReason::max_tokens);
  Chat moved = std::move(few);
  CHECK(moved.ask("And then?") != "");
  ChatOptions options = greedy();
  options.session.context = 40;
  Chat tight(model, checkpoint, options);
  tight.ask(question);
  CHECK(tight.stop_reason() == StopReason::context_full);
  options = greedy();
  options.stop_strings = {story.substr(20, 5)};
  Chat stopped(model, checkpoint, options);
  CHECK(stopped.ask(question) == story.substr(0, story.find(options.stop_strings[0])));
  CHECK(stopped.stop_reason() == StopReason::stop_string);
}

TEST_CASE("a chat is cancelled from another thread, in an answer and in a message") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  std::atomic<std::size_t> asked{0};
  std::atomic<bool> go_on{false};
  ChatOptions options = greedy();
  options.session.chunk = 8;
  // Asked where the chat asks for its own flag, too: it waits there until the other thread has set that.
  options.cancelled = [&] {
    if (++asked == 4) {
      while (!go_on) std::this_thread::yield();
    }
    return false;
  };
  Chat chat(model, checkpoint, options), other(model, checkpoint, greedy());
  const auto cancelled_at = [&](auto&& f) {
    asked = 0;
    go_on = false;
    std::thread canceller([&] {
      while (asked < 4) std::this_thread::yield();
      chat.cancel();
      go_on = true;
    });
    f();
    canceller.join();
  };
  std::string text;
  cancelled_at([&] { text = chat.ask(question); });
  CHECK(chat.stop_reason() == StopReason::cancelled);
  CHECK(other.ask(question).starts_with(text));
  CHECK(chat.generation()->count() < 6);
  // The message was not said, and can be said again: cancel() was for the one that was being read.
  chat.reset();
  chat.cancel();  // nothing is done: it does nothing
  asked = 100;
  text = chat.ask(question);
  CHECK(chat.stop_reason() == StopReason::stop_token);
  const std::vector<std::byte> before = chat.save();
  std::string very_long;
  for (int i = 0; i < 3; ++i) very_long += std::string(long_question) + " ";
  ErrorCode code{};
  cancelled_at([&] {
    try {
      chat.ask(very_long);
    } catch (const Error& error) {
      code = error.code();
    }
  });
  CHECK(code == ErrorCode::cancelled);
  CHECK(chat.answer().text().empty());
  asked = 100;
  const std::string next = chat.ask(very_long);
  chat.resume(before);
  CHECK(chat.ask(very_long) == next);
  CHECK(chat.stop_reason() != StopReason::cancelled);
}

TEST_CASE("the function that cancels is asked between the chunks of a message, too") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  bool cancelled = false;
  std::size_t chunks = 0;
  ChatOptions options = greedy(5);
  options.session.chunk = 8;
  options.cancelled = [&] { return cancelled; };
  Chat chat(model, checkpoint, options);
  const auto progress = [&](std::size_t, std::size_t) {
    ++chunks;
    return true;
  };
  cancelled = true;
  ErrorCode code{};
  try {
    chat.say(long_question, progress);
  } catch (const Error& error) {
    code = error.code();
  }
  CHECK(code == ErrorCode::cancelled);
  CHECK(chunks == 0);
  CHECK(chat.session().position() == 0);
  cancelled = false;
  CHECK(!chat.ask(long_question, progress).empty());
  CHECK(chunks > 2);
}

TEST_CASE("a conversation that starts from earlier turns has the tokens of the published template") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  const std::vector<ChatMessage> turns = {{ChatRole::system, "Be brief."},
                                          {ChatRole::user, "Who are you?"},
                                          {ChatRole::model, "A storyteller."},
                                          {ChatRole::user, " And what do you tell? "},
                                          {ChatRole::model, "Stories.\n"}};
  Chat chat(model, checkpoint, greedy(4));
  chat.start(turns);
  Chat::Answer answer = chat.say(question);
  Json messages = Json::array();
  const auto add = [&](const char* role, const std::string& content) {
    Json& turn = messages.push_back(Json::object());
    turn.add("role", Json(std::string(role)));
    turn.add("content", Json(content));
  };
  for (const ChatMessage& m : turns)
    add(m.role == ChatRole::system ? "system" : m.role == ChatRole::user ? "user" : "assistant", m.content);
  add("user", question);
  Json variables = Json::object();
  variables.add("messages", std::move(messages));
  variables.add("bos_token", Json(std::string("<bos>")));
  variables.add("add_generation_prompt", Json(true));
  variables.add("enable_thinking", Json(false));
  const std::string text = JinjaTemplate(*checkpoint.chat_template()).render(variables);
  CHECK(chat.tokenizer().decode(tokens_of(chat), false) == text);
  CHECK(tokens_of(chat) == chat.tokenizer().encode(text, {.add_special = false}));
  CHECK(!answer.text().empty());
}

TEST_CASE("whichever read fails while an answer is asked for, the rest of it is the same") {
  const auto fault = std::make_shared<testing::ReadFault>();
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint, {.table = testing::FailingStorage{fault}});
  ChatOptions options = greedy(12);
  options.sampling = SamplingOptions{.temperature = 1, .seed = 5};
  options.session.chunk = 8;
  Chat good(model, checkpoint, options);
  fault->fail_at(0);
  const std::string story = good.ask(question);
  const std::vector<Token> tokens = tokens_of(good);
  const std::size_t reads = fault->count;
  REQUIRE(reads > 12);
  for (std::size_t k = 1; k <= reads; ++k) {
    CAPTURE(k);
    Chat chat(model, checkpoint, options);
    fault->fail_at(k);
    bool said = false;
    std::string text;
    const std::size_t errors = errors_until_done([&] {
      if (!said) {
        chat.say(question);
        said = true;
      }
      text = chat.answer().text();
    });
    CHECK(errors == 1);
    CHECK(text == story);
    CHECK(tokens_of(chat) == tokens);
  }
}

TEST_CASE("whichever allocation fails while an answer is asked for, the rest of it is the same") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  ChatOptions options = greedy(40);
  options.sampling = SamplingOptions{.temperature = 1, .seed = 5};
  const std::string story = Chat(model, checkpoint, options).ask(question);
  options.stop_strings = {story.substr(0, story.size() - 5) + "?"};  // its beginning is held back
  Chat chat(model, checkpoint, options);
  CHECK(chat.ask(question) == story);
  const std::vector<Token> tokens = tokens_of(chat);
  // Every allocation from where the prompt is encoded on: those before are many, and of the tokenizer.
  for (std::size_t n = 1, failed = 0;; ++n) {
    CAPTURE(n);
    Chat again(model, checkpoint, options);
    again.say(question);
    testing::fail_allocation(n);
    std::string text;
    const std::size_t errors = errors_until_done([&] { text = again.answer().text(); });
    failed += testing::allocation_failed();
    CHECK(text == story);
    CHECK(tokens_of(again) == tokens);
    if (errors == 0) {
      CHECK(failed > 4);
      break;
    }
  }
  for (std::size_t n = 1;; n += 7) {
    CAPTURE(n);
    Chat again(model, checkpoint, options);
    testing::fail_allocation(n);
    const std::size_t errors = errors_until_done([&] { again.say(question); });
    const bool failed = testing::allocation_failed();
    CHECK(again.answer().text() == story);
    CHECK(tokens_of(again) == tokens);
    if (!failed) break;
    CHECK(errors <= 1);
  }
}

TEST_CASE("a conversation goes through a stream") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  Chat chat(model, checkpoint, greedy(12)), other(model, checkpoint, greedy(12));
  chat.ask(question);
  std::stringstream stream(std::ios::in | std::ios::out | std::ios::binary);
  chat.save(stream);
  other.resume(stream);
  CHECK(chat.ask("And then?") == other.ask("And then?"));
}

}  // namespace ple::chat_control_test
