// SPDX-License-Identifier: Apache-2.0
// The shipped model with its PLE table packed in every way, through sessions.
#include "ple/convert/pack_table.h"
#include "ple/core/os.h"

#include <doctest/doctest.h>
#include <cerrno>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "../comma_locale.h"
#include "../temporary.h"
#include "ple/ple.h"

namespace ple::packed_table_test {

namespace {

using Model = Gemma4<Any, Simd>;

const std::filesystem::path folder = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";
constexpr std::size_t layers = 8, p = 32, vocab_size = 1024;

std::vector<Token> text(std::size_t count = 60) {
  std::vector<Token> tokens = {2};
  while (tokens.size() < count) tokens.push_back(static_cast<Token>((tokens.back() * 37 + 11) % 1000));
  return tokens;
}

/// The logits after every token; the session's context and chunk are small enough that rings wrap and chunks are cut.
std::vector<float> logits_of(const Model& model, const std::vector<Token>& tokens, std::size_t chunk = 7) {
  Session session(model, {.context = 256, .chunk = chunk, .threads = 2});
  std::vector<float> all;
  session.evaluate(
      tokens, [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

Model packed(const Model& original, const testing::TemporaryFolder& temporary, const std::string& name,
             PackOptions options, const TableStorage& storage = Mapped{}) {
  InlineExecutor executor;
  pack_table(original, std::move(options), temporary / name, executor);
  return Model::load(Checkpoint::open(folder, {.table = temporary / name}), {.table = storage});
}

std::vector<std::optional<Dtype>> all_layers(Dtype dtype) { return std::vector<std::optional<Dtype>>(layers, dtype); }

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// per_layer_inputs of tokens, [T, layers * p].
std::vector<float> per_layer_inputs(const Model& model, const std::vector<Token>& tokens) {
  const std::size_t T = tokens.size(), d = model.hidden_size();
  RowSelection selection = model.table.make_selection(T);
  InlineExecutor executor;
  std::vector<float> h0(T * d), context(T * layers * p), out(T * layers * p);
  model.per_layer_inputs(executor, tokens, selection, {h0.data(), T, d, d}, {context.data(), T, layers * p, layers * p},
                         {out.data(), T, layers * p, layers * p});
  return out;
}

}  // namespace

TEST_CASE("a packed table in the original's type changes no bit, wherever its rows live") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  const std::vector<float> expected = logits_of(original, text());
  for (const TableStorage& storage : {TableStorage(Mapped{}), TableStorage(Resident{}), TableStorage(Streamed{}),
                                      TableStorage(Streamed{.budget = 0}), TableStorage(Mapped{.budget = 200'000})}) {
    CHECK(same(logits_of(Model::load(Checkpoint::open(folder), {.table = storage}), text()), expected));
    CHECK(same(logits_of(packed(original, temporary, "bf16", {.dtypes = all_layers(Dtype::bf16)}, storage), text()),
               expected));
    CHECK(same(logits_of(packed(original, temporary, "f32", {.dtypes = all_layers(Dtype::f32)}, storage), text()),
               expected));
  }
}

TEST_CASE("a table packed into fewer bits moves the logits a little, the more the fewer bits") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  const std::vector<float> expected = logits_of(original, text());
  const auto distance = [&](const Model& model) {
    const std::vector<float> logits = logits_of(model, text());
    double sum = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) sum += std::pow(double(logits[i]) - double(expected[i]), 2);
    return std::sqrt(sum / static_cast<double>(logits.size()));
  };
  const double eight = distance(packed(original, temporary, "q8", {.dtypes = all_layers(Dtype::q8_0)}));
  const double four = distance(packed(original, temporary, "q4", {.dtypes = all_layers(Dtype::q4_0)}));
  const double none = distance(Model::load(Checkpoint::open(folder), {.table = Pruned{}}));
  CHECK(eight > 0);
  CHECK(four > 4 * eight);  // steps are 16 times as large
  CHECK(none > four);
}

TEST_CASE("layers that were pruned skip their PLE step, and only they") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  auto dtypes = all_layers(Dtype::f16);
  dtypes[1] = dtypes[2] = dtypes[7] = std::nullopt;
  const Model model = packed(original, temporary, "pruned", {.dtypes = dtypes}, Streamed{.budget = 4096});
  const auto state = model.make_state({.context = 64, .chunk = 64, .threads = 1});
  InlineExecutor executor;
  std::vector<std::size_t> steps;
  model.forward(*state, executor, text(20), {}, {}, [&](std::string_view what, std::size_t l, Rows) {
    if (what == "per_layer_input") steps.push_back(l);
  });
  CHECK(steps == std::vector<std::size_t>{0, 3});  // the shared layers, 4 to 7, are not run without logits
  CHECK_FALSE(same(logits_of(model, text()), logits_of(original, text())));

  const Model none = packed(original, temporary, "none", {.dtypes = std::vector<std::optional<Dtype>>(layers)});
  CHECK(same(logits_of(none, text()), logits_of(Model::load(Checkpoint::open(folder), {.table = Pruned{}}), text())));
}

TEST_CASE("a folded table differs from the unfolded one by its rounding only") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  const std::vector<float> unfolded = per_layer_inputs(original, text());
  const auto folded_into = [&](Dtype dtype) {
    return packed(original, temporary, "folded", {.dtypes = all_layers(dtype), .fold = true}, Streamed{.budget = 8192});
  };
  // f32 stores what would be computed: no bit differs, in the logits either.
  const Model exact = folded_into(Dtype::f32);
  CHECK(exact.table.folded());
  CHECK(same(per_layer_inputs(exact, text()), unfolded));
  CHECK(same(logits_of(exact, text()), logits_of(original, text())));
  // Half a unit in the last place: bf16 keeps 8 bits, f16 11, both round to nearest.
  for (const auto& [dtype, bound] : {std::pair{Dtype::bf16, 0x1p-8f}, std::pair{Dtype::f16, 0x1p-11f}}) {
    const std::vector<float> folded = per_layer_inputs(folded_into(dtype), text());
    std::size_t outside = 0;
    for (std::size_t i = 0; i < folded.size(); ++i) {
      const float tiny = dtype == Dtype::f16 ? 0x1p-25f : 0;  // f16 has no smaller steps than 2^-24
      outside += std::fabs(folded[i] - unfolded[i]) > std::fabs(unfolded[i]) * bound + tiny;
    }
    CHECK(outside == 0);
  }
  // q8_0 rounds to half a step, a step being 1/127 of a block's largest value, and the step itself to an f16.
  const std::vector<float> folded = per_layer_inputs(folded_into(Dtype::q8_0), text());
  std::size_t outside = 0;
  for (std::size_t i = 0; i < folded.size(); i += 32) {
    float largest = 0;
    for (std::size_t k = i; k < i + 32; ++k) largest = std::max(largest, std::fabs(unfolded[k]));
    for (std::size_t k = i; k < i + 32; ++k) {
      outside += std::fabs(folded[k] - unfolded[k]) > largest * (0.5f / 127 + 0x1p-11f) + 0x1p-24f * 127;
    }
  }
  CHECK(outside == 0);
}

TEST_CASE("positions that are no text take their embedding from the caller and the pad token's row, folded or not") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  const Model folded = packed(original, temporary, "folded", {.dtypes = all_layers(Dtype::f32), .fold = true});
  const std::size_t d = original.hidden_size();
  // The pad token, spelled out: its scaled embedding as a soft token is the token itself.
  const Token pad = original.config.pad_token_id;
  std::vector<float> pad_embedding(d);
  visit_floats(original.embedding, [&](const auto& rows) {
    Simd::decode(rows.row(static_cast<std::size_t>(pad)), d, pad_embedding.data());
    Simd::scale(rounded_to(rows.dtype(), std::sqrt(static_cast<float>(d))), d, pad_embedding.data());
  });
  const std::vector<Token> with_pad = {2, 30, pad, pad, 31, pad, 99},
                           with_soft = {2, 30, soft_token, soft_token, 31, soft_token, 99};
  std::vector<float> soft;
  for (int i = 0; i < 3; ++i) soft.insert(soft.end(), pad_embedding.begin(), pad_embedding.end());
  const auto last_logits = [&](const Model& model, const std::vector<Token>& tokens, Rows rows, std::size_t chunk) {
    Session session(model, {.context = 64, .chunk = chunk, .threads = 1});
    session.read(tokens, rows);
    return std::vector<float>(session.logits().begin(), session.logits().end());
  };
  const std::vector<float> expected = last_logits(original, with_pad, {}, 16);
  for (const Model* model : {&original, &folded}) {
    for (const std::size_t chunk : {1u, 3u, 16u}) {
      CHECK(same(last_logits(*model, with_soft, {soft.data(), 3, d, d}, chunk), expected));
    }
  }
  // Any other embedding: the folded table computes what the unfolded one does.
  for (std::size_t i = 0; i < soft.size(); ++i) soft[i] = std::sin(static_cast<float>(i)) * 3;
  const std::vector<float> other = last_logits(original, with_soft, {soft.data(), 3, d, d}, 16);
  CHECK_FALSE(same(other, expected));
  CHECK(same(last_logits(folded, with_soft, {soft.data(), 3, d, d}, 3), other));
  CHECK_FALSE(message([&] { last_logits(original, with_soft, {soft.data(), 2, d, d}, 16); }).empty());
}

TEST_CASE("a cut-down vocabulary gives the kept tokens' logits and refuses, or substitutes, the others") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  std::vector<Token> kept;
  for (Token token = 0; token < 1000; token += 3) kept.push_back(token);
  std::vector<Token> tokens = {3, 6, 300, 9, 999, 3, 3, 12};
  const std::vector<float> expected = logits_of(original, tokens);
  for (const bool fold : {false, true}) {
    const PackOptions options{.dtypes = all_layers(Dtype::f32), .fold = fold, .kept = kept, .substitute = {}};
    const Model model = packed(original, temporary, "kept", options, Streamed{.budget = 1 << 16});
    CHECK(model.embedding.rows() == kept.size());
    const std::vector<float> logits = logits_of(model, tokens);
    bool good = true;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const std::size_t token = i % vocab_size;
      const bool has = token < 1000 && token % 3 == 0;
      good &= has ? logits[i] == expected[i] : logits[i] == -std::numeric_limits<float>::infinity();
    }
    CHECK(good);
    CHECK(message([&] {
            logits_of(model, {3, 4});
          }) == "token 4 has no row: it was left out when the table was packed");
    // A generation never leaves the vocabulary.
    Session session(model, {.context = 128, .threads = 1});
    session.read(tokens);
    Generation generation(session, {.sampling = {.temperature = 2, .seed = 5}, .stop_tokens = {}, .max_tokens = 60});
    while (const auto token = generation.next()) CHECK(*token % 3 == 0);

