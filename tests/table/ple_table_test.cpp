// SPDX-License-Identifier: Apache-2.0
#include "ple/table/ple_table.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "../temporary.h"
#include "ple/table/encode_row.h"
#include "ple/table/streamed.h"

namespace ple::ple_table_test {

namespace {

constexpr std::size_t vocabulary = 300, layers = 5, p = 64;

/// A chunk's worth of rows.
struct Output {
  Rows rows;
  AlignedVector<float> memory;
  Output(std::size_t count, std::size_t cols) {
    const RowsRequest requests[] = {{&rows, count, cols}};
    memory = allocate_rows(requests);
  }
};

std::vector<float> random_row(unsigned seed, std::size_t width = p) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values(layers * width);
  for (float& value : values) value = normal(generator);
  return values;
}

/// A file with a table in this layout, and the table's source.
TableSource source_in(const testing::TemporaryFolder& folder, const RowLayout& layout, std::size_t before) {
  std::vector<std::byte> bytes(before + vocabulary * layout.row_bytes());
  AlignedVector<std::byte> row(layout.row_bytes());
  for (std::size_t t = 0; t < vocabulary; ++t) {
    encode_row(layout, random_row(static_cast<unsigned>(t), layout.width()).data(), row.data());
    std::copy(row.begin(), row.end(), bytes.begin() + static_cast<std::ptrdiff_t>(before + t * row.size()));
  }
  const auto map = MappedFile::open(folder.write("table.bin", bytes));
  TableSource source;
  source.tensor = {"table.bin",           "ple_table", Dtype::f32, {},    map->bytes().data() + before,
                   bytes.size() - before, map,         map,        before};
  source.layout = layout;
  source.rows = vocabulary;
  source.scale = 3;
  return source;
}

template <class Table>
Output gathered(const Table& table, const std::vector<Token>& tokens, std::size_t first, std::size_t count) {
  Output out(tokens.size(), count * table.layout().width());
  InlineExecutor executor;
  RowSelection selection = table.make_selection(tokens.size());
  table.select(tokens, tokens.size(), 0, selection);
  table.request(selection);
  table.gather(executor, selection, 0, first, count, out.rows);
  return out;
}

bool same(const Output& a, const Output& b) {
  for (std::size_t t = 0; t < a.rows.rows; ++t) {
    if (std::memcmp(a.rows.row(t), b.rows.row(t), a.rows.cols * sizeof(float)) != 0) return false;
  }
  return true;
}

std::vector<Token> some_tokens(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(generator() % vocabulary);
  return tokens;
}

}  // namespace

TEST_CASE("a gather takes the wanted layers' columns of each token's row, times sqrt(p) rounded to the table's dtype") {
  constexpr std::size_t width = 12;
  PleTable<bf16> table(50, 4, width);
  bf16* values = table.allocate();
  for (std::size_t i = 0; i < 50 * 4 * width; ++i) values[i] = to_bf16(static_cast<float>(i % 251) / 7);
  const float scale = to_f32(to_bf16(std::sqrt(12.0f)));
  CHECK(scale != std::sqrt(12.0f));

  const std::vector<Token> tokens = {49, 0, 7, 7};
  InlineExecutor executor;
  Output out(tokens.size(), 2 * width);
  RowSelection selection = table.make_selection(tokens.size());
  table.select(tokens, tokens.size(), 0, selection);
  table.gather(executor, selection, 0, 1, 2, out.rows);  // layers 1 and 2
  bool good = true;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    for (std::size_t i = 0; i < 2 * width; ++i) {
      good &= out.rows.row(t)[i] == to_f32(values[static_cast<std::size_t>(tokens[t]) * 4 * width + width + i]) * scale;
    }
  }
  CHECK(good);
}

