// SPDX-License-Identifier: Apache-2.0
#include "ple/table/table_scan.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include "../temporary.h"
#include "ple/core/thread_pool.h"
#include "ple/table/encode_row.h"

namespace ple::table_scan_test {

namespace {

// 8 MiB hold 3 pieces and a bit of these rows.
constexpr std::size_t layers = 3, p = 6144, rows = 380;

float value(std::size_t row, std::size_t i) { return static_cast<float>((row * 31 + i * 7) % 251); }  // exact in bf16

TableSource source_in(const testing::TemporaryFolder& folder, const RowLayout& layout, std::size_t before,
                      bool mapped) {
  std::vector<std::byte> bytes(before + rows * layout.row_bytes());
  std::vector<float> values(layers * p);
  AlignedVector<std::byte> row(layout.row_bytes());
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = value(r, i);
    encode_row(layout, values.data(), row.data());
    std::copy(row.begin(), row.end(), bytes.begin() + static_cast<std::ptrdiff_t>(before + r * row.size()));
  }
  const auto map = MappedFile::open(folder.write("table.bin", bytes));
  TableSource source;
  source.tensor.file = "table.bin";
  source.tensor.name = "ple_table";
  source.tensor.data = map->bytes().data() + before;
  source.tensor.bytes = bytes.size() - before;
  source.tensor.owner = map;
  if (mapped) source.tensor.map = map;
  source.tensor.offset = before;
  source.layout = layout;
  source.rows = rows;
  source.scale = 5;
  return source;
}

}  // namespace

TEST_CASE("a scan shows every row once, in order, in pieces, unscaled") {
  testing::TemporaryFolder folder;
  ThreadPool pool(2);
  for (const RowLayout& layout : {RowLayout(layers, p, Dtype::bf16), RowLayout({Dtype::f32, {}, Dtype::bf16}, p)}) {
    for (const bool mapped : {true, false}) {
      std::size_t next = 0, pieces = 0, wrong = 0;
      scan_table<Simd>(source_in(folder, layout, 33, mapped), pool, [&](std::uint64_t first, Rows values) {
        CHECK(first == next);
        REQUIRE(values.cols == layers * p);
        for (std::size_t r = 0; r < values.rows; ++r) {
          for (std::size_t i = 0; i < values.cols; ++i) {
            wrong += values.row(r)[i] != (layout.has(i / p) ? value(next + r, i) : 0);
          }
        }
        next += values.rows;
        ++pieces;
      });
      CHECK(next == rows);
      CHECK(pieces == 4);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("a scan passes on errors, of its caller and of the file") {
  testing::TemporaryFolder folder;
  InlineExecutor executor;
  const TableSource source = source_in(folder, RowLayout(layers, p, Dtype::bf16), 0, true);
  std::size_t calls = 0;
  const auto stop = [&](std::uint64_t, Rows) {
    ++calls;
    throw std::runtime_error("enough");
  };
  CHECK_THROWS_WITH(scan_table<Simd>(source, executor, stop), "enough");
  CHECK(calls == 1);
  const std::string path = (folder / "table.bin").string();
  std::filesystem::resize_file(path, 200 * source.layout.row_bytes());
  calls = 0;
  const std::string end = std::to_string(200 * source.layout.row_bytes()),
                    expected = std::to_string(226 * source.layout.row_bytes());  // 2 pieces of 113 rows
  CHECK_THROWS_WITH(scan_table<Simd>(source, executor, [&](std::uint64_t, Rows) { ++calls; }),
                    (path + ": ple_table: the file ends at byte " + end + ", expected " + expected +
                     ": did it shrink while it was open?")
                        .c_str());
  CHECK(calls == 1);
}

}  // namespace ple::table_scan_test
