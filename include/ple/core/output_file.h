// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/os.h"

namespace ple::inline PLE_ABI {

/// Where a file is to be written, and the file already there.
struct OutputPlace {
  std::filesystem::path path;  ///< links resolved
  std::optional<os::FileStatus> old;

  std::filesystem::path folder() const { return path.parent_path(); }
};

/// Checks that a file can be written to `path`; changes nothing. A link stays a link: the place is its target. Errors:
/// ErrorCode::file for a folder, a device, a pipe, a socket, a dangling link, and a folder that is missing or not
/// writable; ErrorCode::argument for one of `inputs`, the files that the same work reads.
inline OutputPlace check_output_path(const std::filesystem::path& path, std::span<const FileIdentity> inputs = {}) {
  const auto refuse = [&](const auto&... parts) { fail(ErrorCode::file, path.string(), ": cannot write: ", parts...); };
  if (!path.has_filename()) refuse("the path has no file name");
  OutputPlace place;
  os::FileStatus status;
  std::error_code error;
  const int missing = os::get_status(path, status);
  if (missing == 0) {
    if (status.kind == os::FileKind::folder) refuse("is a folder");
    if (status.kind == os::FileKind::other) refuse("is a device, a pipe or a socket, expected a regular file");
    if (std::find(inputs.begin(), inputs.end(), status.identity) != inputs.end()) {
      fail(ErrorCode::argument, path.string(), ": cannot write: is one of the files that are read");
    }
    place.old = status;
    place.path = std::filesystem::canonical(path, error);
  } else if (missing != ENOENT) {
    refuse(os::text_of(missing));
  } else if (std::filesystem::is_symlink(path, error)) {
    refuse("is a link that leads nowhere");
  } else {
    place.path = std::filesystem::canonical(path.has_parent_path() ? path.parent_path() : ".", error) / path.filename();
  }
  if (error) refuse(error.message(), ": folder ", path.parent_path().string());
  if (const int denied = os::check_writable(place.folder())) {
    refuse(os::text_of(denied), ": folder ", place.folder().string());
  }
  return place;
}

/// The identities of those files that exist: for `inputs` above.
template <class Paths>
std::vector<FileIdentity> identities_of(const Paths& paths) {
  std::vector<FileIdentity> identities;
  for (const std::filesystem::path& path : paths) {
    os::FileStatus status;
    if (os::get_status(path, status) == 0) identities.push_back(status.identity);
  }
  return identities;
}

/// A new file, written from front to back.
class OutputFile {
 public:
  /// `name` is for messages. Errors here and below: ErrorCode::file; here also if `path` exists, even as a link.
  OutputFile(const std::filesystem::path& path, std::string name, unsigned permissions = 0666)
      : name_(std::move(name)) {
    descriptor_ = os::create_new(path, permissions);
    if (descriptor_ < 0) fail(ErrorCode::file, name_, ": cannot write: ", os::text_of(-descriptor_));
    os::FileStatus status;
    if (const int error = os::get_status(descriptor_, status)) {
      os::close(descriptor_);
      fail(ErrorCode::file, name_, ": cannot write: ", os::text_of(error));
    }
    identity_ = status.identity;
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() {
    if (check_descriptor() == 0) os::close(descriptor_);  // else it belongs to someone else
  }

  void write(std::span<const std::byte> bytes) {
    require_descriptor();
    while (!bytes.empty()) {
      const std::int64_t n = os::write_some(descriptor_, bytes);
      if (n < 0) {
        fail(ErrorCode::file, name_, ": cannot write at byte ", size_, ": ", os::text_of(static_cast<int>(-n)));
      }
      size_ += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

  /// Returns once the data is on the disk: some file systems notice only then that they are full.
  void sync() {
    require_descriptor();
    if (const int error = os::sync(descriptor_)) {
      fail(ErrorCode::file, name_, ": cannot write to disk: ", os::text_of(error));
    }
  }

  void read_all(std::uint64_t offset, std::span<std::byte> into) const {
    require_descriptor();
    while (!into.empty()) {
      const std::int64_t n = os::read_at(descriptor_, offset, into);
      if (n < 0) fail(ErrorCode::file, name_, ": cannot read back: ", os::text_of(static_cast<int>(-n)));
      if (n == 0) fail(ErrorCode::file, name_, ": cannot read back: ends at byte ", offset, ", expected ", size_);
      offset += static_cast<std::uint64_t>(n);
      into = into.subspan(static_cast<std::size_t>(n));
    }
  }

  /// Takes a file's permissions and, as far as the process may, its owner, where the file system has such things.
  void set_access(const os::FileStatus& like) { static_cast<void>(os::set_access(descriptor_, like)); }

  std::uint64_t size() const { return size_; }
  const FileIdentity& identity() const { return identity_; }

 private:
  int check_descriptor() const {
    os::FileStatus status;
    if (const int error = os::get_status(descriptor_, status)) return error;
    return status.identity == identity_ ? 0 : another_file;
  }
  void require_descriptor() const {
    if (const int error = check_descriptor()) fail(ErrorCode::file, name_, ": cannot write: ", read_error_text(error));
  }

  std::string name_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  FileIdentity identity_;
};

}  // namespace ple::inline PLE_ABI