TEST_CASE("every storage gives the same bits, for every dtype, a mix of them and pruned layers") {
  std::vector<std::vector<std::optional<Dtype>>> all;
  for (const Dtype dtype : all_dtypes) {
    if (is_encodable(dtype)) all.emplace_back(layers, dtype);
  }
  all.push_back({Dtype::q4_0, std::nullopt, Dtype::f32, Dtype::q8_0, Dtype::bf16});
  all.push_back({Dtype::q6_k, Dtype::q4_1, std::nullopt, Dtype::q4_k, Dtype::q5_1});
  all.push_back({std::nullopt, std::nullopt, std::nullopt, Dtype::f16, std::nullopt});
  const std::vector<Token> tokens = some_tokens(100, 1);
  for (const auto& dtypes : all) {
    std::size_t width = p;
    for (const auto& dtype : dtypes) width = std::max(width, dtype ? values_per_block(*dtype) : 1);
    const RowLayout layout(dtypes, width);
    CAPTURE(layout.text());
    testing::TemporaryFolder folder;
    const TableSource source = source_in(folder, layout, 64);
    PleTable<Any, Scalar> resident(vocabulary, layers, width);
    resident.load(source, Resident{});
    const Output expected = gathered(resident, tokens, 0, layers);

    // Against the definition: encoded and decoded value by value, times the scale.
    bool good = true;
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      const std::vector<float> values = random_row(static_cast<unsigned>(tokens[t]), width);
      for (std::size_t l = 0; l < layers; ++l) {
        if (!dtypes[l]) continue;
        with_dtype(*dtypes[l], [&]<class T>() {
          if constexpr (EncodableType<T>) {
            constexpr std::size_t n = DtypeTraits<T>::values_per_block;
            for (std::size_t i = 0; i < width; i += n) {
              T block;
              float decoded[n];
              DtypeTraits<T>::encode(values.data() + l * width + i, block);
              DtypeTraits<T>::decode(block, decoded);
              for (std::size_t k = 0; k < n; ++k) good &= expected.rows.row(t)[l * width + i + k] == decoded[k] * 3;
            }
          }
        });
      }
    }
    CHECK(good);

    std::vector<TableStorage> storages = {Mapped{}, Mapped{.budget = 300'000}};
    for (const std::size_t budget : {std::size_t{0}, std::size_t{20'000}, std::size_t{64} << 20}) {
      storages.push_back(Streamed{.budget = budget, .direct = false, .engine = ReadEngine::threads});
      storages.push_back(Streamed{.budget = budget});
    }
    for (const TableStorage& storage : storages) {
      PleTable<Any, Simd> table(vocabulary, layers, width);
      table.load(source, storage);
      for (int again = 0; again < 2; ++again) CHECK(same(gathered(table, tokens, 0, layers), expected));
      const Output middle = gathered(table, tokens, 2, 2);
      bool equal = true;
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        equal &= std::memcmp(middle.rows.row(t), expected.rows.row(t) + 2 * width, 2 * width * sizeof(float)) == 0;
      }
      CHECK(equal);
      CHECK(table.counters().rows_asked > 0);
    }
  }
}

TEST_CASE("rows that do not lie aligned in their file are used all the same") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::q8_0}) {
    testing::TemporaryFolder folder;
    const RowLayout layout(layers, p, dtype);
    const std::vector<Token> tokens = some_tokens(40, 2);
    PleTable<Any, Scalar> aligned(vocabulary, layers, p);
    aligned.load(source_in(folder, layout, 64), Resident{});
    const TableSource source = source_in(folder, layout, 33);
    for (const TableStorage& storage : {TableStorage(Resident{}), TableStorage(Mapped{}), TableStorage(Streamed{})}) {
      PleTable<Any, Scalar> table(vocabulary, layers, p);
      table.load(source, storage);
      CHECK(same(gathered(table, tokens, 0, layers), gathered(aligned, tokens, 0, layers)));
    }
  }
}

TEST_CASE("a program's own storage is a type that opens the rows of a table in a file") {
  struct Counting {
    std::size_t* opened;
    std::shared_ptr<RowStore> open(const TableSource& source) const {
      ++*opened;
      return Mapped{}.open(source);
    }
  };
  testing::TemporaryFolder folder;
  const TableSource source = source_in(folder, RowLayout(layers, p, Dtype::f16), 0);
  const std::vector<Token> tokens = some_tokens(40, 2);
  std::size_t opened = 0;
  PleTable<Any, Scalar> mine(vocabulary, layers, p), resident(vocabulary, layers, p);
  const TableStorage storage = Counting{&opened};
  CHECK(!storage.prunes());
  mine.load(source, storage);
  resident.load(source, Resident{});
  CHECK(opened == 1);
  CHECK(same(gathered(mine, tokens, 0, layers), gathered(resident, tokens, 0, layers)));
  PleTable<f16, Scalar> of_one_type(vocabulary, layers, p);
  of_one_type.load(source, Streamed{});
  CHECK(same(gathered(of_one_type, tokens, 0, layers), gathered(resident, tokens, 0, layers)));
}

TEST_CASE("a table of another shape or type is refused") {
  testing::TemporaryFolder folder;
  const TableSource source = source_in(folder, RowLayout(layers, p, Dtype::bf16), 0);
  PleTable<Any, Scalar> more_layers(vocabulary, layers + 1, p), more_rows(vocabulary + 1, layers, p);
  PleTable<f16, Scalar> other_type(vocabulary, layers, p);
  CHECK_THROWS_WITH(more_layers.load(source, Mapped{}),
                    "table.bin: ple_table: rows of 5 layers of 64 values, expected 6 of 64: was it made for another "
                    "model?");
  CHECK_THROWS_WITH(more_rows.load(source, Mapped{}), "table.bin: ple_table: 300 rows, expected 301");
  CHECK_THROWS_WITH(other_type.load(source, Mapped{}), "table.bin: ple_table: dtype is bf16, expected f16");
}