    PackOptions with_substitute = options;
    with_substitute.substitute = 9;
    const Model lenient = packed(original, temporary, "kept", with_substitute);
    CHECK(same(logits_of(lenient, {3, 4, 1023, 6}), logits_of(lenient, {3, 9, 9, 6})));
  }
  CHECK(message([&] {
          packed(original, temporary, "x", {.dtypes = all_layers(Dtype::f32), .kept = {3, 3}});
        }) == "pack_table: token 3 is listed twice");
  CHECK(message([&] { packed(original, temporary, "x", {.dtypes = all_layers(Dtype::f32), .kept = {1024}}); }) ==
        "pack_table: token 1024, expected 0 to 1023");
}

TEST_CASE("a token that was left out is refused before any thread needs its row, even one past the table's end") {
  using Gemma = Gemma3n<Any, Scalar>;
  const std::filesystem::path gemma3n = std::filesystem::path(PLE_TEST_DATA) / "golden_gemma3n/e2b_like";
  testing::TemporaryFolder temporary;
  InlineExecutor executor;
  {
    const auto whole = Gemma::load(Checkpoint::open(gemma3n));
    REQUIRE(whole.config.vocab_size > whole.config.vocab_size_per_layer_input);
    PackOptions options;
    options.dtypes.assign(whole.config.num_layers(), Dtype::f32);
    for (Token token = 0; token < 10; ++token) options.kept.push_back(token);
    pack_table(whole, options, temporary / "table", executor);
  }
  const auto model = Gemma::load(Checkpoint::open(gemma3n, {.table = temporary / "table"}));
  const auto past_the_table = static_cast<Token>(model.config.vocab_size - 1);
  for (const std::size_t threads : {1u, 3u}) {
    ThreadPool pool(threads);
    Session session(model, {.context = 100, .chunk = 40, .executor = &pool});
    for (const Token token : {Token{20}, past_the_table}) {
      std::vector<Token> tokens(40, 3);
      tokens[17] = tokens[39] = token;
      CHECK(message([&] { session.read(tokens); }) ==
            "token " + std::to_string(token) + " has no row: it was left out when the table was packed");
      CHECK(session.position() == 0);
    }
    session.read(std::vector<Token>(40, 3));
    CHECK(session.position() == 40);
  }
}

