// SPDX-License-Identifier: Apache-2.0
// Reads a whole table once, in file order: as fast as the file can be read.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/executor.h"
#include "ple/core/fork_guard.h"
#include "ple/core/memory.h"
#include "ple/table/ple_table.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// Calls a function on another thread. Without one, because none starts or fork() made this process, wait() calls it.
class Meanwhile {
 public:
  explicit Meanwhile(std::function<void()> f) : f_(std::move(f)) {
    try {
      running_ = std::make_unique<std::future<void>>(std::async(std::launch::async, f_));
    } catch (const std::system_error&) {
    }
  }
  Meanwhile(const Meanwhile&) = delete;
  Meanwhile& operator=(const Meanwhile&) = delete;
  ~Meanwhile() {  // a future whose thread is missing would wait for ever
    if (!guard_.same_process()) static_cast<void>(running_.release());
  }

  /// Returns once the function has. Errors: what it throws.
  void wait() {
    if (running_ && guard_.same_process()) return running_->get();
    f_();
  }

 private:
  std::function<void()> f_;
  ForkGuard guard_;
  std::unique_ptr<std::future<void>> running_;
};

}  // namespace detail

/// Calls f(first, rows) for each piece of the table: rows first, first + 1, ... as [rows, layers * p], in f32 as
/// stored, not scaled; 0 where a layer is pruned. Reads the next piece meanwhile. Takes about 20 MiB, whatever the
/// table's size. Errors: ErrorCode::file; what f throws.
template <Backend B, class F>
void scan_table(const TableSource& source, Executor& executor, F&& f) {
  constexpr std::size_t piece_bytes = std::size_t{8} << 20;  // of f32
  const RowLayout& layout = source.layout;
  const std::size_t layers = layout.layers(), cols = layers * layout.width(), row_bytes = layout.row_bytes();
  if (source.rows == 0 || cols == 0) return;
  const auto most = static_cast<std::size_t>(
      std::clamp<std::uint64_t>(piece_bytes / (cols * sizeof(float)), std::uint64_t{1}, source.rows));

  const bool in_file = source.tensor.map != nullptr;
  AlignedVector<std::byte> pieces[2];
  for (auto& piece : pieces) piece.resize(in_file ? most * row_bytes : 0);
  const auto read = [&](std::uint64_t first, std::size_t piece) {
    const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(most, source.rows - first));
    source.tensor.map->file()->read_all(source.tensor.offset + first * row_bytes,
                                        std::span(pieces[piece]).first(count * row_bytes), source.tensor.name);
  };
  std::vector<Token> every(most);
  std::iota(every.begin(), every.end(), Token{0});
  Rows values;
  const RowsRequest requests[] = {{&values, most, cols}};
  const AlignedVector<float> memory = allocate_rows(requests);

  std::optional<detail::Meanwhile> reading;  // waits for its thread; destroyed before what it reads into
  if (in_file) read(0, 0);
  std::size_t turn = 0;
  for (std::uint64_t first = 0; first < source.rows; first += most, turn = 1 - turn) {
    if (reading) reading->wait();
    reading.reset();
    if (in_file && source.rows - first > most)
      reading.emplace([&read, next = first + most, other = 1 - turn] { read(next, other); });
    TableSource piece;
    piece.tensor = source.tensor;
    piece.tensor.map = nullptr;
    piece.tensor.data = in_file ? pieces[turn].data() : source.tensor.data + first * row_bytes;
    piece.layout = layout;
    piece.bases = source.bases;
    piece.rows = std::min<std::uint64_t>(most, source.rows - first);
    const Rows out = values.slice(0, static_cast<std::size_t>(piece.rows));
    PleTable<Any, B> table(out.rows, layers, layout.width());
    table.load(piece, Resident{});
    RowSelection selection = table.make_selection(out.rows);
    table.select(std::span(every).first(out.rows), out.rows, 0, selection);
    table.gather_stored(executor, selection, 0, 0, layers, out);
    f(first, out);
  }
}

}  // namespace ple::inline PLE_ABI
