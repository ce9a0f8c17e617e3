// SPDX-License-Identifier: Apache-2.0
// What a program does with its own process while a model is open: fork(), closing every descriptor; and what files a
// model meets on other systems: pipes, links in a loop, file systems that cannot map.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../child.h"
#include "../file_faults.h"
#include "../temporary.h"
#include "ple/checkpoint/checkpoint.h"
#include "ple/core/os.h"
#include "ple/core/shared_pool.h"
#include "ple/core/thread_pool.h"
#include "ple/family/gemma4/block.h"
#include "ple/run/session.h"
#include "ple/table/streamed.h"
#include "ple/table/table_scan.h"

namespace ple::process_test {

using testing::NoMappings;
using testing::TemporaryFolder;

namespace {

using Model = Gemma4<Any, Scalar>;

const std::filesystem::path storyteller = std::filesystem::path(PLE_MODEL_DIR) / "storyteller";

std::vector<Token> prompt_of(int number) {
  std::vector<Token> tokens;
  for (int i = 0; i < 12; ++i) tokens.push_back((number * 61 + i * 37) % 1000);
  return tokens;
}

constexpr int prompts = 4;

/// A model, a session, and what the session computes when nothing disturbs it.
struct Setup {
  Model model;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<Session> session;
  std::vector<std::vector<float>> expected;

  Setup(const TableStorage& table, std::size_t threads)
      : model(Model::load(Checkpoint::open(storyteller), {.table = table, .threads = 1})) {
    if (threads == 1) {
      executor = std::make_unique<InlineExecutor>();
    } else {
      executor = std::make_unique<ThreadPool>(threads);
    }
    session = std::make_unique<Session>(model, SessionOptions{.context = 32, .executor = executor.get()});
    for (int number = 0; number < prompts; ++number) expected.push_back(logits(number));
  }

  std::vector<float> logits(int number) {
    session->reset();
    session->read(prompt_of(number));
    return {session->logits().begin(), session->logits().end()};
  }