TEST_CASE("a table is not packed over a file that the model lies in") {
  testing::TemporaryFolder temporary;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    std::filesystem::copy(file.path(), temporary / file.path().filename().string());
  }
  InlineExecutor executor;
  const auto weights = temporary / "model.safetensors", table = temporary / "table";
  const auto size = std::filesystem::file_size(weights);
  {
    const Model model = Model::load(Checkpoint::open(temporary / "."));
    CHECK(message([&] { pack_table(model, {.dtypes = all_layers(Dtype::f32)}, weights, executor); }) ==
          weights.string() + ": cannot write: is one of the files that are read");
    pack_table(model, {.dtypes = all_layers(Dtype::bf16)}, table, executor);
    pack_table(model, {.dtypes = all_layers(Dtype::f32)}, table, executor);  // not one of its files: written again
  }
  CHECK(std::filesystem::file_size(weights) == size);
  // Nor over the table that it was given.
  for (const TableStorage& storage : {TableStorage(Mapped{}), TableStorage(Resident{})}) {
    const Model model = Model::load(Checkpoint::open(temporary / ".", {.table = table}), {.table = storage});
    CHECK(message([&] { pack_table(model, {.dtypes = all_layers(Dtype::bf16)}, table, executor); }) ==
          table.string() + ": cannot write: is one of the files that are read");
  }
}

