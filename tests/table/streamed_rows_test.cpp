// SPDX-License-Identifier: Apache-2.0
#include "ple/table/streamed_rows.h"
#include "ple/core/os.h"

#include <doctest/doctest.h>
#include <cerrno>

#include <atomic>
#include <deque>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../child.h"
#include "../temporary.h"
#include "ple/core/memory_use.h"

namespace ple::streamed_rows_test {

namespace {

constexpr std::size_t row_bytes = 200, rows = 5000, offset = 24;

/// What row `id` holds at byte i.
std::byte expected(RowId id, std::size_t i) { return static_cast<std::byte>(id * 31 + i * 7 + id / 256); }

std::vector<std::byte> file_bytes(std::size_t count = rows) {
  std::vector<std::byte> bytes(offset + count * row_bytes);
  for (RowId id = 0; id < count; ++id) {
    for (std::size_t i = 0; i < row_bytes; ++i) bytes[offset + id * row_bytes + i] = expected(id, i);
  }
  return bytes;
}

bool is_row(const std::byte* row, RowId id) {
  for (std::size_t i = 0; i < row_bytes; ++i) {
    if (row[i] != expected(id, i)) return false;
  }
  return true;
}

/// Holds the rows, checks them, releases them.
bool right(RowStore& store, const std::vector<RowId>& ids) {
  std::vector<const std::byte*> found(ids.size());
  store.pin(ids, found);
  bool good = true;
  for (std::size_t i = 0; i < ids.size(); ++i) good &= is_row(found[i], ids[i]);
  store.unpin(ids);
  return good;
}

std::string error_of(RowStore& store, const std::vector<RowId>& ids) {
  try {
    right(store, ids);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::file);
    return error.what();
  }
  return "";
}

std::unique_ptr<StreamedRows> streamed(const std::filesystem::path& path, std::size_t budget,
                                       ReadEngine engine = ReadEngine::threads, bool direct = false) {
  auto file = InputFile::open(path);
  if (direct) file = file->direct();
  return std::make_unique<StreamedRows>(RowFile{file->name(), offset, row_bytes, direct}, make_read_queue(file, engine),
                                        budget);
}

/// The engines and ways of reading that this machine has.
template <class F>
void for_each_engine(const std::filesystem::path& path, F&& f) {
  for (const ReadEngine engine : {ReadEngine::threads, ReadEngine::io_uring}) {
    for (const bool direct : {false, true}) {
      CAPTURE(static_cast<int>(engine));
      CAPTURE(direct);
      std::unique_ptr<StreamedRows> probe;
      try {
        probe = streamed(path, 0, engine, direct);
      } catch (const Error& error) {
        REQUIRE(error.code() == ErrorCode::not_supported);  // a container may forbid io_uring, a tmpfs direct reads
        MESSAGE("left out: " << error.what());
        continue;
      }
      f(engine, direct);
    }
  }
}

/// Answers reads from memory, as a test wants: `fault` may change a result.
class FaultyQueue final : public ReadQueue {
 public:
  FaultyQueue(std::vector<std::byte> bytes, std::function<ReadResult(const ReadRequest&, ReadResult)> fault)
      : bytes_(std::move(bytes)), fault_(std::move(fault)) {}
  const char* name() const override { return "test"; }
  std::size_t depth() const override { return 16; }
  void submit(std::span<const ReadRequest> requests) override {
    const std::lock_guard lock(mutex_);
    for (const ReadRequest& request : requests) {
      ++submitted;
      ReadResult result{std::min(request.into.size(), bytes_.size() - std::min(bytes_.size(), request.offset)), 0};
      result = fault_(request, result);
      std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(request.offset), result.bytes, request.into.begin());
      done_.push_back({request.tag, result});
    }
  }
  std::size_t wait(std::span<ReadDone> done) override {
    const std::lock_guard lock(mutex_);
    REQUIRE(!done_.empty());
    done[0] = done_.front();
    done_.pop_front();
    return 1;
  }

  std::atomic<int> submitted{0};

 private:
  std::mutex mutex_;
  std::vector<std::byte> bytes_;
  std::function<ReadResult(const ReadRequest&, ReadResult)> fault_;
  std::deque<ReadDone> done_;
};

