// SPDX-License-Identifier: Apache-2.0
#include "ple/core/file.h"
#include "ple/core/os.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "../child.h"
#include "../file_faults.h"
#include "../temporary.h"
#include "ple/core/mapped_file.h"

namespace ple::file_test {

using testing::NoMappings;
using testing::TemporaryFolder;

namespace {

std::span<const std::byte> bytes_of_text(const std::string& text) { return std::as_bytes(std::span(text)); }

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

bool says(const std::string& message, const std::string& part) { return message.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("a pipe, a device, a socket or a folder in place of a file is refused at once") {
  TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (folder / "socket").c_str(), sizeof address.sun_path - 1);
  REQUIRE(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  std::filesystem::create_symlink(folder / "pipe", folder / "link");
  std::filesystem::create_directory(folder / "folder");
  for (const std::filesystem::path& path :
       {folder / "pipe", folder / "link", folder / "socket", folder / "folder", std::filesystem::path("/dev/zero")}) {
    const std::string expected = path.string() + ": is not a regular file";
    // In a process of its own, for it used to wait for ever.
    CHECK(testing::in_child([&] {
            return error_of([&] { InputFile::open(path); }) == expected &&
                           error_of([&] { MappedFile::open(path); }) == expected
                       ? 0
                       : 1;
          }) == 0);
  }
  ::close(socket);
}

TEST_CASE("what the system says of a name is what the error says") {
  TemporaryFolder folder;
  std::filesystem::create_symlink("loop", folder / "loop");
  CHECK(error_of([&] { InputFile::open(folder / "none"); }) ==
        (folder / "none").string() + ": cannot open: " + os::text_of(ENOENT));
  CHECK(says(error_of([&] { InputFile::open(folder / "loop"); }), "loop: cannot open: " + os::text_of(ELOOP)));
  CHECK_FALSE(file_exists(folder / "none"));
  CHECK_FALSE(file_exists(folder / "none/none"));
  CHECK_THROWS_AS(file_exists(folder / "loop"), Error);
  CHECK(file_exists(folder / "."));
}

TEST_CASE("what the disk says of a read is what the error says") {
  TemporaryFolder folder;
  const auto file = InputFile::open(folder.write("file", bytes_of_text("some text")));
  std::vector<std::byte> into(9);
  {
    const testing::FailingReads broken(EIO);
    CHECK(error_of([&] { file->read_all(0, into, "row 7"); }) ==
          file->name() + ": row 7: cannot read: " + os::text_of(EIO));
  }
  file->read_all(0, into, "row 7");
  CHECK(error_of([&] { file->read_all(4, into, "row 7"); }) ==
        file->name() + ": row 7: the file ends at byte 9, expected 13: did it shrink while it was open?");
}

TEST_CASE("a descriptor that the program closed is an error that says so, and never another file's bytes") {
  TemporaryFolder folder;
  const auto path = folder.write("file", bytes_of_text("what is right")),
             other = folder.write("other", bytes_of_text("what is wrong"));
  const auto map = MappedFile::open(path);
  const std::shared_ptr<const InputFile>& file = map->file();
  std::vector<std::byte> into(13);
  const auto errors = [&] {
    return std::vector<std::string>{error_of([&] { file->read_all(0, into, "row"); }),
                                    error_of([&] { file->size_now(); }), error_of([&] { map->check_size(); }),
                                    error_of([&] { file->direct(); })};
  };
  ::close(file->descriptor());
  for (const std::string& error : errors()) {
    CHECK(error.starts_with(path.string() + ": "));
    CHECK(error.ends_with(": the program closed its descriptor"));
  }
  CHECK(file->check_descriptor() == EBADF);
  const int stranger = ::open(other.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(stranger == file->descriptor());
  for (const std::string& error : errors()) {
    CHECK(error.ends_with(": the program closed its descriptor, which now belongs to another file"));
  }
  CHECK(file->check_descriptor() == another_file);
  CHECK(std::memcmp(map->bytes().data(), "what is right", 13) == 0);
  const_cast<std::shared_ptr<const MappedFile>&>(map).reset();
  CHECK(::close(stranger) == 0);  // still the stranger's own
}

TEST_CASE("where files cannot be mapped they are mapped privately, or read" *
          doctest::skip(testing::mappings_always_work)) {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 3000; ++i) text += std::to_string(i) + " ";
  const auto path = folder.write("file", bytes_of_text(text));
  for (const auto kind : {NoMappings::Kind::none, NoMappings::Kind::shared, NoMappings::Kind::all}) {
    std::shared_ptr<const MappedFile> map;
    {
      const NoMappings without(kind);
      map = MappedFile::open(path);
    }
    CHECK(map->is_mapped() == (kind != NoMappings::Kind::all));
    const auto right = [&] {
      return map->bytes().size() == text.size() && std::memcmp(map->bytes().data(), text.data(), text.size()) == 0;
    };
    CHECK(right());
    map->check_size();
    map->will_need(0, text.size());
    CHECK(map->populate(0, text.size()) == 0);
    map->drop(0, text.size());  // of memory that no file backs this would lose the bytes
    CHECK(right());
  }
}

}  // namespace ple::file_test