TEST_CASE("a model whose table is keyed by n-grams gives the same logits however its text is cut") {
  Model model = Model::load(Checkpoint::open(folder), {.table = Streamed{.budget = 4096}});
  const std::vector<float> by_token = logits_of(model, text());
  model.table.set_keys(hashed_ngrams(3, vocab_size));
  const std::vector<float> whole = logits_of(model, text(), 60);
  CHECK_FALSE(same(whole, by_token));
  for (const std::size_t chunk : {1u, 2u, 7u}) CHECK(same(logits_of(model, text(), chunk), whole));
}

TEST_CASE("when a table's file fails, the session says so and goes on once it is there again") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  const std::vector<Token> tokens = text(40);
  const std::vector<float> expected = logits_of(original, tokens);
  const std::vector<float> last(expected.end() - vocab_size, expected.end());
  for (const TableStorage& storage : {TableStorage(Streamed{.budget = 2048}), TableStorage(Mapped{})}) {
    const Model model = packed(original, temporary, "table", {.dtypes = all_layers(Dtype::bf16)}, storage);
    std::ifstream file(temporary / "table", std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    Session session(model, {.context = 64, .chunk = 8, .threads = 2});
    session.read(std::span(tokens).first(10));
    std::filesystem::resize_file(temporary / "table", 4096);
    const std::string error = message([&] { session.read(std::span(tokens).subspan(10)); });
    CHECK(error.find((temporary / "table").string()) != std::string::npos);
    const std::size_t read = session.position();
    CHECK(read >= 10);
    CHECK(read < tokens.size());
    {  // the same file, whole again
      std::fstream again(temporary / "table", std::ios::binary | std::ios::in | std::ios::out);
      again.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    session.read(std::span(tokens).subspan(read));
    CHECK(std::memcmp(session.logits().data(), last.data(), vocab_size * sizeof(float)) == 0);
  }
}

TEST_CASE("packing that is cancelled or cannot be written leaves nothing behind") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  InlineExecutor executor;
  const PackOptions options{.dtypes = all_layers(Dtype::q8_0)};
  CHECK(message([&] {
          pack_table(original, options, temporary / "table", executor,
                     [](const char*, std::uint64_t done, std::uint64_t total) { return done < total; });
        }) == (temporary / "table").string() + ": writing was cancelled");
  CHECK_FALSE(std::filesystem::exists(temporary / "table"));
  CHECK(temporary.names().empty());
  CHECK(message([&] {
          pack_table(original, options, temporary / "no folder/table", executor);
        }).find("cannot write: " + os::text_of(ENOENT)) != std::string::npos);
  pack_table(original, options, temporary / "table", executor);
  const Model again = Model::load(Checkpoint::open(folder, {.table = temporary / "table"}));
  PackOptions folded = options;
  folded.fold = true;
  pack_table(again, folded, temporary / "folded", executor);
  const Model twice = Model::load(Checkpoint::open(folder, {.table = temporary / "folded"}));
  CHECK(message([&] { pack_table(twice, options, temporary / "x", executor); }).find("packed already") !=
        std::string::npos);
}

