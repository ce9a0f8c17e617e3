// SPDX-License-Identifier: Apache-2.0
#include "ple/run/saved_session.h"
#include "ple/table/streamed.h"

#include <doctest/doctest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "../model/random_model.h"
#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/run/chat.h"
#include "ple/table/streamed.h"
#include "ple/text/open_tokenizer.h"

namespace ple::saved_session_test {

using ple::testing::random_model;
using ple::testing::small_config;
using ple::testing::TemporaryFolder;

namespace {

using Model = Gemma4<f32, Simd>;

std::vector<Token> some_tokens(std::size_t n) {
  std::vector<Token> tokens(n);
  for (std::size_t i = 0; i < n; ++i) tokens[i] = static_cast<Token>((i * 37 + 11) % 101);
  return tokens;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string error_of(ErrorCode code, auto&& f) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "no error";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// The checksum that belongs to `bytes`, at their end.
std::string signed_again(std::string bytes) {
  bytes.resize(bytes.size() - 8);
  Checksum sum;
  sum.add(std::as_bytes(std::span(bytes)));
  const std::uint64_t value = sum.value();
  bytes.append(reinterpret_cast<const char*>(&value), 8);
  return bytes;
}

}  // namespace

TEST_CASE("a session goes on from a file with the same bits, whatever its context, chunk and threads") {
  const Model model = random_model<Model>(small_config());
  const TemporaryFolder folder;
  const auto tokens = some_tokens(80);
  // Before a window of 5 is full, while the rings of 5 + 7 - 1 slots are, and after they went round.
  for (const std::size_t cut : {1u, 4u, 5u, 9u, 40u, 79u}) {
    Session whole(model, {.context = 100, .chunk = 7, .threads = 1});
    whole.read(std::span(tokens).first(cut));
    SavedSession::save(whole, folder / "session");
    const std::vector<float> then(whole.logits().begin(), whole.logits().end());
    whole.read(std::span(tokens).subspan(cut));
    for (const SessionOptions& options : {SessionOptions{.context = 100, .chunk = 7, .threads = 2},
                                          SessionOptions{.context = 80, .chunk = 1, .threads = 1},
                                          SessionOptions{.context = 256, .chunk = 64, .threads = 1}}) {
      CAPTURE(cut);
      CAPTURE(options.chunk);
      Session resumed(model, options);
      resumed.read(some_tokens(33));
      SavedSession::load(resumed, folder / "session");
      CHECK(resumed.position() == cut);
      CHECK(std::equal(resumed.tokens().begin(), resumed.tokens().end(), tokens.begin(),
                       tokens.begin() + static_cast<std::ptrdiff_t>(cut)));
      CHECK(same_bits(resumed.logits(), then));
      resumed.read(std::span(tokens).subspan(cut));
      CHECK(same_bits(resumed.logits(), whole.logits()));
    }
  }
}

TEST_CASE("an empty session and one whose prompt was cancelled are saved as they are") {
  const Model model = random_model<Model>(small_config());
  const TemporaryFolder folder;
  const auto tokens = some_tokens(20);
  Session session(model, {.context = 64, .chunk = 8, .threads = 1}), other(model, {.context = 64, .threads = 1});
  SavedSession::save(session, folder / "empty");
  other.read(tokens);
  SavedSession::load(other, folder / "empty");
  CHECK(other.position() == 0);
  CHECK(error_of(ErrorCode::argument, [&] { other.logits(); }) != "no error");
  CHECK_THROWS_AS(session.read(tokens, [](std::size_t, std::size_t) { return false; }), Error);
  SavedSession::save(session, folder / "cancelled");
  SavedSession::load(other, folder / "cancelled");
  CHECK(other.position() == 8);
  CHECK(error_of(ErrorCode::argument, [&] { other.logits(); }) != "no error");
  other.read(std::span(tokens).subspan(8));
  session.read(std::span(tokens).subspan(8));
  CHECK(same_bits(session.logits(), other.logits()));
}

TEST_CASE("tokens that the table's keys look back to are remembered") {
  Model model = random_model<Model>(small_config());
  model.table.set_keys({.per_token = 1, .history = 2, .ids = [](std::span<const Token> text, std::span<RowId> ids) {
                          RowId sum = 0;
                          for (const Token token : text) sum = sum * 3 + static_cast<RowId>(token);
                          ids[0] = sum % 101;
                        }});
  const TemporaryFolder folder;
  const auto tokens = some_tokens(20);
  Session session(model, {.context = 64, .threads = 1}), other(model, {.context = 64, .threads = 1});
  session.read(std::span(tokens).first(10));
  SavedSession::save(session, folder / "session");
  SavedSession::load(other, folder / "session");
  session.read(std::span(tokens).subspan(10));
  other.read(std::span(tokens).subspan(10));
  CHECK(same_bits(session.logits(), other.logits()));
}

TEST_CASE("a damaged, truncated, forged or foreign file is refused") {
  const Model model = random_model<Model>(small_config());
  const TemporaryFolder folder;
  const auto tokens = some_tokens(12);
  Session saved(model, {.context = 64, .threads = 1}), session(model, {.context = 64, .threads = 1});
  saved.read(tokens);
  SavedSession::save(saved, folder / "good");
  session.read(std::span(tokens).first(7));
  const std::vector<float> before(session.logits().begin(), session.logits().end());
  const std::string good = read_file(folder / "good");
  const auto refused = [&](ErrorCode code, const std::string& bytes) {
    write_file(folder / "bad", bytes);
    const std::string message = error_of(code, [&] { SavedSession::load(session, folder / "bad"); });
    CHECK(has(message, (folder / "bad").string()));
    return message;
  };

  SUBCASE("the session is as it was") {
    // Every byte of the header and, for speed, every seventh of the rest.
    for (std::size_t i = 0; i < good.size(); i += i < 64 ? 1 : 7) {
      std::string bytes = good;
      bytes[i] = static_cast<char>(bytes[i] ^ 0x10);
      write_file(folder / "bad", bytes);
      CHECK_THROWS_AS(SavedSession::load(session, folder / "bad"), Error);
    }
    for (std::size_t size = 0; size < good.size(); size += 101) {
      write_file(folder / "bad", good.substr(0, size));
      CHECK_THROWS_AS(SavedSession::load(session, folder / "bad"), Error);
    }
    CHECK(has(refused(ErrorCode::malformed, good.substr(0, 20)), "has 20 bytes: it is no saved session"));
    CHECK(has(refused(ErrorCode::malformed, good + "x"), "is it truncated?"));
    CHECK(has(refused(ErrorCode::malformed, "GGUF" + good.substr(4)), "is no saved session"));
    std::string bytes = good;
    bytes[60] = static_cast<char>(bytes[60] ^ 1);
    CHECK(has(refused(ErrorCode::malformed, bytes), "the file is damaged"));
    bytes = good;
    std::memcpy(bytes.data() + 8, "f64\0", 4);
    CHECK(has(refused(ErrorCode::argument, signed_again(bytes)), "K and V are in f64, expected f32"));
    const Model other = random_model<Model>(small_config(), 2);
    Session foreign(other, {.context = 64, .threads = 1});
    CHECK(has(error_of(ErrorCode::argument, [&] { SavedSession::load(foreign, folder / "good"); }), "another model"));
    Session tiny(model, {.context = 11, .threads = 1});
    CHECK(has(error_of(ErrorCode::argument, [&] { SavedSession::load(tiny, folder / "good"); }),
              "has read 12 tokens, more than the context of 11"));
    CHECK(error_of(ErrorCode::file, [&] { SavedSession::load(session, folder / "none"); }) != "no error");
    CHECK(session.position() == 7);
    CHECK(same_bits(session.logits(), before));
  }
  SUBCASE("a forged one leaves it empty") {
    std::string bytes = good;
    const Token wrong = 101;
    std::memcpy(bytes.data() + sizeof(SavedHeader), &wrong, sizeof wrong);
    CHECK(has(refused(ErrorCode::malformed, signed_again(bytes)), "token 101, expected -1 to 100"));
    CHECK(session.position() == 0);
    SavedHeader header;
    std::memcpy(&header, good.data(), sizeof header);
    header.cache_bytes -= 4;
    bytes = good.substr(0, good.size() - 4);
    std::memcpy(bytes.data(), &header, sizeof header);
    CHECK(has(refused(ErrorCode::malformed, signed_again(bytes)), "bytes of K and V, expected"));
    CHECK(session.position() == 0);
    CHECK(session.tokens().empty());
    session.read(tokens);
    CHECK(same_bits(session.logits(), saved.logits()));
  }
}

TEST_CASE("a session is saved over an older one that it came from, never over a file of its model") {
  const std::filesystem::path from = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";
  TemporaryFolder temporary;
  for (const auto& file : std::filesystem::directory_iterator(from)) {
    std::filesystem::copy(file.path(), temporary / file.path().filename().string());
  }
  const auto model = Gemma4<Any, Simd>::load(Checkpoint::open(temporary / "."));
  Session session(model, {.context = 16, .threads = 1});
  session.read(some_tokens(3));
  CHECK(error_of(ErrorCode::argument, [&] { SavedSession::save(session, temporary / "model.safetensors"); }) ==
        (temporary / "model.safetensors").string() + ": cannot write: is one of the files that are read");
  CHECK(read_file(temporary / "model.safetensors") == read_file(from / "model.safetensors"));
  SavedSession::save(session, temporary / "session");
  SavedSession::load(session, temporary / "session");
  session.read(some_tokens(2));
  SavedSession::save(session, temporary / "session");
  SavedSession::load(session, temporary / "session");
  CHECK(session.position() == 5);
}

TEST_CASE("a session in memory is the bytes of its file, and is refused where the file is") {
  const Model model = random_model<Model>(small_config());
  const TemporaryFolder folder;
  const auto tokens = some_tokens(40);
  Session session(model, {.context = 64, .chunk = 7, .threads = 1}), other(model, {.context = 64, .threads = 1});
  session.read(tokens);
  SavedSession::save(session, folder / "session");
  const std::vector<std::byte> saved = SavedSession::save(session);
  const std::string file = read_file(folder / "session");
  REQUIRE(saved.size() == file.size());
  CHECK(std::memcmp(saved.data(), file.data(), file.size()) == 0);
  SavedSession::load(other, saved);
  CHECK(same_bits(other.logits(), session.logits()));
  other.read(tokens[3]);
  session.read(tokens[3]);
  CHECK(same_bits(other.logits(), session.logits()));
  for (std::size_t size = 0; size < saved.size(); size += 101)
    CHECK_THROWS_AS(SavedSession::load(other, std::span(saved).first(size)), Error);
  CHECK(error_of(ErrorCode::malformed, [&] { SavedSession::load(other, std::span(saved).first(20)); }) ==
        "a saved session in memory: has 20 bytes: it is no saved session");
  std::vector<std::byte> damaged = saved;
  damaged[70] ^= std::byte{1};
  CHECK(has(error_of(ErrorCode::malformed, [&] { SavedSession::load(other, damaged); }), "is damaged"));
  CHECK(same_bits(other.logits(), session.logits()));  // as it was
}

TEST_CASE("a session goes through a stream: the bytes of its file, one behind the other, and nothing behind them") {
  const Model model = random_model<Model>(small_config());
  const TemporaryFolder folder;
  const auto tokens = some_tokens(40);
  const SessionOptions options{.context = 64, .chunk = 7, .threads = 1};
  Session first(model, options), second(model, options), other(model, {.context = 64, .threads = 1});
  first.read(tokens);
  second.read(std::span(tokens).first(3));
  std::stringstream stream(std::ios::in | std::ios::out | std::ios::binary);
  SavedSession::save(first, stream);
  SavedSession::save(first, folder / "session");
  CHECK(stream.str() == read_file(folder / "session"));
  const std::string bytes = stream.str();
  SavedSession::save(second, stream);
  stream << "and more";
  for (const Session* saved : {&first, &second}) {
    SavedSession::load(other, stream);
    CHECK(other.position() == saved->position());
    CHECK(same_bits(other.logits(), saved->logits()));
  }
  std::string rest;
  std::getline(stream, rest);
  CHECK(rest == "and more");
  // As it was, whatever comes of a stream.
  const auto refused = [&](const std::string& what) {
    std::istringstream in(what, std::ios::binary);
    const std::string message = error_of(ErrorCode::malformed, [&] { SavedSession::load(other, in); });
    CHECK(same_bits(other.logits(), second.logits()));
    return message;
  };
  for (std::size_t size = 0; size < bytes.size(); size += 101)
    CHECK(has(refused(bytes.substr(0, size)), "a stream: has "));
  std::string damaged = bytes;
  damaged[70] = static_cast<char>(damaged[70] ^ 1);
  CHECK(has(refused(damaged), "a stream: its checksum is "));
  SavedHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  header.cache_bytes = std::uint64_t{1} << 60;  // no memory is taken for it
  damaged = bytes;
  std::memcpy(damaged.data(), &header, sizeof header);
  CHECK(has(refused(damaged), "a stream: 1152921504606846976 bytes of K and V, expected no more than the session's "));
  std::ofstream full(folder / "none" / "there", std::ios::binary);
  CHECK(error_of(ErrorCode::file, [&] { SavedSession::save(first, full); }) ==
        "a session cannot be written to its stream");
}

TEST_CASE("a session that was saved goes back no further than to where it was; one that went back is saved") {
  const Model model = random_model<Model>(small_config());
  const auto tokens = some_tokens(40);
  Session whole(model, {.context = 64, .chunk = 4, .threads = 1}),
      session(model, {.context = 64, .chunk = 4, .threads = 1}),
      other(model, {.context = 64, .chunk = 8, .threads = 1});
  whole.read(tokens);
  session.read(std::span(tokens).first(30));
  session.rewind(27);
  SavedSession::load(other, SavedSession::save(session));
  CHECK(other.position() == 27);
  CHECK(error_of(ErrorCode::argument, [&] { other.logits(); }) != "no error");
  CHECK(other.rewindable_from() == 26);  // a window of 5 was saved: positions 22 to 26
  other.read(std::span(tokens).subspan(27));
  CHECK(same_bits(other.logits(), whole.logits()));
  other.rewind(32);  // a chunk of 8 back
  other.read(std::span(tokens).subspan(32));
  CHECK(same_bits(other.logits(), whole.logits()));
  CHECK(error_of(ErrorCode::argument, [&] { other.rewind(25); }) ==
        "Session: cannot go to position 25 from 40, expected 0 or 32 to 40");
  // One that fits a window is there as a whole.
  session.reset();
  session.read(std::span(tokens).first(4));
  SavedSession::load(other, SavedSession::save(session));
  CHECK(other.rewindable_from() == 0);
  other.rewind(2);
  other.read(std::span(tokens).subspan(2));
  CHECK(same_bits(other.logits(), whole.logits()));
}

TEST_CASE("the identity knows configuration, weights and table, not where the table lives") {
  const Model model = random_model<Model>(small_config());
  const auto identity = model.identity();
  CHECK(random_model<Model>(small_config()).identity() == identity);
  CHECK(random_model<Model>(small_config(), 2).identity() != identity);
  Gemma4Config config = small_config();
  config.sliding_window = 6;
  CHECK(random_model<Model>(config).identity() != identity);
  Model norm = model;
  norm.final_norm.weight[3] += 0.5f;
  CHECK(norm.identity() != identity);
  const std::filesystem::path storyteller = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";
  const auto checkpoint = Checkpoint::open(storyteller);
  using Story = Gemma4<Any, Simd>;
  const auto mapped = Story::load(checkpoint).identity();
  CHECK(Story::load(checkpoint, {.table = Resident{}}).identity() == mapped);
  CHECK(Story::load(checkpoint, {.table = Streamed{.budget = 4096}}).identity() == mapped);
  CHECK(Story::load(checkpoint, {.table = Pruned{}}).identity() != mapped);
}

TEST_CASE("a conversation goes on from a file") {
  const auto checkpoint = Checkpoint::open(std::filesystem::path(PLE_MODEL_DIR) / "storyteller");
  const auto model = Gemma4<Any, Simd>::load(checkpoint);
  const TemporaryFolder folder;
  const ChatOptions options{.sampling = SamplingOptions{}, .max_tokens = 12, .session = {.context = 256, .threads = 1}};
  const auto text = [](Chat::Answer answer) {
    std::string all;
    for (std::string_view piece : answer) all += piece;
    return all;
  };
  Chat chat(model, checkpoint, options), other(model, checkpoint, options);
  text(chat.say("Tell me a story about a fox."));
  chat.save(folder / "chat");
  other.resume(folder / "chat");
  CHECK(other.session().position() == chat.session().position());
  CHECK(text(chat.say("And then?")) == text(other.say("And then?")));
}

}  // namespace ple::saved_session_test