  /// Whether everything comes out as before, in another order.
  bool right(int rounds, int step) {
    for (int round = 0; round < rounds; ++round) {
      const int number = (round * step + 1) % prompts;
      const std::vector<float> found = logits(number);
      if (std::memcmp(found.data(), expected[static_cast<std::size_t>(number)].data(), found.size() * sizeof(float)) !=
          0)
        return false;
    }
    return true;
  }
};

/// Calls f(name, storage) for every place that a table can live in on this machine.
template <class F>
void for_each_storage(F&& f) {
  const auto with_rows = [](std::size_t rows) { return rows * 1024; };
  const std::pair<const char*, TableStorage> storages[] = {
      {"mapped", Mapped{}},
      {"mapped, budget", Mapped{.budget = 1}},
      {"resident", Resident{}},
      {"io_uring", Streamed{.budget = with_rows(1000), .engine = ReadEngine::io_uring}},
      {"io_uring, no budget", Streamed{.budget = 0, .engine = ReadEngine::io_uring}},
      {"io_uring, direct", Streamed{.budget = 0, .direct = true, .engine = ReadEngine::io_uring}},
      {"threads", Streamed{.budget = with_rows(1000), .engine = ReadEngine::threads}},
      {"threads, no budget", Streamed{.budget = 0, .engine = ReadEngine::threads}},
  };
  for (const auto& [label, storage] : storages) {
    const std::string name = label;
    CAPTURE(name);
    try {
      Model::load(Checkpoint::open(storyteller), {.table = storage, .threads = 1});
    } catch (const Error& error) {
      REQUIRE(error.code() == ErrorCode::not_supported);  // a container may forbid io_uring, a tmpfs direct reads
      MESSAGE("left out: " << error.what());
      continue;
    }
    f(name, storage);
  }
}

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

bool says(const std::string& message, const std::string& part) { return message.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("after fork() parent and children compute what one process computes, wherever the table lives" *
          doctest::skip(testing::no_threads_in_children)) {
  for_each_storage([&](const std::string&, const TableStorage& storage) {
    for (const std::size_t threads : {1u, 3u}) {
      CAPTURE(threads);
      auto setup = std::make_unique<Setup>(storage, threads);
      // Both read at the same time: the parent goes on while the child does.
      std::fflush(nullptr);
      const ::pid_t child = ::fork();
      if (child == 0) {
        ::alarm(60);
        const bool good = setup->right(12, 3);
        const int grandchild = testing::in_child([&] { return setup->right(4, 1) ? 0 : 2; });
        setup.reset();  // nothing here may wait for what is not there
        ::_exit(!good ? 1 : grandchild);
      }
      CHECK(setup->right(12, 1));
      CHECK(testing::status_of(child) == 0);
      // A child that only ends.
      CHECK(testing::in_child([&] {
              setup.reset();
              return 0;
            }) == 0);
      CHECK(setup->right(4, 3));
    }
  });
}

TEST_CASE("fork() while other threads read from the table" * doctest::skip(testing::no_fork_beside_busy_threads)) {
  for_each_storage([&](const std::string&, const TableStorage& storage) {
    Setup setup(storage, 1);
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    InlineExecutor executor;
    Session other(setup.model, {.context = 32, .executor = &executor});
    const std::vector<Token> prompt = prompt_of(2);
    std::thread reader([&] {
      while (!stop) {
        other.reset();
        other.read(prompt);
        wrong += std::memcmp(other.logits().data(), setup.expected[2].data(), other.logits().size_bytes()) != 0;
      }
    });
    for (int round = 0; round < 6; ++round) {
      CHECK(testing::in_child([&] {
              setup.session->reset();
              setup.session->read(prompt);
              const auto logits = setup.session->logits();
              return std::memcmp(logits.data(), setup.expected[2].data(), logits.size_bytes()) == 0 ? 0 : 1;
            }) == 0);
    }
    stop = true;
    reader.join();
    CHECK(wrong == 0);
  });
}

TEST_CASE("sessions that a child of fork() makes share a pool of their own, whatever other threads were doing" *
          doctest::skip(testing::no_fork_beside_busy_threads)) {
  const Model model = Model::load(Checkpoint::open(storyteller), {.threads = 1});
  const auto logits = [&] {
    Session session(model, {.context = 32, .threads = 3}), other(model, {.context = 32, .threads = 3});
    session.read(prompt_of(2));
    return std::vector<float>(session.logits().begin(), session.logits().end());
  };
  const std::vector<float> expected = logits();
  Session before(model, {.context = 32, .threads = 3});
  const auto parents = shared_pool(3);
  std::atomic<bool> stop{false};
  std::thread maker([&] {
    while (!stop) shared_pool(2);
  });
  for (int round = 0; round < 6; ++round) {
    CHECK(testing::in_child([&] {
            if (shared_pool(3) == parents || shared_pool(2) != shared_pool(2)) return 1;
            before.reset();
            before.read(prompt_of(2));
            if (std::memcmp(before.logits().data(), expected.data(), before.logits().size_bytes()) != 0) return 2;
            return logits() == expected ? 0 : 3;
          }) == 0);
  }
  stop = true;
  maker.join();
  CHECK(shared_pool(3) == parents);
}

TEST_CASE("fork() in the middle of a scan of the table" * doctest::skip(testing::no_fork_beside_busy_threads)) {
  const auto checkpoint = Checkpoint::open(storyteller);
  const auto& config = checkpoint.config<Gemma4Config>();
  const TableSource source = stored_table(checkpoint.tensor(Parameter::ple_table), config.num_layers());
  InlineExecutor executor;
  const auto sum_of = [&](auto&& meanwhile) {
    double sum = 0;
    scan_table<Scalar>(source, executor, [&](std::uint64_t first, Rows rows) {
      for (std::size_t r = 0; r < rows.rows; ++r) sum += static_cast<double>(rows.row(r)[0]);
      meanwhile(first);
    });
    return sum;
  };
  const double expected = sum_of([](std::uint64_t) {});
  ::pid_t child = -1;
  const double sum = sum_of([&](std::uint64_t first) {
    if (first != 0) return;
    std::fflush(nullptr);
    child = ::fork();
    if (child == 0) ::alarm(60);
  });
  if (child == 0) ::_exit(sum == expected ? 0 : 1);
  CHECK(sum == expected);
  CHECK(testing::status_of(child) == 0);
}

TEST_CASE("a program that closes every descriptor, as daemons do, gets an error that says so, and can end") {
  for_each_storage([&](const std::string& name, const TableStorage& storage) {
    for (const bool reopens : {false, true}) {
      CAPTURE(reopens);
      CHECK(testing::in_child([&] {
              auto setup = std::make_unique<Setup>(storage, testing::no_threads_in_children ? 1 : 2);
              for (int descriptor = 3; descriptor < 1024; ++descriptor) ::close(descriptor);
              std::vector<int> strangers;
              while (reopens && strangers.size() < 10) strangers.push_back(::open("/dev/zero", O_RDONLY));
              for (int round = 0; round < 2; ++round) {
                const std::string error = error_of([&] { setup->logits(1); });
                if (!says(error, "model.safetensors: ")) return 1;
                if (!says(error, reopens ? "the program closed its descriptor, which now belongs to another file"
                                         : "the program closed its descriptor"))
                  return 2;
              }
              setup.reset();
              for (const int stranger : strangers) {
                if (::close(stranger) != 0) return 3;  // it was not ours to close
              }
              return 0;
            }) == 0);
    }
    static_cast<void>(name);
  });
}

TEST_CASE("a pipe in place of any file of a model is refused at once") {
  for (const char* name : {"config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
                           "tokenizer_config.json", "chat_template.jinja"}) {
    CAPTURE(name);
    TemporaryFolder folder;
    for (const auto& file : std::filesystem::directory_iterator(storyteller)) {
      std::filesystem::create_symlink(std::filesystem::absolute(file.path()), folder / file.path().filename());
    }
    if (name == std::string("tokenizer_config.json")) std::filesystem::remove(folder / "chat_template.jinja");
    if (name == std::string("model.safetensors.index.json")) std::filesystem::remove(folder / "model.safetensors");
    std::filesystem::remove(folder / name);
    REQUIRE(::mkfifo((folder / name).c_str(), 0600) == 0);
    CHECK(testing::in_child([&] {
            const std::string error = error_of([&] { Checkpoint::open(folder / ".").chat_template(); });
            return says(error, std::string(name) + ": is not a regular file") ? 0 : 1;
          }) == 0);
  }
  TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "model.gguf").c_str(), 0600) == 0);
  CHECK(testing::in_child([&] {
          return says(error_of([&] { Checkpoint::open(folder / "model.gguf"); }), "is not a regular file") ? 0 : 1;
        }) == 0);
}

