// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/os.h"

namespace ple::inline PLE_ABI {

/// A positioned read's result: bytes read, or the system's error number. Fewer bytes than asked for: end of file.
struct ReadResult {
  std::size_t bytes = 0;
  int error = 0;
};

/// Instead of a system error number: the descriptor now belongs to another file.
inline constexpr int another_file = -1;

/// Why a read failed, for messages. A descriptor that is closed or another file's is the program's fault.
inline std::string read_error_text(int error) {
  if (error == EBADF) return "the program closed its descriptor";
  if (error == another_file) return "the program closed its descriptor, which now belongs to another file";
  return os::text_of(error);
}

/// A file open for reading at any position, by any number of threads. It stays readable when renamed or deleted. A
/// program that closes all descriptors (a daemon, say) closes this one too; reads then fail.
class InputFile {
 public:
  /// Errors: ErrorCode::file if it cannot be opened or is not a regular file. Does not wait for a pipe or a device.
  static std::shared_ptr<const InputFile> open(const std::filesystem::path& path) {
    return std::shared_ptr<const InputFile>(new InputFile(path));
  }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile() {
    if (check_descriptor() == 0) os::close(descriptor_);  // else it belongs to someone else
  }

  const std::string& name() const { return name_; }
  std::uint64_t size() const { return size_; }  ///< at opening
  const FileIdentity& identity() const { return identity_; }
  int descriptor() const { return descriptor_; }

  /// 0 if the descriptor is still this file's, else an error for read_error_text().
  int check_descriptor() const {
    os::FileStatus status;
    if (const int error = os::get_status(descriptor_, status)) return error;
    return status.identity == identity_ ? 0 : another_file;
  }

  /// The current size. Errors: ErrorCode::file if the descriptor is no longer this file's.
  std::uint64_t size_now() const {
    os::FileStatus status;
    int error = os::get_status(descriptor_, status);
    if (error == 0 && status.identity != identity_) error = another_file;
    if (error != 0) fail(ErrorCode::file, name_, ": cannot read its size: ", read_error_text(error));
    return status.size;
  }

  /// Reads into.size() bytes from `offset`. Does not check the descriptor: see check_descriptor().
  ReadResult read(std::uint64_t offset, std::span<std::byte> into) const {
    std::size_t done = 0;
    while (done < into.size()) {
      const std::int64_t n = os::read_at(descriptor_, offset + done, into.subspan(done));
      if (n < 0) return {done, static_cast<int>(-n)};
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
      if (direct_) break;  // a direct read may end where the next offset is not aligned
    }
    return {done, 0};
  }

  /// Like read, but reading less is an error: ErrorCode::file, naming the file and `what`.
  void read_all(std::uint64_t offset, std::span<std::byte> into, const std::string& what) const {
    const int wrong = check_descriptor();
    const ReadResult result = wrong != 0 ? ReadResult{0, wrong} : read(offset, into);
    if (result.error != 0) fail(ErrorCode::file, name_, ": ", what, ": cannot read: ", read_error_text(result.error));
    if (result.bytes < into.size()) {
      fail(ErrorCode::file, name_, ": ", what, ": the file ends at byte ", offset + result.bytes, ", expected ",
           offset + into.size(), ": did it shrink while it was open?");
    }
  }

  /// The same file with direct I/O, past the page cache. Offsets, sizes and memory must be multiples of
  /// direct_alignment. Errors: ErrorCode::not_supported if the system or the file system cannot.
  std::shared_ptr<const InputFile> direct() const {
    return std::shared_ptr<const InputFile>(new InputFile(*this, Direct{}));
  }
  static constexpr std::size_t direct_alignment = 4096;

  /// Tells the system that reads are random, so that it reads nothing ahead.
  void expect_random_reads() const { os::expect_random_reads(descriptor_); }

  /// Asks the system to drop the file from its page cache, to measure a cold start.
  void drop_cache() const { os::drop_cache(descriptor_); }

 private:
  struct Direct {};

  explicit InputFile(const std::filesystem::path& path) : name_(path.string()) {
    os::FileStatus status;  // asked before opening, which has side effects on some devices
    const int error = os::get_status(path, status);
    if (error == 0) require_regular(status);
    descriptor_ = error == 0 ? os::open_to_read(path) : -error;
    if (descriptor_ < 0) fail(ErrorCode::file, name_, ": cannot open: ", os::text_of(-descriptor_));
    take_status();
  }

  InputFile(const InputFile& other, Direct) : name_(other.name_), direct_(true) {
    if (const int error = other.check_descriptor()) {
      fail(ErrorCode::file, name_, ": cannot read: ", read_error_text(error));
    }
    descriptor_ = os::reopen_direct(other.descriptor_);
    if (descriptor_ < 0) {
      fail(ErrorCode::not_supported, name_,
           ": cannot be opened for direct I/O (past the page cache): ", os::text_of(-descriptor_));
    }
    take_status();
  }

  void require_regular(const os::FileStatus& status) const {
    if (status.kind != os::FileKind::regular) fail(ErrorCode::file, name_, ": is not a regular file");
  }

  void take_status() {
    os::FileStatus status;
    const int error = os::get_status(descriptor_, status);
    if (error == 0 && status.kind == os::FileKind::regular) {
      size_ = status.size;
      identity_ = status.identity;
      return;
    }
    os::close(descriptor_);
    if (error != 0) fail(ErrorCode::file, name_, ": cannot read its size: ", os::text_of(error));
    require_regular(status);
  }

  std::string name_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  FileIdentity identity_;
  bool direct_ = false;
};
using File = InputFile;  ///< Old name; goes with the next version.

/// The status of `path`, if it exists. Errors: ErrorCode::file if that is unknown (looped links, no permission).
inline std::optional<os::FileStatus> find_file(const std::filesystem::path& path) {
  os::FileStatus status;
  const int error = os::get_status(path, status);
  if (error == 0) return status;
  if (error == ENOENT || error == ENOTDIR) return std::nullopt;
  fail(ErrorCode::file, path.string(), ": cannot open: ", os::text_of(error));
}
inline bool file_exists(const std::filesystem::path& path) { return find_file(path).has_value(); }
inline bool is_folder(const std::filesystem::path& path) {
  const auto status = find_file(path);
  return status && status->kind == os::FileKind::folder;
}

}  // namespace ple::inline PLE_ABI
