// SPDX-License-Identifier: Apache-2.0
// What happens when the machine refuses or disturbs: memory, threads, room on a disk, a file that is cut off, signals.
#include <doctest/doctest.h>
#include <sys/time.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "../allocations.h"
#include "../checkpoint/folder.h"
#include "../file_size_limit.h"
#include "../temporary.h"
#include "../threads.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/convert/gguf_export.h"
#include "ple/convert/pack_table.h"
#include "ple/run/saved_session.h"
#include "ple/run/session.h"
#include "ple/table/streamed.h"
#include "ple/text/tokenizer.h"

namespace ple::faults_test {

using ple::testing::Folder;
using ple::testing::TemporaryFolder;

namespace {

using Model = Gemma4<Any, Scalar>;

constexpr Token tokens[] = {2, 3, 4, 5, 6, 7};

std::vector<float> logits_of(const Model& model) {
  InlineExecutor executor;
  Session session(model, {.context = 16, .chunk = 4, .executor = &executor});
  session.read(tokens);
  return {session.logits().begin(), session.logits().end()};
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// Lets every allocation of f fail, one after another: each time either an exception comes out or f gets by without
/// it, nothing stays allocated, and f works afterwards. Returns how many allocations there are.
template <class F>
std::size_t fail_each_allocation(F&& f) {
  f();  // what is allocated once and for all
  std::size_t n = 1;
  for (;; ++n) {
    const std::size_t before = testing::live_allocations();
    bool bad_alloc = false, error = false, other = false;
    testing::fail_allocation(n);
    try {
      f();
    } catch (const std::bad_alloc&) {
      bad_alloc = true;
    } catch (const Error&) {
      error = true;
    } catch (...) {
      other = true;
    }
    const bool failed = testing::allocation_failed();
    const std::size_t after = testing::live_allocations();
    CAPTURE(n);
    if (other || after != before || (!failed && (bad_alloc || error))) {
      CHECK(!other);
      CHECK(after == before);
      CHECK((failed || !(bad_alloc || error)));
    }
    if (!failed) break;
  }
  CHECK_NOTHROW(f());
  return n;
}

/// While it lives, a signal comes every 50 microseconds, to whichever thread, and interrupts what it is in.
class SignalStorm {
 public:
  SignalStorm() {
    struct sigaction action = {};
    action.sa_handler = [](int) { ++count_; };  // without SA_RESTART
    ::sigaction(SIGALRM, &action, &before_);
    const itimerval every{{0, 50}, {0, 50}};
    ::setitimer(ITIMER_REAL, &every, nullptr);
  }
  SignalStorm(const SignalStorm&) = delete;
  SignalStorm& operator=(const SignalStorm&) = delete;
  ~SignalStorm() {
    const itimerval never{};
    ::setitimer(ITIMER_REAL, &never, nullptr);
    ::sigaction(SIGALRM, &before_, nullptr);
  }
  static int count() { return count_; }

 private:
  static inline std::atomic<int> count_ = 0;
  struct sigaction before_ = {};
};

}  // namespace

TEST_CASE("every allocation failing in turn while a model is opened and used") {
  Folder folder;
  folder.write();
  const std::vector<float> expected = logits_of(Model::load(Checkpoint::open(folder.path())));
  for (const TableStorage& storage : {TableStorage(Mapped{}), TableStorage(Resident{}), TableStorage(Streamed{4096})}) {
    bool same = true;
    const std::size_t count = fail_each_allocation([&] {
      const std::vector<float> logits = logits_of(Model::load(Checkpoint::open(folder.path()), {.table = storage}));
      same = same && logits == expected;
    });
    CHECK(count > 500);
    CHECK(same);
  }
}

TEST_CASE("every allocation failing in turn while a GGUF file is opened and used") {
  Folder folder;
  folder.write();
  const auto checkpoint = Checkpoint::open(folder.path());
  const std::filesystem::path path = folder.path() / "model.gguf";
  InlineExecutor executor;
  write_gguf(checkpoint, {}, plan_gguf(checkpoint), path, executor);
  const std::vector<float> expected = logits_of(Model::load(Checkpoint::open(path)));
  bool same = true;
  const std::size_t count = fail_each_allocation([&] {
    const std::vector<float> logits = logits_of(Model::load(Checkpoint::open(path)));
    same = same && logits == expected;
  });
  CHECK(same);
  CHECK(count > 500);
}

TEST_CASE("every allocation failing in turn while a tokenizer is opened and used") {
  const std::string file = R"({"added_tokens":[{"id":0,"content":"<bos>","special":true,"normalized":false,
    "single_word":false,"lstrip":false,"rstrip":false}],"normalizer":{"type":"Replace","pattern":{"String":" "},
    "content":"_"},"pre_tokenizer":null,"post_processor":null,"decoder":{"type":"Sequence","decoders":[
    {"type":"Replace","pattern":{"String":"_"},"content":" "},{"type":"Fuse"}]},"model":{"type":"BPE",
    "unk_token":null,"byte_fallback":false,"vocab":{"<bos>":0,"a":1,"b":2,"ab":3,"_":4},"merges":[["a","b"]]}})";
  bool same = true;
  const std::size_t count = fail_each_allocation([&] {
    const auto tokenizer = Tokenizer::parse(file, "small.json");
    same = same && tokenizer.decode(tokenizer.encode("ab a b")) == "ab a b";
  });
  CHECK(same);
  CHECK(count > 50);
}