StreamedRows faulty(std::size_t budget, std::function<ReadResult(const ReadRequest&, ReadResult)> fault) {
  return {RowFile{"faulty.bin", offset, row_bytes, false},
          std::make_unique<FaultyQueue>(file_bytes(50), std::move(fault)), budget};
}

}  // namespace

TEST_CASE("every engine reads the rows that were asked for, whatever the budget") {
  testing::TemporaryFolder folder;
  const auto path = folder.write("rows.bin", file_bytes());
  for_each_engine(path, [&](ReadEngine engine, bool direct) {
    for (const std::size_t budget :
         {std::size_t{0}, std::size_t{3000}, std::size_t{100'000}, std::size_t{10'000'000}}) {
      CAPTURE(budget);
      const auto store = streamed(path, budget, engine, direct);
      std::mt19937 generator(1);
      bool good = right(*store, {0, 1, 2, rows - 1});
      for (int round = 0; round < 300; ++round) {
        std::vector<RowId> ids;
        for (std::size_t i = 0; i < 1 + generator() % std::min<std::size_t>(60, store->most_at_once()); ++i) {
          ids.push_back(generator() % (round % 2 ? 100 : rows));
        }
        std::sort(ids.begin(), ids.end());
        ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
        if (round % 3 == 0) store->request(ids);
        good &= right(*store, ids);
      }
      CHECK(good);
      const TableCounters counters = store->counters();
      CHECK(counters.hits < counters.rows_asked);
      if (budget >= 10'000'000) CHECK(counters.hits > counters.rows_asked / 4);
      CHECK(counters.bytes_read >= (counters.rows_asked - counters.hits) * row_bytes);
    }
  });
}

TEST_CASE("the row used longest ago makes room") {
  testing::TemporaryFolder folder;
  const auto path = folder.write("rows.bin", file_bytes());
  const auto store = streamed(path, 3 * 256);  // three rows, each rounded up to cache lines
  CHECK(right(*store, {1}));
  CHECK(right(*store, {2}));
  CHECK(right(*store, {3}));
  CHECK(right(*store, {1}));  // a hit, so 2 is the oldest now
  CHECK(right(*store, {4}));
  CHECK(store->counters().hits == 1);
  CHECK(right(*store, {1, 3, 4}));
  CHECK(store->counters().hits == 4);
  CHECK(right(*store, {2}));
  CHECK(store->counters().hits == 4);
  CHECK(store->counters().rows_asked == 9);
}

TEST_CASE("without a budget nothing is kept") {
  testing::TemporaryFolder folder;
  const auto store = streamed(folder.write("rows.bin", file_bytes()), 0);
  store->request(std::vector<RowId>{7});
  for (int i = 0; i < 5; ++i) CHECK(right(*store, {7}));
  CHECK(store->counters().hits == 0);
  CHECK(store->counters().bytes_read == 5 * row_bytes);
}

TEST_CASE("rows that were requested are there when they are held") {
  testing::TemporaryFolder folder;
  const auto path = folder.write("rows.bin", file_bytes());
  for_each_engine(path, [&](ReadEngine engine, bool direct) {
    const auto store = streamed(path, 1'000'000, engine, direct);
    const std::vector<RowId> ids = {3, 500, 4000};
    store->request(ids);
    CHECK(right(*store, ids));
    CHECK(store->counters().hits == 3);
  });
}

TEST_CASE("a row that cannot be read is an error that names file and row; the others stay usable") {
  bool broken = true;
  StreamedRows store = faulty(10'000, [&](const ReadRequest& request, ReadResult result) {
    return broken && request.offset == offset + 8 * row_bytes ? ReadResult{0, EIO} : result;
  });
  store.request(std::vector<RowId>{8});  // a hint that fails stays silent
  const std::string message = error_of(store, {7, 8, 9});
  CHECK(message.find("faulty.bin: row 8 of the PLE table: cannot read 200 bytes at byte 1624") != std::string::npos);
  CHECK(message.find(os::text_of(EIO)) != std::string::npos);
  CHECK(right(store, {7, 9}));
  broken = false;
  CHECK(right(store, {7, 8, 9}));
}

TEST_CASE("a read that brings less is continued; at the file's end it is an error with both sizes") {
  int reads = 0;
  StreamedRows store = faulty(10'000, [&](const ReadRequest&, ReadResult result) {
    ++reads;
    return ReadResult{std::min<std::size_t>(result.bytes, 90), 0};
  });
  CHECK(right(store, {0, 49}));
  CHECK(reads == 6);
  CHECK(error_of(store, {60}).find("row 60 of the PLE table: the file ends at byte 12024, expected 12224") !=
        std::string::npos);
  CHECK(right(store, {0, 49}));
}

