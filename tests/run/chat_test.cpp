// SPDX-License-Identifier: Apache-2.0
// A conversation with the shipped model.
#include "ple/run/chat.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../checkpoint/gguf_model.h"
#include "../table/failing_storage.h"
#include "../temporary.h"
#include "../text/gguf_tokenizer_writer.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/family/gemma4/block.h"
#include "ple/text/open_tokenizer.h"

namespace ple::chat_test {

namespace {

const std::filesystem::path folder = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";
constexpr const char* question = "Tell me a story about a fox named Pip.";

ChatOptions greedy() { return {.sampling = SamplingOptions{}, .session = {.threads = 1}}; }

std::string say(Chat& chat, std::string_view text) {
  std::string answer;
  for (std::string_view piece : chat.say(text)) answer += piece;
  return answer;
}

std::string error_of(auto&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::argument);
    return error.what();
  }
  return "no error";
}

std::vector<Token> tokens_of(Chat& chat) { return {chat.session().tokens().begin(), chat.session().tokens().end()}; }

/// What a loop over the answer gives if f(chat) is called after its third piece.
template <class F>
std::size_t pieces_with(Chat& chat, F&& f) {
  std::size_t pieces = 0;
  for (std::string_view piece : chat.say(question)) {
    CHECK(!piece.empty());
    if (++pieces == 3) f(chat);
  }
  return pieces;
}

template <class C>
concept CanSay = requires(C&& chat) {
  std::forward<C>(chat).say("hi");
};

/// The answer to a conversation that is rendered and read from its start.
std::string answer_anew(const LanguageModel& model, const Checkpoint& checkpoint,
                        const std::vector<ChatMessage>& messages) {
  const Tokenizer tokenizer = Tokenizer::open(folder / "tokenizer.json");
  const ChatFormat format = ChatFormat::from_template(*checkpoint.chat_template());
  Session session(model, {.threads = 1});
  session.read(tokenizer.encode(format.render(messages), {.add_special = false}));
  Generation generation(session, {.stop_tokens = checkpoint.stop_tokens()});
  std::vector<Token> tokens;
  while (const auto token = generation.next()) tokens.push_back(*token);
  CHECK(generation.reason() == StopReason::stop_token);
  return tokenizer.decode(tokens);
}

}  // namespace

// What would be gone when the chat, or its answer, computes does not compile.
static_assert(!std::is_constructible_v<Chat, Gemma4<bf16, Simd>, const HfFolder&> &&
              !std::is_constructible_v<Chat, const Gemma4<Any, Simd>, const Checkpoint&, ChatOptions> &&
              !std::is_constructible_v<StreamDecoder, Tokenizer> &&
              !std::is_constructible_v<StreamDecoder, const Tokenizer, bool>);
static_assert(std::is_constructible_v<Chat, Gemma4<bf16, Simd>&, const HfFolder&> &&
              std::is_constructible_v<Chat, const LanguageModel&, HfFolder, ChatOptions> &&
              std::is_constructible_v<StreamDecoder, const Tokenizer&>);
static_assert(CanSay<Chat&> && !CanSay<Chat>);
static_assert(std::is_nothrow_move_constructible_v<Chat> && std::is_nothrow_move_assignable_v<Chat> &&
              !std::is_copy_constructible_v<Chat>);

TEST_CASE("the shipped model answers in its world, and a running conversation is the one rendered anew") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  Chat chat(model, checkpoint, greedy());
  const std::string story = say(chat, question);
  CAPTURE(story);
  CHECK(story.find("fox") != std::string::npos);
  CHECK(story.find("Pip") != std::string::npos);
  CHECK(story.find("<") == std::string::npos);
  CHECK(story == answer_anew(model, checkpoint, {{ChatRole::user, question}}));
  const std::string where = say(chat, "Where did Pip live?");
  CHECK(where ==
        answer_anew(model, checkpoint,
                    {{ChatRole::user, question}, {ChatRole::model, story}, {ChatRole::user, "Where did Pip live?"}}));
  chat.reset();
  CHECK(say(chat, question) == story);
}

TEST_CASE("an answer can be left early or be limited, and the conversation goes on") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  Chat chat(model, checkpoint, greedy());
  std::string start;
  for (std::string_view piece : chat.say(question)) {
    start += piece;
    if (start.size() > 20) break;
  }
  CHECK(say(chat, "Who are you?") ==
        answer_anew(model, checkpoint,
                    {{ChatRole::user, question}, {ChatRole::model, start}, {ChatRole::user, "Who are you?"}}));

  ChatOptions options = greedy();
  options.max_tokens = 3;
  Chat brief(model, checkpoint, options);
  CHECK(say(brief, question).size() < 40);
  CHECK(brief.generation()->count() == 3);
  CHECK(brief.generation()->reason() == StopReason::max_tokens);
}

