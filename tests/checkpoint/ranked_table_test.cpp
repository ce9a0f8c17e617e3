// SPDX-License-Identifier: Apache-2.0
// Tables whose rows are coefficients of a basis, through files, storages and sessions.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "../allocations.h"
#include "../temporary.h"
#include "ple/convert/pack_table.h"
#include "ple/ple.h"
#include "ple/table/spectrum.h"

namespace ple::ranked_table_test {

namespace {

using Model = Gemma4<Any, Simd>;

const std::filesystem::path folder = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";
constexpr std::size_t layers = 8, p = 32, vocab_size = 1024;

std::vector<Token> text(std::size_t count = 40) {
  std::vector<Token> tokens = {2};
  while (tokens.size() < count) tokens.push_back(static_cast<Token>((tokens.back() * 37 + 11) % 1000));
  return tokens;
}

std::vector<float> logits_of(const Model& model, std::size_t chunk = 7, std::size_t threads = 2,
                             const std::vector<SessionAdapter>& adapters = {}) {
  Session session(model, {.context = 256, .chunk = chunk, .threads = threads, .adapters = adapters});
  std::vector<float> all;
  session.evaluate(
      text(), [&](std::size_t, std::span<const float> logits) { all.insert(all.end(), logits.begin(), logits.end()); });
  return all;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Root mean square of the difference, relative to that of b.
double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0, errors = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    squares += std::pow(static_cast<double>(b[i]), 2);
    errors += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  }
  return std::sqrt(errors / squares);
}

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::vector<std::optional<Dtype>> all_layers(Dtype dtype) { return std::vector<std::optional<Dtype>>(layers, dtype); }

/// Options with the best bases of these ranks.
PackOptions with_ranks(const Model& model, PackOptions options, const std::vector<std::size_t>& ranks) {
  InlineExecutor executor;
  const SecondMoments moments = packed_second_moments(model, options, executor);
  for (std::size_t l = 0; l < layers; ++l) {
    options.bases.push_back(
        ranks[l] == 0 ? nullptr : std::make_shared<const AlignedVector<float>>(spectrum(moments, l).basis(ranks[l])));
  }
  return options;
}

Model packed(const Model& original, const testing::TemporaryFolder& temporary, const PackOptions& options,
             const TableStorage& storage = Mapped{}) {
  InlineExecutor executor;
  pack_table(original, options, temporary / "table", executor);
  return Model::load(Checkpoint::open(folder, {.table = temporary / "table"}), {.table = storage});
}

/// Rows as stored, [tokens, layers * p].
std::vector<float> stored_rows(const Model& model, const std::vector<Token>& tokens) {
  RowSelection selection = model.table.make_selection(tokens.size());
  InlineExecutor executor;
  std::vector<float> out(tokens.size() * layers * p);
  model.table.select(tokens, tokens.size(), 0, selection);
  model.table.gather_stored(executor, selection, 0, 0, layers, {out.data(), tokens.size(), layers * p, layers * p});
  return out;
}

/// Of one depth's values of all rows: root mean square of the difference, relative to that of the original.
double distance(const Model& model, const Model& original, std::size_t depth) {
  std::vector<Token> all(vocab_size);
  std::iota(all.begin(), all.end(), Token{0});
  const std::vector<float> a = stored_rows(model, all), b = stored_rows(original, all);
  std::vector<float> of_a, of_b;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (i / p % layers == depth) of_a.push_back(a[i]), of_b.push_back(b[i]);
  }
  return distance(of_a, of_b);
}

/// The model with rows of rank 3 in every depth.
Model model_of_rank_3() {
  Model model = Model::load(Checkpoint::open(folder));
  std::vector<float> row(layers * p);
  for (RowId id = 0; id < vocab_size; ++id) {
    for (std::size_t l = 0; l < layers; ++l) {
      for (std::size_t i = 0; i < p; ++i) {
        const auto x = static_cast<float>(i + 1), t = static_cast<float>(id * 7 % 101), d = static_cast<float>(l + 1);
        row[l * p + i] = 0.3f * std::sin(t * d) * std::cos(x) + 0.2f * std::cos(2 * t) * std::sin(2 * x * d) +
                         0.1f * std::sin(3 * t + d) * std::cos(x * x);
      }
    }
    model.table.set_row(id, row);
  }
  return model;
}

}  // namespace

TEST_CASE("a table of full rank gives the same values and logits up to rounding") {
  const testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  const Model model =
      packed(original, temporary,
             with_ranks(original, {.dtypes = all_layers(Dtype::f32)}, std::vector<std::size_t>(layers, p)));
  CHECK(distance(stored_rows(model, text()), stored_rows(original, text())) < 1e-6);
  CHECK(distance(logits_of(model), logits_of(original)) < 1e-4);
  CHECK(model.identity() != original.identity());
}