TEST_CASE("a packed table that is not what it says is refused") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  InlineExecutor executor;
  std::vector<Token> kept = {0, 1, 2, 3, 500};
  auto mixed = all_layers(Dtype::q8_0);
  mixed[3] = Dtype::q4_0;
  pack_table(original, {.dtypes = mixed, .fold = true, .kept = kept, .substitute = 3}, temporary / "good", executor);
  std::ifstream file(temporary / "good", std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(file), {}};
  const auto damaged = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    const std::size_t at = bytes.find(from);
    REQUIRE(at != std::string::npos);
    bytes.replace(at, from.size(), to);
    if (to.size() < from.size()) bytes.insert(bytes.find("}}", at) + 2, from.size() - to.size(), ' ');
    if (to.size() > from.size()) bytes.erase(bytes.find("  ", at), to.size() - from.size());
    std::ofstream(temporary / "bad", std::ios::binary) << bytes;
    return message([&] { Model::load(Checkpoint::open(folder, {.table = temporary / "bad"})); });
  };
  const auto says = [](const std::string& text, const char* part) {
    CAPTURE(text);
    return text.find(part) != std::string::npos;
  };
  CHECK(damaged("ple.table.1", "ple.table.1").empty());
  CHECK(
      says(damaged("ple.table.1", "ple.table.9"), "bad: __metadata__: format is 'ple.table.9', expected ple.table.1"));
  CHECK(says(damaged("\"format\"", "\"fermat\""), "format is missing: is this a table that ple packed?"));
  CHECK(says(damaged("\"layers\":\"8\"", "\"layers\":\"x\""), "layers is 'x', expected a number from 1 to 4096"));
  CHECK(says(damaged("\"layers\":\"8\"", "\"layers\":\"7\""), "types of 8 layers, expected 7"));
  CHECK(says(damaged("\"width\":\"32\"", "\"width\":\"64\""), "ple_table: shape is"));
  CHECK(says(damaged("\"width\":\"32\"", "\"width\":\"31\""), "expected a multiple of 32"));
  CHECK(says(damaged("q8_0,q4_0", "q8_0,q9_0"), "'q9_0' is no type of a PLE row"));
  CHECK(says(damaged("\"folded\":\"true\"", "\"folded\":\"yes!\""), "folded is 'yes!', expected true or false"));
  CHECK(says(damaged("\"substitute\":\"3\"", "\"substitute\":\"9\""), "expected a token of kept_tokens"));
  CHECK(says(damaged("\"scale\":\"1\"", "\"scale\":\"0\""), "scale is '0', expected a number from"));
  CHECK(says(damaged("\"vocab_size\":\"1024\"", "\"vocab_size\":\"1025\""), "vocabulary of 1025, expected 1024"));
  CHECK(says(damaged("\"vocab_size\":\"1024\"", "\"vocab_size\":\"0500\""),
             "kept_tokens: has 500, expected different tokens from 0 to 499"));
  CHECK(says(damaged("pad_identity", "bad_identity"), "pad_identity: no such tensor"));
  CHECK(says(damaged("token_embedding", "tokem_embedding"), "token_embedding: no such tensor"));
  CHECK(says(damaged("\"ple_table\":{\"dtype\":\"U8\"", "\"ple_table\":{\"dtype\":\"I8\""),
             "ple_table: dtype is I8, expected U8"));
  CHECK(says(message([&] { Checkpoint::open(folder, {.table = folder / "model.safetensors"}); }),
             "format is 'pt', expected ple.table.1"));
}