TEST_CASE("an answer in one string; whatever its loop does to the chat ends it, and no other answer takes its place") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  Chat chat(model, checkpoint, greedy());
  const std::string story = say(chat, question);
  const std::vector<std::byte> saved = chat.save();
  const std::string next = chat.say("Who are you?").text();
  CHECK(next == answer_anew(model, checkpoint,
                            {{ChatRole::user, question}, {ChatRole::model, story}, {ChatRole::user, "Who are you?"}}));

  chat.reset();
  CHECK(pieces_with(chat, [](Chat& c) { c.reset(); }) == 3);
  CHECK(chat.session().position() == 0);
  CHECK(chat.stop_reason() == StopReason::none);
  CHECK(say(chat, question) == story);  // a new conversation
  chat.reset();
  CHECK(pieces_with(chat, [&](Chat& c) { c.resume(saved); }) == 3);
  CHECK(say(chat, "Who are you?") == next);
  chat.reset();
  CHECK(pieces_with(chat, [](Chat& c) {
          for (std::string_view piece : c.say("Who are you?")) {
            CHECK(!piece.empty());
            break;
          }
        }) == 3);
  CHECK(chat.tokenizer().decode(tokens_of(chat)).find("Who are you?") != std::string::npos);
  chat.reset();
  CHECK(pieces_with(chat, [](Chat& c) { CHECK(!c.save().empty()); }) > 20);  // saving changes nothing
  chat.reset();
  std::optional<Chat> gone(std::in_place, model, checkpoint, greedy());
  CHECK(pieces_with(*gone, [&](Chat&) { gone.reset(); }) == 3);

  chat.reset();
  const Chat::Answer first = chat.say(question), second = chat.say("Who are you?");
  const std::string expected = "Chat: this answer has ended: the chat said something else, was reset, or is gone";
  CHECK(error_of([&] { first.begin(); }) == expected);
  CHECK(error_of([&] { first.text(); }) == expected);
  CHECK(!second.text().empty());
  CHECK(second.text().empty());  // its pieces came already
  chat.reset();
  CHECK(error_of([&] { second.begin(); }) == expected);
}

TEST_CASE("a chat moves, an answer with it") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  const auto make = [&] { return Chat(model, checkpoint, greedy()); };
  Chat first = make();
  const std::string story = say(first, question);
  first.reset();
  const Chat::Answer answer = first.say(question);
  std::vector<Chat> chats;
  chats.push_back(std::move(first));
  chats.push_back(make());
  CHECK(answer.text() == story);
  CHECK(say(chats[1], question) == story);
  CHECK(say(chats[0], "Who are you?") == say(chats[1], "Who are you?"));
  chats[0] = make();
  CHECK(error_of([&] { answer.begin(); }) != "no error");
}

TEST_CASE("a conversation starts from turns that were had elsewhere, as if they were rendered anew") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  ChatOptions options = greedy();
  options.system = "Be brief.";
  Chat chat(model, checkpoint, options);
  const std::vector<ChatMessage> turns = {{ChatRole::user, "Who are you? <turn|>"},
                                          {ChatRole::model, " A storyteller.\n"}};
  const std::string own[] = {"", "Be kind."};
  for (const std::string& system : own) {
    std::vector<ChatMessage> messages = turns;
    if (!system.empty()) messages.insert(messages.begin(), {ChatRole::system, system});
    say(chat, "Something else.");
    chat.start(messages);
    const std::vector<std::byte> saved = chat.save();
    if (system.empty()) messages.insert(messages.begin(), {ChatRole::system, options.system});
    messages.push_back({ChatRole::user, question});
    const Tokenizer& tokenizer = chat.tokenizer();
    const ChatFormat format = ChatFormat::from_template(*checkpoint.chat_template());
    const auto expected = encode_chat(tokenizer, format.segments(messages));
    const std::string answer = [&] {
      const Chat::Answer a = chat.say(question);
      CHECK(tokens_of(chat) == expected);
      return a.text();
    }();
    chat.resume(saved);
    CHECK(say(chat, question) == answer);
  }
  const auto position = chat.session().position();
  CHECK(error_of([&] {
          chat.start(std::vector<ChatMessage>{{ChatRole::user, "Hi"}});
        }) == "Chat::start: the last of 1 messages is not the model's: say() it instead");
  options.session.context = 20;
  Chat brief(model, checkpoint, options);
  CHECK(error_of([&] { brief.start(turns); }).find("go past the context of 20") != std::string::npos);
  CHECK(chat.session().position() == position);
  chat.start({});
  CHECK(chat.session().position() == 0);
}

