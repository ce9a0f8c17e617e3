// SPDX-License-Identifier: Apache-2.0
// A conversation with the shipped model.
#include "ple/run/chat.h"

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../io/gguf_model.h"
#include "../temporary.h"
#include "../text/gguf_tokenizer_writer.h"
#include "ple/io/checkpoint.h"
#include "ple/model/gemma4.h"
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

/// The answer to a conversation that is rendered and read from its start.
std::string answer_anew(const LanguageModel& model, const Checkpoint& checkpoint,
                        const std::vector<Message>& messages) {
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

TEST_CASE("the shipped model answers in its world, and a running conversation is the one rendered anew") {
  const auto checkpoint = Checkpoint::open(folder);
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  Chat chat(model, checkpoint, greedy());
  const std::string story = say(chat, question);
  CAPTURE(story);
  CHECK(story.find("fox") != std::string::npos);
  CHECK(story.find("Pip") != std::string::npos);
  CHECK(story.find("<") == std::string::npos);
  CHECK(story == answer_anew(model, checkpoint, {{Role::user, question}}));
  const std::string where = say(chat, "Where did Pip live?");
  CHECK(where == answer_anew(model, checkpoint,
                             {{Role::user, question}, {Role::model, story}, {Role::user, "Where did Pip live?"}}));
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
        answer_anew(model, checkpoint, {{Role::user, question}, {Role::model, start}, {Role::user, "Who are you?"}}));

  ChatOptions options = greedy();
  options.max_tokens = 3;
  Chat brief(model, checkpoint, options);
  CHECK(say(brief, question).size() < 40);
  CHECK(brief.generation()->count() == 3);
  CHECK(brief.generation()->reason() == StopReason::max_tokens);
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