TEST_CASE("rows can be replaced and added while the program runs") {
  testing::TemporaryFolder folder;
  PleTable<Any, Simd> table(vocabulary, layers, p);
  table.load(source_in(folder, RowLayout(layers, p, Dtype::f16), 0), Streamed{.budget = 10'000});
  const std::vector<Token> tokens = {4, 5, 4, 6};
  const Output before = gathered(table, tokens, 0, layers);
  const std::vector<float> taught = random_row(12345);
  table.set_row(4, taught);
  const Output after = gathered(table, tokens, 1, 2);
  bool good = true;
  for (std::size_t i = 0; i < 2 * p; ++i) {
    good &= after.rows.row(0)[i] == taught[p + i] * 3 && after.rows.row(2)[i] == taught[p + i] * 3;
    good &= after.rows.row(1)[i] == before.rows.row(1)[p + i] && after.rows.row(3)[i] == before.rows.row(3)[p + i];
  }
  CHECK(good);
  table.reset_row(4);
  CHECK(same(gathered(table, tokens, 0, layers), before));

  const std::vector<Token> past = {static_cast<Token>(vocabulary)};
  CHECK(same(gathered(table, past, 0, layers), gathered(table, {0}, 0, layers)));  // pad's
  table.set_row(vocabulary, taught);
  CHECK(gathered(table, past, 0, layers).rows.row(0)[7] == taught[7] * 3);
  CHECK_THROWS_WITH(table.set_row(1, std::span(taught).first(9)), "PleTable::set_row: 9 values, expected 320");
}

TEST_CASE("a table keyed by hashed 2- and 3-grams gives the sum of the n-grams' rows") {
  testing::TemporaryFolder folder;
  for (const std::size_t budget : {std::size_t{0}, std::size_t{5000}, std::size_t{1} << 20}) {
    PleTable<Any, Simd> table(vocabulary, layers, p);
    table.load(source_in(folder, RowLayout(layers, p, Dtype::f32), 0), Streamed{.budget = budget});
    table.set_keys(hashed_ngrams(3, vocabulary));
    REQUIRE(table.history() == 2);
    const std::vector<Token> text = some_tokens(50, 9);
    const Output whole = gathered(table, text, 0, layers);

    RowSelection selection = table.make_selection(1);
    InlineExecutor executor;
    bool good = true;
    for (std::size_t i = 0; i < text.size(); ++i) {
      // By definition: the ids of the n-grams that end here, 2-grams in the table's first half, 3-grams in its second.
      RowId ids[2];
      const std::size_t begin = i - std::min<std::size_t>(i, 2);
      hashed_ngrams(3, vocabulary).ids(std::span(text).subspan(begin, i + 1 - begin), ids);
      good &= ids[0] < vocabulary / 2 && ids[1] >= vocabulary / 2 && ids[1] < vocabulary;
      const std::vector<float> two = random_row(static_cast<unsigned>(ids[0])),
                               three = random_row(static_cast<unsigned>(ids[1]));
      for (std::size_t k = 0; k < layers * p; ++k) good &= whole.rows.row(i)[k] == (two[k] + three[k]) * 3;
      // Token by token, with the two tokens before it as history.
      Output one(1, layers * p);
      table.select(std::span(text).subspan(begin, i + 1 - begin), 1, 0, selection);
      table.gather(executor, selection, 0, 0, layers, one.rows);
      good &= std::memcmp(one.rows.row(0), whole.rows.row(i), layers * p * sizeof(float)) == 0;
    }
    CHECK(good);
  }
}

TEST_CASE("keys that cannot be are refused, and a selection that was made for others") {
  testing::TemporaryFolder folder;
  PleTable<Any, Simd> table(vocabulary, layers, p);
  table.load(source_in(folder, RowLayout(layers, p, Dtype::f32), 0), Resident{});
  CHECK_THROWS_WITH_AS(table.set_keys({.per_token = 0}),
                       "PleTable::set_keys: 0 rows a token, expected 1 without RowKeys::ids", Error);
  CHECK_THROWS_WITH_AS(table.set_keys({.per_token = 2}),
                       "PleTable::set_keys: 2 rows a token, expected 1 without RowKeys::ids", Error);
  CHECK_THROWS_WITH_AS(hashed_ngrams(1, 100),
                       "hashed_ngrams: n-grams of 2 to 1 tokens in 100 rows, expected 2 or more tokens and a row for "
                       "each length",
                       Error);
  CHECK_THROWS_AS(hashed_ngrams(6, 4), Error);
  InlineExecutor executor;
  const std::vector<Token> text = some_tokens(3, 9);
  RowSelection selection = table.make_selection(3);
  Output out(3, layers * p);
  table.select(text, 3, 0, selection);
  table.set_keys(hashed_ngrams(6, vocabulary));
  CHECK_THROWS_WITH_AS(table.gather(executor, selection, 0, 0, layers, out.rows),
                       "PleTable: a selection of 3 rows with room for 3, expected 15: was it made before set_keys?",
                       Error);
  table.select(text, 3, 0, selection);
  CHECK_THROWS_WITH_AS(table.gather(executor, selection, 0, 0, layers, out.rows),
                       "PleTable: a selection of 15 rows with room for 3, expected 15: was it made before set_keys?",
                       Error);
}

TEST_CASE("types of layers are read and written as text") {
  const auto parse = [](const char* text) { return RowLayout(RowLayout::parse(text, 3, "here"), 64); };
  CHECK(parse("bf16,none,q4_0").text() == "bf16,none,q4_0");
  CHECK(parse("q8_0").text() == "q8_0,q8_0,q8_0");
  CHECK(parse("bf16,none,q4_0").row_bytes() == 192);  // 128 + 36, up to a cache line
  CHECK_THROWS_WITH(parse("bf16,q4_0"), "here: types of 2 layers, expected 3");
  CHECK_THROWS_WITH(parse("bf16,,q4_0"),
                    ("here: '' is no type of a PLE row, expected " + names_of_dtypes() + " or none").c_str());
  CHECK_THROWS_WITH(RowLayout(2, 40, Dtype::q8_0), "a PLE row in q8_0: 40 values per layer, expected a multiple of 32");
}

TEST_CASE("a type that can be read but not written is no type to store rows in") {
  const RowLayout layout(RowLayout::parse("f32,q3_k", 2, "here"), 256);
  const std::vector<float> values(2 * 256, 1.0f);
  std::vector<std::byte> row(layout.row_bytes(), std::byte{7});
  const auto code = [&] {
    try {
      encode_row(layout, values.data(), row.data());
    } catch (const Error& error) {
      CHECK(error.what() ==
            "layer 1 of a PLE row: q3_k can be read but not written, expected " + names_of_dtypes(true));
      return std::optional(error.code());
    }
    return std::optional<ErrorCode>();
  };
  CHECK(code() == ErrorCode::not_supported);
  CHECK(row == std::vector<std::byte>(row.size(), std::byte{7}));
}

namespace {

template <StoredType T>
void check_rows_of() {
  constexpr std::size_t rows = 20, n = DtypeTraits<T>::values_per_block;
  CAPTURE(DtypeTraits<T>::name);
  testing::TemporaryFolder folder;
  const RowLayout layout(layers, 256, DtypeTraits<T>::id);
  // Blocks of any bytes without their bit 6: it is the top bit of a scale's exponent, wherever a type has it.
  std::vector<std::byte> bytes(rows * layout.row_bytes());
  std::mt19937 generator(3);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(generator() & 0xbf);
  const auto map = MappedFile::open(folder.write("table.bin", bytes));
  TableSource source;
  source.tensor = {"table.bin", "ple_table", DtypeTraits<T>::id, {}, map->bytes().data(), bytes.size(), map, map, 0};
  source.layout = layout;
  source.rows = rows;
  const auto check = [&]<Backend B>(const TableStorage& storage) {
    PleTable<Any, B> table(rows, layers, 256);
    table.load(source, storage);
    const Output out = gathered(table, {7, 19, 0}, 1, 2);
    bool good = true;
    for (const auto& [t, token] : {std::pair{0u, 7u}, std::pair{1u, 19u}, std::pair{2u, 0u}}) {
      for (std::size_t l = 0; l < 2; ++l) {
        T blocks[256 / n];
        float expected[256];
        std::memcpy(blocks, bytes.data() + token * layout.row_bytes() + layout.slice(l + 1).offset, sizeof blocks);
        for (std::size_t i = 0; i < 256 / n; ++i) DtypeTraits<T>::decode(blocks[i], expected + i * n);
        good &= std::memcmp(out.rows.row(t) + l * 256, expected, sizeof expected) == 0;
      }
    }
    CHECK(good);
  };
  for (const TableStorage& storage : {TableStorage(Resident{}), TableStorage(Mapped{}), TableStorage(Streamed{})}) {
    check.template operator()<Simd>(storage);
  }
  check.template operator()<Scalar>(Mapped{});
}

}  // namespace

TEST_CASE("rows in a type that can only be read are read") {
  std::size_t types = 0;
  for (const Dtype dtype : all_dtypes) {
    if (is_encodable(dtype)) continue;
    with_dtype(dtype, []<class T>() { check_rows_of<T>(); });
    ++types;
  }
  CHECK(types == 15);
}

}  // namespace ple::ple_table_test