TEST_CASE("a text ends before a stop string, wherever the pieces of the answer are cut") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  Chat plain(model, checkpoint, greedy());
  const std::string story = say(plain, question);
  CHECK(plain.stop_reason() == StopReason::stop_token);
  for (std::size_t at = 5; at + 9 < story.size(); at += 31) {
    const std::string stop = story.substr(at, 9);  // it does not begin or end with a token
    CAPTURE(stop);
    ChatOptions options = greedy();
    options.stop_strings = {"not in the story", stop};
    Chat chat(model, checkpoint, options);
    CHECK(say(chat, question) == story.substr(0, story.find(stop)));
    CHECK(chat.stop_reason() == StopReason::stop_string);
    CHECK(chat.generation()->reason() == StopReason::stop_string);
    CHECK(!say(chat, "Who are you?").empty());  // the conversation goes on
  }
  ChatOptions options = greedy();
  options.stop_strings = {story.substr(story.size() - 5) + "?"};  // held back to the end, then shown
  Chat chat(model, checkpoint, options);
  CHECK(say(chat, question) == story);
  CHECK(chat.stop_reason() == StopReason::stop_token);
  options.stop_strings = {""};
  CHECK(error_of([&] { Chat(model, checkpoint, options); }) == "stop string 0 is empty");
}

TEST_CASE("an answer is cancelled, its logits are changed; the functions that do it cannot change the chat") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  ChatOptions options = greedy();
  std::size_t asked = 0;
  Chat* itself = nullptr;
  std::string refused;
  options.cancelled = [&] {
    if (itself != nullptr) refused = error_of([&] { itself->reset(); });
    return ++asked > 5;
  };
  const Token banned = *Tokenizer::open(folder / "tokenizer.json").token_to_id("e");
  options.logits_processor = [&](std::span<const Token>, std::span<float> logits) {
    logits[static_cast<std::size_t>(banned)] = -std::numeric_limits<float>::infinity();
  };
  Chat chat(model, checkpoint, options);
  itself = &chat;
  CHECK(!say(chat, question).empty());
  CHECK(chat.stop_reason() == StopReason::cancelled);
  CHECK(chat.generation()->count() == 5);
  CHECK(refused.find("it is used by a function that it calls") != std::string::npos);
  asked = 0;
  CHECK(!say(chat, "And then?").empty());
  CHECK(std::ranges::count(chat.session().tokens().last(3), banned) == 0);
  const std::vector<Token> before = tokens_of(chat);
  CHECK(error_of([&] {
          chat.say("Hello?", [&](std::size_t, std::size_t) {
            chat.reset();
            return true;
          });
        }).find("it is used by a function") != std::string::npos);
  CHECK(std::ranges::equal(chat.session().tokens().first(before.size()), before));
}

TEST_CASE("whichever read fails, nothing of the conversation is lost: what was said can be said again") {
  const auto fault = std::make_shared<testing::ReadFault>();
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint, {.table = testing::FailingStorage{fault}});
  // A window of the shipped model's sliding layers, and more: what was read before is not all there any more.
  for (const std::size_t chunk : {std::size_t{4}, std::size_t{128}}) {
    ChatOptions options = greedy();
    options.max_tokens = 40;
    options.session.chunk = chunk;
    Chat good(model, checkpoint, options);
    fault->fail_at(0);
    const std::string story = say(good, question);
    const std::string next = say(good, "Tell me another story, please, and let it be about a rabbit.");
    const std::vector<Token> tokens = tokens_of(good);
    const std::size_t reads = fault->count;
    REQUIRE(reads > 80);
    std::size_t failed = 0;
    for (std::size_t k = 1; k <= reads; k += k % 5 == 0 ? 1 : 3) {
      CAPTURE(k);
      Chat chat(model, checkpoint, options);
      fault->fail_at(k);
      std::size_t errors = 0;
      const auto stubborn = [&](std::string_view text) {
        std::optional<Chat::Answer> answer;
        while (!answer) {
          try {
            answer = chat.say(text);
          } catch (const Error& error) {
            CHECK(error.code() == ErrorCode::file);
            ++errors;
          }
        }
        while (true) {
          try {
            return answer->text();
          } catch (const Error& error) {
            CHECK(error.code() == ErrorCode::file);
            ++errors;
          }
        }
      };
      const bool same = stubborn(question) == story &&
                        stubborn("Tell me another story, please, and let it be about a rabbit.") == next;
      CHECK(same);
      CHECK(errors == 1);
      CHECK(tokens_of(chat) == tokens);
      failed += errors;
    }
    CHECK(failed > 30);
  }
}