TEST_CASE("a disk that cannot read is an error of ple's, which names the file") {
  const testing::FailingReads broken(EIO);
  CHECK(says(error_of([] { Checkpoint::open(storyteller); }), "config.json: text: cannot read: " + os::text_of(EIO)));
  CHECK(says(error_of([] { Checkpoint::open(storyteller / "model.safetensors"); }), "model.safetensors"));
}

TEST_CASE("a loop of links is not a folder that is not there, nor a file that is missing") {
  TemporaryFolder folder;
  std::filesystem::create_symlink("loop", folder / "loop");
  CHECK(says(error_of([&] { Checkpoint::open(folder / "loop"); }), "loop: cannot open: " + os::text_of(ELOOP)));
  CHECK(says(error_of([&] { Checkpoint::open(folder / "none"); }), "none: no such file or folder"));
  std::filesystem::create_directory(folder / "model");
  std::filesystem::create_symlink("config.json", folder / "model/config.json");
  CHECK(says(error_of([&] { Checkpoint::open(folder / "model"); }), "config.json: cannot open: " + os::text_of(ELOOP)));
}

TEST_CASE("a model on a file system without mappings computes the same bits, wherever its table lives" *
          doctest::skip(testing::mappings_always_work)) {
  const auto logits_of = [&](const TableStorage& table) {
    const auto model = Gemma4<Any, Scalar>::load(Checkpoint::open(storyteller), {.table = table});
    InlineExecutor executor;
    Session session(model, {.context = 32, .executor = &executor});
    session.read(std::vector<Token>{2, 100, 200, 300, 17});
    return std::vector<float>(session.logits().begin(), session.logits().end());
  };
  const std::vector<float> expected = logits_of(Mapped{});
  for (const auto kind : {NoMappings::Kind::shared, NoMappings::Kind::all}) {
    const NoMappings without(kind);
    CHECK(logits_of(Mapped{}) == expected);
    CHECK(logits_of(Mapped{.budget = 1}) == expected);
    CHECK(logits_of(Resident{}) == expected);
  }
}

}  // namespace ple::process_test