TEST_CASE("a table of rank 3 is kept by three numbers a depth and row, and no fewer") {
  const testing::TemporaryFolder temporary;
  const Model original = model_of_rank_3();
  const auto of_rank = [&](std::size_t rank) {
    return packed(original, temporary,
                  with_ranks(original, {.dtypes = all_layers(Dtype::f32)}, std::vector<std::size_t>(layers, rank)));
  };
  const Model model = of_rank(3);
  CHECK(model.table.layout().row_bytes() == (layers * 3 * 4 + 63) / 64 * 64);
  CHECK(distance(stored_rows(model, text()), stored_rows(original, text())) < 1e-5);
  CHECK(distance(logits_of(model), logits_of(original)) < 1e-4);
  CHECK(distance(stored_rows(of_rank(2), text()), stored_rows(original, text())) > 0.05);
}

TEST_CASE("a rank leaves out the energy of the eigenvalues it discards, whatever type keeps the rest") {
  const testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  InlineExecutor executor;
  const SecondMoments moments = packed_second_moments(original, {}, executor);
  for (const std::size_t rank : {1u, 8u, 16u, 31u}) {
    const std::vector<std::size_t> ranks(layers, rank);
    const Model exact = packed(original, temporary, with_ranks(original, {.dtypes = all_layers(Dtype::f32)}, ranks));
    for (std::size_t l = 0; l < layers; ++l)
      CHECK(distance(exact, original, l) == doctest::Approx(spectrum(moments, l).error(rank)).epsilon(1e-4));
    const Model rounded = packed(original, temporary, with_ranks(original, {.dtypes = all_layers(Dtype::bf16)}, ranks));
    for (std::size_t l = 0; l < layers; ++l)
      CHECK(distance(rounded, original, l) == doctest::Approx(spectrum(moments, l).error(rank)).epsilon(1e-3));
  }
}

TEST_CASE("adapters replace rows of a lower rank, wherever these live") {
  const testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  const PackOptions options =
      with_ranks(original, {.dtypes = all_layers(Dtype::bf16)}, std::vector<std::size_t>(layers, 4));
  const Model mapped = packed(original, temporary, options);
  TrainedRows rows{.ids = {static_cast<RowId>(text()[3])}, .width = layers * p};
  rows.values.assign(rows.width, 0.25f);
  Model replaced = mapped;
  replaced.table.set_row(rows.ids[0], {rows.row(0), rows.width});
  const auto expected = logits_of(replaced);
  CHECK_FALSE(same(expected, logits_of(mapped)));
  const auto adapter = std::make_shared<const Adapter>("memory", std::vector<Adapter::Part>(), std::move(rows));
  for (const TableStorage& storage : {TableStorage(Mapped{}), TableStorage(Streamed{}), TableStorage(Resident{})}) {
    const Model model = Model::load(Checkpoint::open(folder, {.table = temporary / "table"}), {.table = storage});
    CHECK(same(logits_of(model, 7, 2, {{adapter}}), expected));
  }
}

TEST_CASE("rows of a lower rank have the same bits wherever they live, however a text is cut, on any threads") {
  const testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  auto dtypes = all_layers(Dtype::bf16);
  dtypes[1] = std::nullopt;
  dtypes[4] = Dtype::q8_0;
  for (const bool fold : {false, true}) {
    const PackOptions options = with_ranks(original, {.dtypes = dtypes, .fold = fold}, {5, 0, 0, 32, 32, 1, 17, 20});
    const Model mapped = packed(original, temporary, options);
    const std::vector<float> expected = logits_of(mapped);
    CHECK_FALSE(same(expected, logits_of(original)));
    for (const TableStorage& storage :
         {TableStorage(Resident{}), TableStorage(Streamed{}), TableStorage(Streamed{.budget = 0})}) {
      const Model other = Model::load(Checkpoint::open(folder, {.table = temporary / "table"}), {.table = storage});
      for (const std::size_t chunk : {1u, 7u, 40u}) CHECK(same(logits_of(other, chunk, 1 + chunk % 3), expected));
      CHECK(other.identity() == mapped.identity());
    }
    // Replaced rows are whole rows, as stored.
    Model replaced = mapped;
    const std::vector<float> row = stored_rows(original, {30});
    replaced.table.set_row(30, row);
    CHECK(same(stored_rows(replaced, {30}), row));
    CHECK(same(stored_rows(replaced, {31}), stored_rows(mapped, {31})));
    // A packed table is packed only once.
    InlineExecutor executor;
    CHECK(message([&] {
            pack_table(mapped, {.dtypes = all_layers(Dtype::f32)}, temporary / "x", executor);
          }).find("packed already") != std::string::npos);
  }
}

TEST_CASE("a basis fits a cut-down vocabulary: more ranks, less error") {
  const testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  std::vector<Token> kept;
  for (Token token = 0; token < 1000; token += 50) kept.push_back(token);  // 20 rows: of rank 20 at most
  PackOptions options{.dtypes = all_layers(Dtype::f32), .kept = kept};
  const Model model =
      packed(original, temporary, with_ranks(original, options, std::vector<std::size_t>(layers, kept.size())));
  CHECK(model.table.rows() == kept.size());
  CHECK(distance(stored_rows(model, kept), stored_rows(original, kept)) < 1e-5);
}