TEST_CASE("a packed table whose shape has more bytes than 64 bits can say is refused") {
  testing::TemporaryFolder temporary;
  SafetensorsHeader header;
  for (const auto& [name, value] : {std::pair<const char*, const char*>{"format", "ple.table.1"},
                                    {"layers", "1"},
                                    {"width", "1"},
                                    {"vocab_size", "1024"},
                                    {"dtypes", "f32"},
                                    {"scale", "1"},
                                    {"folded", "false"}}) {
    header.metadata(name, value);
  }
  // 2^59 values of 32 bits: 2^64 bits, which a product in 64 bits takes for none.
  header.tensor("kept_tokens", "I32", {std::uint64_t{1} << 59}, 0);
  header.tensor("ple_table", "F32", {std::uint64_t{1} << 59, 1}, 0);
  header.tensor("token_embedding", "F32", {1, 1}, 4);
  const std::string bytes = header.bytes() + std::string(4, '\0');
  temporary.write("table", std::as_bytes(std::span(bytes)));
  CHECK(message([&] {
          read_packed_table(temporary / "table");
        }).find("kept_tokens: has 0 bytes, but shape [576460752303423488] of I32 takes 2305843009213693952") !=
        std::string::npos);
}

TEST_CASE("a table packed and read under another locale is the same") {
  testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  const PackOptions options{.dtypes = all_layers(Dtype::f32)};
  const Model plain = packed(original, temporary, "plain", options);
  const testing::CommaLocale locale("de_DE");
  if (!locale.works) {
    MESSAGE("left out: this system has no locale with a comma, and none can be built");
    return;
  }
  CHECK(same(logits_of(packed(original, temporary, "german", options), text()), logits_of(plain, text())));
  const auto bytes = [&](const char* name) {
    std::ifstream file(temporary / name, std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(file), {}};
  };
  CHECK(bytes("german") == bytes("plain"));
  CHECK(std::fabs(plain.table.scale() - std::round(plain.table.scale())) > 0.1f);  // a number with a fraction
}

}  // namespace ple::packed_table_test
