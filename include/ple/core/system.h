// SPDX-License-Identifier: Apache-2.0
// Everything the library asks of the operating system, but for io_uring (core/io_uring.h). A port to another system
// replaces this file.
#pragma once

#if !defined(__unix__) && !defined(__APPLE__)
#error "ple/core/system.h knows POSIX systems only; a port adds this one file"
#endif

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <span>
#include <string>

#include "ple/core/config.h"
#include "ple/core/error.h"

namespace ple {
inline namespace PLE_ABI {

static_assert(std::endian::native == std::endian::little, "model files are little-endian, and so must the machine be");

/// What a positioned read did: bytes read, or the system's error number. Fewer bytes than asked for: the file's end.
struct ReadResult {
  std::size_t bytes = 0;
  int error = 0;
};

/// A file open for reading at any position, by any number of threads at once. It stays readable if it is renamed or
/// deleted.
class File {
 public:
  /// Errors: ErrorCode::file if it cannot be opened or is not a regular file.
  static std::shared_ptr<const File> open(const std::filesystem::path& path) {
    return std::shared_ptr<const File>(new File(path, path.string(), O_RDONLY | O_CLOEXEC));
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { ::close(descriptor_); }

  const std::string& name() const { return name_; }
  std::uint64_t size() const { return size_; }  ///< when it was opened
  int descriptor() const { return descriptor_; }

  /// Its size now; 0 if the system does not tell.
  std::uint64_t size_now() const {
    struct stat status = {};
    return ::fstat(descriptor_, &status) == 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
  }

  /// Reads into.size() bytes from `offset` on.
  ReadResult read(std::uint64_t offset, std::span<std::byte> into) const {
    std::size_t done = 0;
    while (done < into.size()) {
      const ssize_t n = ::pread(descriptor_, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return {done, errno};
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
      if (direct_) break;  // where a direct read stops, its next offset need not be aligned
    }
    return {done, 0};
  }

  /// As read, for callers to whom less is an error: ErrorCode::file naming the file and `what`.
  void read_all(std::uint64_t offset, std::span<std::byte> into, const std::string& what) const {
    const ReadResult result = read(offset, into);
    if (result.error != 0) fail(ErrorCode::file, name_, ": ", what, ": cannot read: ", std::strerror(result.error));
    if (result.bytes < into.size()) {
      fail(ErrorCode::file, name_, ": ", what, ": the file ends at byte ", offset + result.bytes, ", expected ",
           offset + into.size(), ": did it shrink while it was open?");
    }
  }

  /// The same file read past the operating system's page cache. Offsets, sizes and memory must then be multiples of
  /// direct_alignment. Errors: ErrorCode::not_supported where system or file system cannot.
  std::shared_ptr<const File> direct() const {
#if defined(__linux__)
    // Through /proc it is the same file even if its name is gone.
    const std::string self = "/proc/self/fd/" + std::to_string(descriptor_);
    const int descriptor = ::open(self.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
    if (descriptor < 0) {
      fail(ErrorCode::not_supported, name_, ": its file system has no direct reads: ", std::strerror(errno));
    }
    std::shared_ptr<File> file(new File(name_, descriptor));
    file->direct_ = true;
    return file;
#else
    fail(ErrorCode::not_supported, name_, ": direct reads are not supported on this system");
#endif
  }
  static constexpr std::size_t direct_alignment = 4096;

  /// Tells the system that reads will jump around, so that it reads nothing ahead.
  void expect_random_reads() const {
#if defined(POSIX_FADV_RANDOM)
    ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);
#endif
  }

  /// Asks the system to forget what it keeps of the file in its page cache: for measuring a cold start.
  void drop_cache() const {
#if defined(POSIX_FADV_DONTNEED)
    ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED);
#endif
  }

 private:
  File(const std::filesystem::path& path, std::string name, int flags) : name_(std::move(name)) {
    descriptor_ = ::open(path.c_str(), flags);
    if (descriptor_ < 0) fail(ErrorCode::file, name_, ": cannot open: ", std::strerror(errno));
    check();
  }
  File(std::string name, int descriptor) : name_(std::move(name)), descriptor_(descriptor) { check(); }

  void check() {
    struct stat status = {};
    const bool known = ::fstat(descriptor_, &status) == 0;
    const int error = errno;
    if (known && S_ISREG(status.st_mode)) {
      size_ = static_cast<std::uint64_t>(status.st_size);
      return;
    }
    ::close(descriptor_);
    if (!known) fail(ErrorCode::file, name_, ": cannot read its size: ", std::strerror(error));
    fail(ErrorCode::file, name_, ": is not a regular file");
  }

  std::string name_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
  bool direct_ = false;
};

/// A file that is written from front to back. An old one of that name is emptied first.
class OutputFile {
 public:
  /// Errors: ErrorCode::file, as of all that follows.
  explicit OutputFile(const std::filesystem::path& path) : name_(path.string()) {
    descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(ErrorCode::file, name_, ": cannot write: ", std::strerror(errno));
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() { ::close(descriptor_); }

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(descriptor_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(ErrorCode::file, name_, ": cannot write at byte ", size_, ": ", std::strerror(errno));
      size_ += static_cast<std::uint64_t>(n);
      bytes = bytes.subspan(static_cast<std::size_t>(n));
    }
  }

  /// Returns once everything is on the disk: some file systems find out only then that it is full.
  void sync() {
    if (::fsync(descriptor_) != 0) fail(ErrorCode::file, name_, ": cannot write to disk: ", std::strerror(errno));
  }

  std::uint64_t size() const { return size_; }

 private:
  std::string name_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

/// Gives `from` the name `to`, in place of a file that has it already, in one step. The new name is on the disk when
/// it returns, where the system can say so. Errors: ErrorCode::file.
inline void replace_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    fail(ErrorCode::file, to.string(), ": cannot take the place of an older file: ", std::strerror(errno));
  }
  const std::filesystem::path folder = to.parent_path().empty() ? "." : to.parent_path();
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

/// A whole file, mapped read-only: pages come in when they are touched and may leave again at any time.
class MappedFile {
 public:
  /// Errors: ErrorCode::file if the file cannot be opened, is not a regular file, or cannot be mapped.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path) {
    return std::shared_ptr<const MappedFile>(new MappedFile(File::open(path)));
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::shared_ptr<const File>& file() const { return file_; }

  /// Touching a page of a file that has become shorter ends the process, so who uses one asks first.
  /// Errors: ErrorCode::file, naming both sizes.
  void check_size() const {
    const std::uint64_t now = file_->size_now();
    if (now < bytes_.size()) {
      fail(ErrorCode::file, file_->name(), ": has ", now, " bytes, but had ", bytes_.size(),
           " when it was opened: it shrank while in use");
    }
  }

  /// Hints, for `size` bytes from `offset` on: they will be needed soon; the process need not keep them in memory.
  void will_need(std::uint64_t offset, std::uint64_t size) const { advise(offset, size, MADV_WILLNEED, false); }
  void drop(std::uint64_t offset, std::uint64_t size) const { advise(offset, size, MADV_DONTNEED, true); }

  /// Brings the bytes into memory; an error number where they cannot be read (touching them would end the process).
  int populate(std::uint64_t offset, std::uint64_t size) const {
#if defined(MADV_POPULATE_READ)
    const int error = advise(offset, size, MADV_POPULATE_READ, false);
    return error == EINVAL ? 0 : error;  // older kernels do not know it
#else
    static_cast<void>(offset), static_cast<void>(size);
    return 0;
#endif
  }

 private:
  explicit MappedFile(std::shared_ptr<const File> file) : file_(std::move(file)) {
    const std::uint64_t size = file_->size();
    if (size > (std::numeric_limits<std::size_t>::max)()) {
      fail(ErrorCode::file, file_->name(), ": is too large for this machine's addresses");
    }
    if (size == 0) return;
    void* address = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_SHARED, file_->descriptor(), 0);
    if (address == MAP_FAILED) fail(ErrorCode::file, file_->name(), ": cannot map: ", std::strerror(errno));
    bytes_ = {static_cast<const std::byte*>(address), static_cast<std::size_t>(size)};
  }

  /// The pages that hold the range; only those that lie in it whole if `inside`.
  int advise(std::uint64_t offset, std::uint64_t size, int advice, bool inside) const {
    const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const std::uint64_t begin = (inside ? offset + page - 1 : offset) / page * page;
    const std::uint64_t end = inside ? (offset + size) / page * page : offset + size;
    if (begin >= end) return 0;
    return ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, advice) == 0 ? 0 : errno;
  }

  std::shared_ptr<const File> file_;
  std::span<const std::byte> bytes_;
};

/// A hint that memory is worth larger pages, where the system has them: fewer page faults, fewer misses when addresses
/// are translated. The memory is still taken only as it is touched.
inline void use_huge_pages(std::span<std::byte> memory) {
#if defined(MADV_HUGEPAGE)
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::size_t before = static_cast<std::size_t>((page - address % page) % page);
  if (memory.size() > before) ::madvise(memory.data() + before, memory.size() - before, MADV_HUGEPAGE);
#else
  static_cast<void>(memory);
#endif
}

/// What the process holds in memory, in bytes. All zero where the system does not tell.
struct MemoryUse {
  std::uint64_t resident = 0;   ///< everything in RAM, pages of mapped files included
  std::uint64_t anonymous = 0;  ///< the part of `resident` that no file backs: it cannot be dropped, only swapped
};

/// Linux: VmRSS and RssAnon of /proc/self/status.
inline MemoryUse memory_use() {
  MemoryUse use;
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    std::uint64_t kib = 0;
    if (key == "VmRSS:" && status >> kib) use.resident = kib * 1024;
    if (key == "RssAnon:" && status >> kib) use.anonymous = kib * 1024;
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return use;
}

}  // namespace PLE_ABI
}  // namespace ple