TEST_CASE("a token is computed without allocating memory") {
  const testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  const Model model =
      packed(original, temporary,
             with_ranks(original, {.dtypes = all_layers(Dtype::bf16)}, std::vector<std::size_t>(layers, 8)));
  InlineExecutor executor;
  Session session(model, {.context = 64, .executor = &executor});
  session.read(std::vector<Token>{2, 3, 4});
  const auto before = testing::allocations();
  session.read(std::vector<Token>{5});
  CHECK(testing::allocations() - before <= 1);  // the vector above
}

TEST_CASE("a file with ranks that is not what it says is refused") {
  const testing::TemporaryFolder temporary;
  const Model original = Model::load(Checkpoint::open(folder));
  auto dtypes = all_layers(Dtype::bf16);
  dtypes[3] = std::nullopt;
  dtypes[4] = Dtype::q8_0;
  packed(original, temporary, with_ranks(original, {.dtypes = dtypes}, {16, 16, 0, 0, 32, 16, 16, 16}));
  std::ifstream file(temporary / "table", std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(file), {}};
  const auto damaged = [&](const std::string& from, const std::string& to) {
    std::string bytes = good;
    const std::size_t at = bytes.find(from);
    REQUIRE(at != std::string::npos);
    REQUIRE(from.size() == to.size());
    bytes.replace(at, from.size(), to);
    std::ofstream(temporary / "bad", std::ios::binary) << bytes;
    return message([&] { Model::load(Checkpoint::open(folder, {.table = temporary / "bad"})); });
  };
  const auto says = [](const std::string& text, const char* part) {
    CAPTURE(text);
    return text.find(part) != std::string::npos;
  };
  const std::string ranks = "16,16,full,full,32,16,16,16";
  CHECK(damaged(ranks, ranks).empty());
  CHECK(says(damaged("ple.table.2", "ple.table.3"), "is 'ple.table.3', expected ple.table.1 or ple.table.2"));
  CHECK(says(damaged("ple.table.2", "ple.table.1"), "bad: ple_table: shape is"));
  CHECK(says(damaged("\"ranks\"", "\"rongs\""), "bad: __metadata__: ranks is missing"));
  CHECK(says(damaged(ranks, "16,16,full,full,32,16,1616;"),
             "bad: __metadata__: ranks: '1616;' is no rank, expected 1 to 32 or full"));
  CHECK(says(damaged(ranks, "16,16,full,full,32,16,16,33"), "'33' is no rank, expected 1 to 32 or full"));
  CHECK(says(damaged(ranks, "16,16,full,full,32,16,16,00"), "'00' is no rank"));
  CHECK(says(damaged(ranks, "16,16,full,full,32,16,16016"), "'16016' is no rank"));
  CHECK(says(damaged(ranks, "16,16,full,0016,32,16,16,16"),
             "bad: __metadata__: a PLE row: layer 3 is pruned, but has the rank 16"));
  CHECK(says(damaged(ranks, "16,16,full,full,16,16,16,16"),
             "bad: __metadata__: a PLE row in q8_0: layer 4: rank 16, expected a multiple of 32"));
  CHECK(says(damaged(ranks, "16,16,full,full,32,16,16,17"), "bad: bases: shape is [112, 32], expected [113, 32]"));
  CHECK(says(damaged(ranks, "16,16,full,full,32,16,full0"), "'full0' is no rank"));
  CHECK(says(damaged(ranks, "16,32,full,full,32,32,32,32"),
             "bad: ple_table: shape is [1024, 320], expected [1024, 448]"));
  CHECK(says(damaged("\"bases\"", "\"basis\""), "bases: no such tensor"));
  CHECK(says(damaged("\"bases\":{\"dtype\":\"F32\"", "\"bases\":{\"dtype\":\"I32\""),
             "bases: dtype is I32, expected F32"));
  {
    std::string bytes = good;
    const float nan = std::nanf("");
    std::memcpy(bytes.data() + bytes.size() - 4, &nan, 4);
    std::ofstream(temporary / "bad", std::ios::binary) << bytes;
    CHECK(says(message([&] { Model::load(Checkpoint::open(folder, {.table = temporary / "bad"})); }),
               "bad: bases: layer 7: value 31 of row 15 is nan, expected a finite number"));
  }
  // Bases that a program gives.
  InlineExecutor executor;
  PackOptions options{.dtypes = all_layers(Dtype::f32), .bases = RowBases(3)};
  const auto refused = [&] { return message([&] { pack_table(original, options, temporary / "x", executor); }); };
  CHECK(refused() == "pack_table: bases of 3 layers, expected 8");
  options.bases.resize(layers);
  options.bases[2] = std::make_shared<const AlignedVector<float>>(33);
  CHECK(refused() == "pack_table: layer 2: a basis of 33 values, expected a multiple of 32");
  TableSource source = read_packed_table(temporary / "table");
  source.bases[5] = {};
  PleTable<Any, Simd> table(vocab_size, layers, p);
  CHECK(says(message([&] { table.load(source, Mapped{}); }),
             "ple_table: layer 5: its basis has the shape [], expected [16, 32]"));
}

}  // namespace ple::ranked_table_test
