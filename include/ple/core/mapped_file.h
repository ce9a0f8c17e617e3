// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/memory.h"
#include "ple/core/os.h"

namespace ple::inline PLE_ABI {

/// A whole file, mapped read-only: pages are loaded when touched and may be dropped at any time. Where the file system
/// cannot map (some network and user-space ones), the whole file is read into memory at opening; see is_mapped().
class MappedFile {
 public:
  /// Errors: ErrorCode::file if the file cannot be opened, is not a regular file, or can neither be mapped nor read.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path) {
    return std::shared_ptr<const MappedFile>(new MappedFile(InputFile::open(path)));
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (is_mapped()) os::unmap(bytes_.data(), bytes_.size());
  }

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::shared_ptr<const InputFile>& file() const { return file_; }

  /// False for an empty file, and where the file system cannot map and the file was read into memory.
  bool is_mapped() const { return !bytes_.empty() && copy_.empty(); }

  /// Ask before use: touching a page past the end of a file that has shrunk kills the process. Errors: ErrorCode::file,
  /// naming both sizes; also if the program closed the file's descriptor, since then nobody can tell.
  void check_size() const {
    if (!is_mapped()) return;
    const std::uint64_t now = file_->size_now();
    if (now < bytes_.size()) {
      fail(ErrorCode::file, file_->name(), ": has ", now, " bytes, but had ", bytes_.size(),
           " when it was opened: it shrank while in use");
    }
  }

  /// Hints for `size` bytes from `offset`: they are needed soon, or need not stay in memory.
  void will_need(std::uint64_t offset, std::uint64_t size) const { advise(offset, size, os::Advice::will_need, false); }
  void drop(std::uint64_t offset, std::uint64_t size) const { advise(offset, size, os::Advice::drop, true); }

  /// Loads the bytes into memory. Returns an error number if they cannot be read: touching them would kill the process.
  int populate(std::uint64_t offset, std::uint64_t size) const {
    return advise(offset, size, os::Advice::populate, false);
  }

 private:
  explicit MappedFile(std::shared_ptr<const InputFile> file) : file_(std::move(file)) {
    const std::uint64_t size64 = file_->size();
    if (size64 > (std::numeric_limits<std::size_t>::max)()) {
      fail(ErrorCode::file, file_->name(), ": is too large for this machine's addresses");
    }
    const auto size = static_cast<std::size_t>(size64);
    if (size == 0) return;
    int error = 0;
    // A private mapping asks less of a file system: it need only fill pages.
    for (const os::Sharing sharing : {os::Sharing::shared, os::Sharing::copied}) {
      if (const std::byte* address = os::map(file_->descriptor(), size, sharing, error)) {
        bytes_ = {address, size};
        return;
      }
      const bool cannot_map = error == ENODEV || error == EINVAL || error == EACCES || error == EPERM ||
                              error == ENOTSUP || error == ENOSYS;
      if (!cannot_map) fail(ErrorCode::file, file_->name(), ": cannot map: ", os::text_of(error));
    }
    copy_.resize(size);
    file_->read_all(0, copy_, "reading it into memory, because its file system cannot map it");
    bytes_ = copy_;
  }

  /// Covers all pages that touch the range; if `inside`, only pages that lie wholly in it.
  int advise(std::uint64_t offset, std::uint64_t size, os::Advice advice, bool inside) const {
    if (!is_mapped()) return 0;
    const std::uint64_t page = os::page_size();
    const std::uint64_t begin = (inside ? offset + page - 1 : offset) / page * page;
    const std::uint64_t end = inside ? (offset + size) / page * page : offset + size;
    if (begin >= end) return 0;
    return os::advise(bytes_.data() + begin, static_cast<std::size_t>(end - begin), advice);
  }

  std::shared_ptr<const InputFile> file_;
  std::span<const std::byte> bytes_;
  AlignedVector<std::byte> copy_;  // used where the file cannot be mapped
};

}  // namespace ple::inline PLE_ABI