TEST_CASE("a session whose memory fails in turn goes on with the same logits") {
  Folder folder;
  folder.write();
  const Model model = Model::load(Checkpoint::open(folder.path()));
  const std::vector<float> expected = logits_of(model);
  const TemporaryFolder temporary;
  InlineExecutor executor;
  Session session(model, {.context = 16, .chunk = 4, .executor = &executor});
  fail_each_allocation([&] {
    session.reset();
    session.read(tokens);
    SavedSession::save(session, temporary / "session");
    SavedSession::load(session, temporary / "session");
  });
  CHECK(std::equal(expected.begin(), expected.end(), session.logits().begin()));
}

TEST_CASE("signals in the middle of everything change nothing") {
  Folder folder;
  folder.write();
  const std::vector<float> expected = logits_of(Model::load(Checkpoint::open(folder.path())));
  const TemporaryFolder temporary;
  for (const ReadEngine engine : {ReadEngine::threads, ReadEngine::io_uring}) {
    try {
      Model::load(Checkpoint::open(folder.path()), {.table = Streamed{.engine = engine}});
    } catch (const Error& error) {
      REQUIRE(error.code() == ErrorCode::not_supported);  // a container may forbid io_uring
      continue;
    }
    const int before = SignalStorm::count();
    int wrong = 0;
    {
      const SignalStorm storm;
      ThreadPool pool(3);
      for (int round = 0; round < 150; ++round) {
        const Model model =
            Model::load(Checkpoint::open(folder.path()), {.table = Streamed{.budget = 200, .engine = engine}});
        Session session(model, {.context = 16, .chunk = 4, .executor = &pool});
        session.read(std::span(tokens).first(3));
        SavedSession::save(session, temporary / "session");
        session.reset();
        SavedSession::load(session, temporary / "session");
        session.read(std::span(tokens).subspan(3));
        wrong += !std::equal(expected.begin(), expected.end(), session.logits().begin());
      }
    }
    CHECK(SignalStorm::count() > before);
    CHECK(wrong == 0);
  }
}

TEST_CASE("threads that cannot be started") {
  for (const std::size_t n : {1u, 2u, 5u}) {
    CAPTURE(n);
    testing::fail_threads(n);
    std::string message;
    try {
      ThreadPool pool(6);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::system);
      message = error.what();
    }
    testing::fail_threads(0);
    CHECK(message.starts_with("ThreadPool: only " + std::to_string(n) + " of 6 threads run: "));
  }
  CHECK_NOTHROW(ThreadPool(6));

  Folder folder;
  folder.write();
  const auto checkpoint = Checkpoint::open(folder.path());
  for (const std::size_t n : {1u, 4u}) {
    testing::fail_threads(n);
    ErrorCode code{};
    try {
      Model::load(checkpoint, {.table = Streamed{.engine = ReadEngine::threads}});
    } catch (const Error& error) {
      code = error.code();
    }
    testing::fail_threads(0);
    CHECK(code == ErrorCode::system);
  }
  CHECK(logits_of(Model::load(checkpoint, {.table = Streamed{.engine = ReadEngine::threads}})) ==
        logits_of(Model::load(checkpoint)));
}

TEST_CASE("a disk that is full while a table or a session is written: the old file stays, no half one does") {
  Folder folder;
  folder.write();
  const Model model = Model::load(Checkpoint::open(folder.path()));
  const TemporaryFolder temporary;
  InlineExecutor executor;
  Session session(model, {.context = 16, .chunk = 4, .executor = &executor});
  session.read(tokens);
  const auto check = [&](const std::string& name, auto&& write) {
    write(temporary / name);
    const std::string whole = read_file(temporary / name);
    temporary.write(name, std::as_bytes(std::span("old", 3)));
    for (std::size_t room = 0; room < whole.size(); room += whole.size() / 7) {
      CAPTURE(room);
      ErrorCode code{};
      {
        const testing::FileSizeLimit full(room);
        try {
          write(temporary / name);
        } catch (const Error& error) {
          code = error.code();
        }
      }
      CHECK(code == ErrorCode::file);
      CHECK(read_file(temporary / name) == "old");
      const std::filesystem::directory_iterator files(temporary / ".");
      CHECK(std::distance(begin(files), end(files)) == 1);
    }
    write(temporary / name);
    CHECK(read_file(temporary / name) == whole);
    std::filesystem::remove(temporary / name);
  };
  check("table", [&](const std::filesystem::path& path) {
    pack_table(model, {.dtypes = {Dtype::f32, Dtype::bf16}}, path, executor);
  });
  check("session", [&](const std::filesystem::path& path) { SavedSession::save(session, path); });
}

TEST_CASE("a model whose file is cut off at any length while a session uses it") {
  Folder folder;
  folder.write();
  const std::string whole = read_file(folder.model());
  const Model model = Model::load(Checkpoint::open(folder.path()));
  const std::vector<float> expected = logits_of(model);
  InlineExecutor executor;
  Session session(model, {.context = 16, .chunk = 4, .executor = &executor});
  session.read(std::span(tokens).first(3));
  for (std::size_t size = 0; size < whole.size(); size += 211) {
    CAPTURE(size);
    std::filesystem::resize_file(folder.model(), size);
    ErrorCode code{};
    try {
      session.read(std::span(tokens).subspan(3));
    } catch (const Error& error) {
      code = error.code();
    }
    CHECK(code == ErrorCode::file);
    CHECK_THROWS_AS(logits_of(Model::load(Checkpoint::open(folder.path()))), Error);
    CHECK(session.position() == 3);
    // Written in place: it is the same file, whole again.
    std::fstream(folder.model(), std::ios::binary | std::ios::in | std::ios::out) << whole;
  }
  session.read(std::span(tokens).subspan(3));
  CHECK(std::equal(expected.begin(), expected.end(), session.logits().begin()));
}

}  // namespace ple::faults_test