TEST_CASE("a message that was cancelled was not said") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  ChatOptions options = greedy();
  options.session.chunk = 8;
  options.max_tokens = 30;
  Chat chat(model, checkpoint, options), other(model, checkpoint, options);
  CHECK(say(chat, question) == say(other, question));
  other.save();  // as a message does, saving has the last token read
  const std::size_t position = other.session().position();
  for (const std::size_t most : {8u, 16u, 24u}) {
    try {
      chat.say("Where did Pip live, and who were his friends, and what did they find at the end of the day?",
               [&](std::size_t done, std::size_t) { return done < most; });
      FAIL("not cancelled");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::cancelled);
    }
    // The sliding layers remember a chunk more than their window: what was before two is read again, the third time.
    CHECK(chat.session().position() == (most == 8 ? position : most == 16 ? 0 : 24));
  }
  CHECK(chat.save() == other.save());
  CHECK(say(chat, "Who are you?") == say(other, "Who are you?"));
  CHECK(tokens_of(chat) == tokens_of(other));
}

TEST_CASE("a context that is too short ends an answer, and refuses a longer prompt") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  ChatOptions options = greedy();
  options.session.context = 40;
  Chat chat(model, checkpoint, options);
  CHECK(say(chat, question).size() > 10);
  CHECK(chat.generation()->reason() == StopReason::context_full);
  try {
    say(chat, question);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::argument);
    CHECK(std::string(error.what()).find("context of 40") != std::string::npos);
  }
  chat.reset();
  CHECK(say(chat, question).size() > 10);
}

TEST_CASE("equal seeds give equal stories, the table's place changes nothing") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto mapped = Gemma4<Any, Simd>::load(checkpoint),
             resident = Gemma4<Any, Simd>::load(checkpoint, {.table = Resident{}});
  const auto tell = [&](const LanguageModel& model, std::uint64_t seed) {
    ChatOptions options = greedy();
    options.sampling = SamplingOptions{.temperature = 1, .seed = seed};
    Chat chat(model, checkpoint, options);
    return say(chat, question);
  };
  CHECK(tell(mapped, 1) == tell(resident, 1));
  CHECK(tell(mapped, 1) != tell(mapped, 2));
}

TEST_CASE("a GGUF file of the shipped model, with its tokenizer and template, tells the same story") {
  const auto checkpoint = Checkpoint::open(folder);
  ple::testing::GgufWriter writer = ple::testing::gguf_of(checkpoint, /*with_padding_token=*/false);
  std::ifstream tokenizer(folder / "tokenizer.json", std::ios::binary);
  ple::testing::add_tokenizer(writer, nlohmann::json::parse(tokenizer));
  writer.text("tokenizer.chat_template", *checkpoint.chat_template());
  ple::testing::TemporaryFolder temporary;
  writer.write(temporary / "storyteller.gguf");
  const auto file = Checkpoint::open(temporary / "storyteller.gguf");
  CHECK(file.stop_tokens() == checkpoint.stop_tokens());
  const auto model = Gemma4<Any, Simd>::load(checkpoint), same = Gemma4<Any, Simd>::load(file);
  Chat chat(model, checkpoint, greedy()), other(same, file, greedy());
  const std::string story = say(chat, question);
  CHECK(story.size() > 100);
  CHECK(say(other, question) == story);
}

TEST_CASE("without a chat template a model with Per-Layer Embeddings is asked without an empty thought channel") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  ple::testing::TemporaryFolder bare;
  for (const char* const name : {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"})
    std::filesystem::copy_file(folder / name, bare / name);
  const auto without = Checkpoint::open(bare / ".");
  REQUIRE(!without.chat_template());
  Chat chat(model, checkpoint, greedy()), other(model, without, greedy());
  const std::string story = say(chat, question);
  CHECK(say(other, question) == story);

  // A format that the program gives takes the place of the template's.
  ChatOptions options = greedy();
  options.format = ChatFormat{.turn_begin = "<eos>"};
  Chat changed(model, checkpoint, options);
  CHECK(say(changed, question) != story);
  CHECK(changed.session().tokens()[1] == chat.tokenizer().token_to_id("<eos>"));
}

TEST_CASE("a model that is asked to think has to know how") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  ChatOptions options = greedy();
  options.thinking = true;
  try {
    Chat chat(model, checkpoint, options);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::not_supported);
    CHECK(std::string(error.what()).find("no thinking") != std::string::npos);
  }
}

}  // namespace ple::chat_test
