// SPDX-License-Identifier: Apache-2.0
#include "ple/core/read_queue.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "../child.h"
#include "../temporary.h"
#include "ple/core/io_uring.h"

namespace ple::read_queue_test {

using testing::TemporaryFolder;

namespace {

constexpr std::size_t size = 64, count = 100;

std::filesystem::path write_rows(const TemporaryFolder& folder, const std::string& name, int first) {
  std::vector<std::byte> bytes(size * count);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i / size * 3 + i + first);
  return folder.write(name, bytes);
}

/// What came of reading every row at once.
struct Outcome {
  std::size_t right = 0;
  std::vector<int> errors;  // different ones
};

Outcome read_all(ReadQueue& queue, int first = 0) {
  std::vector<std::byte> memory(size * count);
  std::vector<ReadRequest> requests;
  for (std::size_t i = 0; i < count; ++i) requests.push_back({i * size, std::span(memory).subspan(i * size, size), i});
  queue.submit(std::span(requests).first(1));
  queue.submit(std::span(requests).subspan(1));
  Outcome outcome;
  std::vector<ReadDone> done(7);
  for (std::size_t seen = 0; seen < count;) {
    const std::size_t some = queue.wait(done);
    seen += some;
    for (const ReadDone& one : std::span(done).first(some)) {
      const auto row = std::span(memory).subspan(one.tag * size, size);
      bool good = one.result.error == 0 && one.result.bytes == size;
      for (std::size_t i = 0; i < size; ++i) {
        good =
            good && row[i] == static_cast<std::byte>(one.tag * 3 + one.tag * size + i + static_cast<unsigned>(first));
      }
      outcome.right += good;
      const int error = one.result.error;
      if (error != 0 && std::find(outcome.errors.begin(), outcome.errors.end(), error) == outcome.errors.end()) {
        outcome.errors.push_back(error);
      }
    }
  }
  return outcome;
}

bool all_right(ReadQueue& queue) { return read_all(queue).right == count; }

bool only_error(ReadQueue& queue, int error) {
  const Outcome outcome = read_all(queue);
  return outcome.right == 0 && outcome.errors == std::vector{error};
}

/// Calls f(engine) for those of this machine.
template <class F>
void for_each_engine(const std::filesystem::path& path, F&& f) {
  for (const ReadEngine engine : {ReadEngine::threads, ReadEngine::io_uring}) {
    if (testing::no_threads_in_children && engine == ReadEngine::threads) continue;
    CAPTURE(static_cast<int>(engine));
    try {
      make_read_queue(InputFile::open(path), engine);
    } catch (const Error& error) {
      REQUIRE(error.code() == ErrorCode::not_supported);  // a container may forbid io_uring
      MESSAGE("left out: " << error.what());
      continue;
    }
    f(engine);
  }
}

/// The descriptors of this process that are rings.
std::vector<int> rings() {
  std::vector<int> found;
  for (int descriptor = 0; descriptor < 256; ++descriptor) {
    std::error_code error;
    const auto link = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(descriptor), error);
    if (link.string().find("io_uring") != std::string::npos) found.push_back(descriptor);
  }
  return found;
}

ErrorCode code_of_submit(ReadQueue& queue) {
  try {
    read_all(queue);
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::argument;
}

}  // namespace

TEST_CASE("reads of a file whose descriptor the program closed are errors, never another file's bytes") {
  TemporaryFolder folder;
  const auto path = write_rows(folder, "rows", 0), other = write_rows(folder, "other", 1);
  for_each_engine(path, [&](ReadEngine engine) {
    CHECK(testing::in_child([&] {
            auto file = InputFile::open(path);
            const auto queue = make_read_queue(file, engine);
            if (!all_right(*queue)) return 1;
            ::close(file->descriptor());
            if (!only_error(*queue, EBADF)) return 2;
            const int stranger = ::open(other.c_str(), O_RDONLY);
            if (stranger != file->descriptor()) return 3;
            if (!only_error(*queue, another_file)) return 4;
            ::dup2(::open(path.c_str(), O_RDONLY), stranger);  // the same file again
            return all_right(*queue) ? 0 : 5;
          }) == 0);
  });
}

TEST_CASE("a ring whose descriptor the program closed gives its reads back, and ends") {
  TemporaryFolder folder;
  const auto path = write_rows(folder, "rows", 0);
  for_each_engine(path, [&](ReadEngine engine) {
    if (engine != ReadEngine::io_uring) return;
    CHECK(testing::in_child([&] {
            const auto queue = make_read_queue(InputFile::open(path), engine);
            if (!all_right(*queue)) return 1;
            const std::vector<int> ours = rings();
            if (ours.size() != 1) return 2;
            // Reads that the kernel took before still arrive.
            std::vector<std::byte> memory(size);
            const ReadRequest request{3 * size, memory, 3};
            queue->submit(std::span(&request, 1));
            ::close(ours[0]);
            ReadDone done[1];
            if (queue->wait(done) != 1 || done[0].result.bytes != size) return 3;
            if (!only_error(*queue, EBADF)) return 4;
            // Another file has the number now, or another ring, which takes nothing of ours.
            const int stranger = ::open("/dev/zero", O_RDONLY);
            if (stranger != ours[0] || !only_error(*queue, another_file)) return 5;
            const auto other = make_read_queue(InputFile::open(path), engine);
            ::dup2(rings().at(0), stranger);
            if (!only_error(*queue, another_file)) return 6;
            return all_right(*other) ? 0 : 7;
          }) == 0);
  });
}

TEST_CASE("after fork() a queue is made again, is refused as it is, and goes away at once" *
          doctest::skip(testing::no_fork_beside_busy_threads)) {
  TemporaryFolder folder;
  const auto path = write_rows(folder, "rows", 0);
  for_each_engine(path, [&](ReadEngine engine) {
    auto queue = make_read_queue(InputFile::open(path), engine);
    std::vector<std::byte> memory(size);
    const ReadRequest request{3 * size, memory, 3};
    queue->submit(std::span(&request, 1));  // in flight while the process forks
    CHECK(testing::in_child([&] {
            if (code_of_submit(*queue) != ErrorCode::system) return 1;
            const auto own = queue->again();
            if (!all_right(*own)) return 2;
            queue.reset();
            return all_right(*own) ? 0 : 3;
          }) == 0);
    ReadDone done[1];
    REQUIRE(queue->wait(done) == 1);
    CHECK(done[0].result.bytes == size);
    CHECK(all_right(*queue));
  });
}

}  // namespace ple::read_queue_test
