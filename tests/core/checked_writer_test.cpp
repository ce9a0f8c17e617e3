// SPDX-License-Identifier: Apache-2.0
#include "ple/core/checked_writer.h"
#include "ple/core/os.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cerrno>

#include <csignal>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../child.h"
#include "../file_size_limit.h"
#include "../temporary.h"

namespace ple::checked_writer_test {

using testing::TemporaryFolder;

namespace {

using Names = std::vector<std::string>;

std::string contents(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::filesystem::path put(const TemporaryFolder& folder, const std::string& name, const std::string& text) {
  return folder.write(name, std::as_bytes(std::span(text)));
}

void write(const std::filesystem::path& path, const std::string& text, std::span<const FileIdentity> inputs = {}) {
  CheckedWriter writer(path, inputs);
  writer.write(text.data(), text.size());
  writer.finish({});
}

template <class F>
std::string error_of(F&& f, ErrorCode code = ErrorCode::file) {
  try {
    f();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return error.what();
  }
  return "no error";
}

unsigned permissions_of(const std::filesystem::path& path) {
  struct ::stat status = {};
  ::stat(path.c_str(), &status);
  return status.st_mode & 07777u;
}

/// More than the writer keeps before it writes.
const std::string long_text(std::size_t{9} << 20, 'x');

}  // namespace

TEST_CASE("of two processes that write one file, one has it whole, and whoever says success wrote it whole") {
  TemporaryFolder folder;
  const std::string a(std::size_t{5} << 20, 'a'), b(std::size_t{3} << 20, 'b');
  for (int round = 0; round < 10; ++round) {
    put(folder, "file", "old");
    std::fflush(nullptr);
    const ::pid_t child = ::fork();
    if (child == 0) {
      ::alarm(60);
      int result = 1;
      try {
        write(folder / "file", a);
        result = 0;
      } catch (...) {
      }
      ::_exit(result);
    }
    write(folder / "file", b);
    CHECK(testing::status_of(child) == 0);
    const std::string found = contents(folder / "file");
    CHECK((found == a || found == b));
    CHECK(folder.names() == Names{"file"});
  }
}

TEST_CASE("two writers in one process are apart, whichever finishes last has the file") {
  TemporaryFolder folder;
  CheckedWriter first(folder / "file"), second(folder / "file");
  first.write("first", 5);
  second.write("second", 6);
  CHECK(folder.names().size() == 2);
  second.finish({});
  CHECK(contents(folder / "file") == "second");
  first.finish({});
  CHECK(contents(folder / "file") == "first");
  CHECK(folder.names() == Names{"file"});
}

TEST_CASE("a link stays a link: what it leads to is replaced") {
  TemporaryFolder folder;
  std::filesystem::create_directory(folder / "there");
  put(folder, "there/target", "old");
  std::filesystem::create_symlink("there/target", folder / "link");
  write(folder / "link", "new");
  CHECK(std::filesystem::is_symlink(folder / "link"));
  CHECK(contents(folder / "there/target") == "new");
  CHECK(folder.names() == Names{"link", "there"});
  std::filesystem::create_symlink("nothing", folder / "dangling");
  CHECK(error_of([&] { write(folder / "dangling", "new"); }) ==
        (folder / "dangling").string() + ": cannot write: is a link that leads nowhere");
  CHECK_FALSE(std::filesystem::exists(folder / "nothing"));
  std::filesystem::create_symlink("loop", folder / "loop");
  CHECK(error_of([&] { write(folder / "loop", "new"); }).find(os::text_of(ELOOP)) != std::string::npos);
}

TEST_CASE("a link in place of the partial file is not followed") {
  TemporaryFolder folder;
  put(folder, "victim", "precious");
  std::filesystem::create_symlink("victim", folder / "file.partial");  // the name that it had once
  write(folder / "file", "new");
  CHECK(contents(folder / "victim") == "precious");
  std::filesystem::create_symlink("victim", folder / "guessed");
  CHECK_THROWS_AS(OutputFile(folder / "guessed", "file"), Error);
  CHECK_THROWS_AS(OutputFile(folder / "victim", "file"), Error);
  CHECK(contents(folder / "victim") == "precious");
  // Whoever replaces what was written so far does not get the name for it.
  CheckedWriter writer(folder / "other");
  writer.write("right", 5);
  for (const std::string& name : folder.names()) {
    if (!name.starts_with("other.")) continue;
    std::filesystem::remove(folder / name);
    std::filesystem::create_symlink("victim", folder / name);
  }
  CHECK(error_of([&] { writer.finish({}); }) ==
        (folder / "other").string() + ": cannot write: its partial file was removed or replaced");
  CHECK_FALSE(std::filesystem::exists(folder / "other"));
  CHECK(contents(folder / "victim") == "precious");
}

TEST_CASE("devices, pipes and folders are never written to nor replaced, and that is said before the work") {
  TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  std::filesystem::create_directory(folder / "folder");
  std::filesystem::create_symlink("/dev/null", folder / "link");
  const auto refuses = [&](const std::filesystem::path& path, const std::string& why) {
    CAPTURE(path.string());
    const auto kind = std::filesystem::symlink_status(path).type();
    CHECK(error_of([&] { CheckedWriter writer(path); }) == path.string() + ": cannot write: " + why);
    CHECK(error_of([&] { check_output_path(path); }) == path.string() + ": cannot write: " + why);
    CHECK(std::filesystem::symlink_status(path).type() == kind);
  };
  const std::string device = "is a device, a pipe or a socket, expected a regular file";
  refuses("/dev/full", device);
  refuses("/dev/null", device);
  refuses(folder / "pipe", device);
  refuses(folder / "link", device);
  refuses(folder / "folder", "is a folder");
  refuses(folder / "folder/", "the path has no file name");
  refuses("", "the path has no file name");
  refuses(folder / "none/file", os::text_of(ENOENT) + ": folder " + (folder / "none").string());
  CHECK(folder.names() == Names{"folder", "link", "pipe"});
  if (::geteuid() != 0) {  // who may do everything is refused nothing
    ::chmod((folder / "folder").c_str(), 0500);
    refuses(folder / "folder/file", os::text_of(EACCES) + ": folder " + (folder / "folder").string());
  }
  // A device that comes while it is being written, too.
  CheckedWriter writer(folder / "file");
  REQUIRE(::mkfifo((folder / "file").c_str(), 0600) == 0);
  CHECK(error_of([&] { writer.finish({}); }) == (folder / "file").string() + ": cannot write: " + device);
  CHECK(std::filesystem::is_fifo(folder / "file"));
}

TEST_CASE("an input of the same work is not written over, by whichever name") {
  TemporaryFolder folder;
  const auto input = put(folder, "input", "precious"), other = put(folder, "other", "old");
  std::filesystem::create_hard_link(input, folder / "hard");
  std::filesystem::create_symlink("input", folder / "soft");
  const std::vector<FileIdentity> inputs = identities_of(std::vector{input, folder / "none"});
  CHECK(inputs.size() == 1);
  for (const char* name : {"input", "hard", "soft", "./input"}) {
    CHECK(error_of([&] { write(folder / name, "new", inputs); }, ErrorCode::argument) ==
          (folder / name).string() + ": cannot write: is one of the files that are read");
  }
  CHECK(contents(input) == "precious");
  write(other, "new", inputs);
  CHECK(contents(other) == "new");
}

TEST_CASE("the permissions of the file that is replaced are kept, a new file has those the process wants") {
  TemporaryFolder folder;
  const ::mode_t before = ::umask(027);
  for (const unsigned permissions : {0600u, 0644u, 0664u, 0444u}) {
    const auto path = put(folder, "file", "old");
    ::chmod(path.c_str(), permissions);
    {
      CheckedWriter writer(path);
      writer.write("new", 3);
      for (const std::string& name : folder.names()) CHECK((permissions_of(folder / name) & ~permissions) == 0);
      writer.finish({});
    }
    CHECK(contents(path) == "new");
    CHECK(permissions_of(path) == permissions);
    std::filesystem::remove(path);
  }
  write(folder / "new", "new");
  CHECK(permissions_of(folder / "new") == 0640);
  ::umask(before);
}

TEST_CASE("a process that is killed while it writes leaves the old file, and a partial one") {
  TemporaryFolder folder;
  put(folder, "file", "old");
  CHECK(testing::in_child([&] {
          CheckedWriter writer(folder / "file");
          writer.write(long_text.data(), long_text.size());
          ::raise(SIGKILL);
          return 0;
        }) == 100 + SIGKILL);
  CHECK(contents(folder / "file") == "old");
  const Names names = folder.names();
  REQUIRE(names.size() == 2);
  CHECK(names[1].starts_with("file."));
  CHECK(names[1].ends_with(".partial"));
  write(folder / "file", "new");
  CHECK(contents(folder / "file") == "new");
}

TEST_CASE("a disk that is full leaves the old file and nothing else") {
  TemporaryFolder folder;
  put(folder, "file", "old");
  for (const std::size_t room : {std::size_t{0}, std::size_t{5} << 20, long_text.size() - 1}) {
    const testing::FileSizeLimit full(room);
    CHECK(error_of([&] { write(folder / "file", long_text); }) ==
          (folder / "file").string() + ": cannot write at byte " + std::to_string(room) + ": " + os::text_of(EFBIG));
    CHECK(contents(folder / "file") == "old");
    CHECK(folder.names() == Names{"file"});
  }
}

TEST_CASE("a descriptor that the program closed is an error, and nothing is written to whose it is now") {
  TemporaryFolder folder;
  const auto stranger = put(folder, "stranger", "precious");
  CHECK(testing::in_child([&] {
          for (const bool reopens : {false, true}) {
            CheckedWriter writer(folder / "file");
            for (int descriptor = 3; descriptor < 1024; ++descriptor) ::close(descriptor);
            const int other = reopens ? ::open(stranger.c_str(), O_RDWR) : -1;
            const std::string error = error_of([&] { writer.write(long_text.data(), long_text.size()); });
            if (error != (folder / "file").string() + ": cannot write: " +
                             (reopens ? "the program closed its descriptor, which now belongs to another file"
                                      : "the program closed its descriptor"))
              return 1;
            if (reopens && ::lseek(other, 0, SEEK_CUR) != 0) return 2;
          }
          return 0;
        }) == 0);
  CHECK(contents(stranger) == "precious");
  CHECK(folder.names() == Names{"stranger"});
}

TEST_CASE("a copy that fork() made of a process leaves the file to it") {
  TemporaryFolder folder;
  CheckedWriter writer(folder / "file");
  writer.write("half, ", 6);
  CHECK(testing::in_child([&] {
          writer.write("other half", 10);
          return error_of([&] { writer.finish({}); }).find("fork()") != std::string::npos ? 0 : 1;
        }) == 0);
  std::fflush(nullptr);
  {
    auto owned = std::make_unique<CheckedWriter>(folder / "second");
    CHECK(testing::in_child([&] {
            owned.reset();
            return 0;
          }) == 0);
    owned->write("whole", 5);
    owned->finish({});
  }
  writer.write("whole", 5);
  writer.finish({});
  CHECK(contents(folder / "file") == "half, whole");
  CHECK(contents(folder / "second") == "whole");
}

TEST_CASE("names as long as a system allows can be written") {
  TemporaryFolder folder;
  const std::string name(255, 'n');
  write(folder / name, "new");
  CHECK(contents(folder / name) == "new");
  CHECK(folder.names() == Names{name});
}

}  // namespace ple::checked_writer_test