TEST_CASE("a read that was cancelled or came too early is tried again, not for ever") {
  int failures = 3;
  StreamedRows store = faulty(10'000, [&](const ReadRequest&, ReadResult result) {
    return failures-- > 0 ? ReadResult{0, failures % 2 ? ECANCELED : EAGAIN} : result;
  });
  CHECK(right(store, {5}));
  failures = 1'000'000;
  CHECK(error_of(store, {6}).find("row 6") != std::string::npos);
  CHECK(failures > 999'000);
}

TEST_CASE("more rows than there is room for, by several threads at once, wait for each other") {
  testing::TemporaryFolder folder;
  const auto path = folder.write("rows.bin", file_bytes());
  for_each_engine(path, [&](ReadEngine engine, bool direct) {
    for (const std::size_t budget : {std::size_t{0}, std::size_t{20'000}}) {
      const auto store = streamed(path, budget, engine, direct);
      std::atomic<int> wrong{0};
      std::vector<std::thread> threads;
      for (unsigned thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&, thread] {
          std::mt19937 generator(thread);
          for (int round = 0; round < 200; ++round) {
            std::vector<RowId> ids(50);
            std::iota(ids.begin(), ids.end(), generator() % (rows - 50));
            if (round % 2) store->request(ids);
            wrong += !right(*store, ids);
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
      CHECK(wrong == 0);
    }
  });
}

TEST_CASE("a file that shrinks while it is open is an error, one that is deleted is not") {
  testing::TemporaryFolder folder;
  for_each_engine(folder.write("probe.bin", file_bytes()), [&](ReadEngine engine, bool direct) {
    const auto path = folder.write("rows.bin", file_bytes());
    const auto store = streamed(path, 0, engine, direct);
    CHECK(right(*store, {rows - 1}));
    std::filesystem::resize_file(path, offset + 100 * row_bytes + 50);
    CHECK(error_of(*store, {rows - 1}).find("did it shrink while it was open?") != std::string::npos);
    CHECK(error_of(*store, {100}).find("expected " + std::to_string(offset + 101 * row_bytes)) != std::string::npos);
    CHECK(right(*store, {0, 99}));
    std::filesystem::remove(path);
    CHECK(right(*store, {0, 98, 99}));
  });
}

TEST_CASE("rows that are pinned, waited for or on their way when a process forks are read anew in the child" *
          doctest::skip(testing::no_fork_beside_busy_threads)) {
  testing::TemporaryFolder folder;
  const auto path = folder.write("rows.bin", file_bytes());
  for_each_engine(path, [&](ReadEngine engine, bool direct) {
    auto store = streamed(path, 100'000, engine, direct);
    std::vector<RowId> all(StreamedRows::in_flight);
    std::iota(all.begin(), all.end(), RowId{0});
    std::vector<const std::byte*> found(all.size());
    store->hold(all, found);  // as many as there is room for
    const std::vector<RowId> more = {1000, 1001, 1002};
    store->request(more);
    CHECK(testing::in_child([&] {
            store->unpin(all);  // held nowhere here: of no effect
            std::vector<RowId> others(StreamedRows::in_flight);
            std::iota(others.begin(), others.end(), RowId{2000});
            const bool good = right(*store, others) && right(*store, more) && right(*store, all);
            store.reset();
            return good ? 0 : 1;
          }) == 0);
    bool good = true;
    for (std::size_t i = 0; i < all.size(); ++i) good &= is_row(found[i], all[i]);
    CHECK(good);
    store->unpin(all);
    CHECK(right(*store, more));
  });
}

TEST_CASE("a store whose queue cannot be made again says so in the child, and ends there") {
  StreamedRows store = faulty(10'000, [](const ReadRequest&, ReadResult result) { return result; });
  CHECK(right(store, {1, 2}));
  CHECK(testing::in_child([&] {
          store.request(std::vector<RowId>{7});  // a hint that fails stays silent
          try {
            right(store, {1});
          } catch (const Error& error) {
            return error.code() == ErrorCode::not_supported ? 0 : 1;
          }
          return 2;
        }) == 0);
  CHECK(right(store, {1, 2, 3}));
}

TEST_CASE("a queue that throws leaves no row held") {
  class ThrowingQueue final : public ReadQueue {
   public:
    const char* name() const override { return "throws"; }
    std::size_t depth() const override { return 16; }
    void submit(std::span<const ReadRequest> requests) override {
      tags_.insert(tags_.end(), requests.begin(), requests.end());
    }
    std::size_t wait(std::span<ReadDone> done) override {
      if (!std::exchange(thrown_, true)) throw std::runtime_error("the queue");
      const ReadRequest request = tags_.front();
      tags_.pop_front();
      for (std::size_t i = 0; i < request.into.size(); ++i)
        request.into[i] = expected((request.offset - offset) / row_bytes, i);
      done[0] = {request.tag, {request.into.size(), 0}};
      return 1;
    }

   private:
    bool thrown_ = false;
    std::deque<ReadRequest> tags_;
  };
  StreamedRows store({"rows", offset, row_bytes, false}, std::make_unique<ThrowingQueue>(), 0);
  CHECK_THROWS_WITH_AS(right(store, {1, 2, 3}), "the queue", std::runtime_error);
  CHECK(right(store, {1, 2, 3}));
  std::vector<RowId> all(16);
  std::iota(all.begin(), all.end(), RowId{100});
  for (int round = 0; round < 10; ++round) CHECK(right(store, all));
}

TEST_CASE("a mapped file that shrank is an error as well") {
  testing::TemporaryFolder folder;
  const auto path = folder.write("rows.bin", file_bytes());
  MappedRows store(MappedFile::open(path), offset, row_bytes, rows, 0);
  CHECK(right(store, {0, 17, rows - 1}));
  std::filesystem::resize_file(path, 5000);
  CHECK(error_of(store, {rows - 1}).find("has 5000 bytes, but had 1000024 when it was opened") != std::string::npos);
}

// The thread sanitizer's own memory grows with every address that is touched.
#if defined(__SANITIZE_THREAD__)
constexpr bool memory_is_ours = false;
#else
constexpr bool memory_is_ours = true;
#endif

TEST_CASE("the budget holds over 100,000 random rows: streamed, and mapped with a budget" *
          doctest::skip(!memory_is_ours)) {
  testing::TemporaryFolder folder;
  constexpr std::size_t bytes = 4096, count = 50'000, budget = std::size_t{16} << 20;
  // Written in large pieces, so that the page cache has it in large pieces, which may be mapped as a whole.
  const auto path = folder.write("large.bin", std::vector<std::byte>(count * bytes));
  const auto grows_by = [&](RowStore& store) {
    std::mt19937 generator(3);
    std::vector<const std::byte*> found(1);
    const std::uint64_t before = memory_use().resident;
    std::uint64_t most = before;
    unsigned sum = 0;
    for (int i = 0; i < 100'000; ++i) {
      const RowId id = generator() % count;
      store.pin(std::span(&id, 1), found);
      for (std::size_t b = 0; b < bytes; b += 512) sum += static_cast<unsigned>(found[0][b]);
      store.unpin(std::span(&id, 1));
      if (i % 1000 == 0) most = std::max(most, memory_use().resident);
    }
    CHECK(sum == 0);
    return most - before;
  };
  constexpr std::uint64_t slack = std::uint64_t{2} << 20;
  StreamedRows streamed_rows(RowFile{"large.bin", 0, bytes, false},
                             make_read_queue(InputFile::open(path), ReadEngine::threads), budget);
  CHECK(streamed_rows.bytes() <= budget + StreamedRows::in_flight * bytes);
  CHECK(grows_by(streamed_rows) <= streamed_rows.bytes() + slack);
  MappedRows mapped(MappedFile::open(path), 0, bytes, count, budget);
  CHECK(grows_by(mapped) <= budget + slack);
}

}  // namespace ple::streamed_rows_test
