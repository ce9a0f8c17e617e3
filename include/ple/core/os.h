// SPDX-License-Identifier: Apache-2.0
// Everything the library asks of the operating system, but for io_uring (core/io_uring.h), as small functions. A port
// to another system replaces this file.
#pragma once

#if !defined(__unix__) && !defined(__APPLE__)
#error "ple/core/os.h knows POSIX systems only; a port adds this one file"
#endif

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>

#include "ple/core/config.h"

namespace ple {
inline namespace PLE_ABI {

static_assert(std::endian::native == std::endian::little, "model files are little-endian, and so must the machine be");

/// Which file it is, whatever its names: two paths, or a path and what is open, lead to one file if these are equal.
struct FileIdentity {
  std::uint64_t device = 0, number = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

/// Functions that can fail return the system's error number, or 0; those that return a descriptor or a count return the
/// negative error number instead. A call that a signal interrupts is made again.
namespace os {

inline std::string text_of(int error) { return std::generic_category().message(error); }

enum class FileKind : std::uint8_t {
  regular,
  folder,
  other  ///< a device, a pipe, a socket
};

struct FileStatus {
  FileKind kind = FileKind::other;
  std::uint64_t size = 0;
  FileIdentity identity;
  unsigned permissions = 0;
  std::uint64_t owner = 0, group = 0;
};

namespace detail {

inline FileStatus status_from(const struct ::stat& s) {
  FileStatus status;
  status.kind = S_ISREG(s.st_mode) ? FileKind::regular : S_ISDIR(s.st_mode) ? FileKind::folder : FileKind::other;
  status.size = static_cast<std::uint64_t>(s.st_size);
  status.identity = {static_cast<std::uint64_t>(s.st_dev), static_cast<std::uint64_t>(s.st_ino)};
  status.permissions = static_cast<unsigned>(s.st_mode) & 0777u;
  status.owner = static_cast<std::uint64_t>(s.st_uid);
  status.group = static_cast<std::uint64_t>(s.st_gid);
  return status;
}

}  // namespace detail

/// Of what is open, and of what a path leads to, links followed.
inline int get_status(int descriptor, FileStatus& status) {
  struct ::stat s = {};
  if (::fstat(descriptor, &s) != 0) return errno;
  status = detail::status_from(s);
  return 0;
}
inline int get_status(const std::filesystem::path& path, FileStatus& status) {
  struct ::stat s = {};
  if (::stat(path.c_str(), &s) != 0) return errno;
  status = detail::status_from(s);
  return 0;
}

/// Never waits, as opening a pipe does for its other end, and never makes a terminal this process's.
inline int open_to_read(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) return -errno;
  // With the flag on, io_uring takes a read that has to wait for the disk for one that must not be made.
  const int flags = ::fcntl(descriptor, F_GETFL);
  if (flags >= 0) ::fcntl(descriptor, F_SETFL, flags & ~O_NONBLOCK);
  return descriptor;
}

/// What is open already, read past the page cache. ENOTSUP where the system cannot.
inline int reopen_direct([[maybe_unused]] int descriptor) {
#if defined(__linux__)
  // Through /proc it is the same file even if its name is gone.
  const std::string self = "/proc/self/fd/" + std::to_string(descriptor);
  const int direct = ::open(self.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  return direct < 0 ? -errno : direct;
#else
  return -ENOTSUP;
#endif
}

/// A file to write and to read back, which must be new: a link of that name is not followed.
inline int create_new(const std::filesystem::path& path, unsigned permissions) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, permissions);
  return descriptor < 0 ? -errno : descriptor;
}

inline void close(int descriptor) { ::close(descriptor); }

/// Fewer bytes than asked for may come; 0 at the file's end.
inline std::int64_t read_at(int descriptor, std::uint64_t offset, std::span<std::byte> into) {
  while (true) {
    const ::ssize_t n = ::pread(descriptor, into.data(), into.size(), static_cast<::off_t>(offset));
    if (n >= 0) return n;
    if (errno != EINTR) return -errno;
  }
}

inline std::int64_t write_some(int descriptor, std::span<const std::byte> bytes) {
  while (true) {
    const ::ssize_t n = ::write(descriptor, bytes.data(), bytes.size());
    if (n >= 0) return n;
    if (errno != EINTR) return -errno;
  }
}

/// Returns once everything is on the disk.
inline int sync(int descriptor) {
  while (::fsync(descriptor) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

/// Gives what is open the permissions of `like` and, as far as this process may, its owner and group.
inline int set_access(int descriptor, const FileStatus& like) {
  FileStatus now;
  if (const int error = get_status(descriptor, now)) return error;
  unsigned permissions = like.permissions;
  if (now.group != like.group && ::fchown(descriptor, static_cast<::uid_t>(-1), static_cast<::gid_t>(like.group)) != 0)
    permissions &= ~070u;  // what one group may do, another may not
  if (now.owner != like.owner) {
    [[maybe_unused]] const int allowed =
        ::fchown(descriptor, static_cast<::uid_t>(like.owner), static_cast<::gid_t>(-1));
  }
  return ::fchmod(descriptor, static_cast<::mode_t>(permissions)) == 0 ? 0 : errno;
}

/// Gives `from` the name `to`, in one step, in place of a file that has it already.
inline int replace(const std::filesystem::path& from, const std::filesystem::path& to) {
  return ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

/// The names in a folder are on the disk when it returns, where the system can say so.
inline void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

/// Whether files can be made in a folder.
inline int check_writable(const std::filesystem::path& folder) {
  return ::access(folder.c_str(), W_OK | X_OK) == 0 ? 0 : errno;
}

/// Letters that no other process, and no later call of this one, is likely to get.
inline std::string unlikely_name() {
  const auto now = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  int here = 0;  // its address tells threads apart
  char text[64];
  std::snprintf(text, sizeof text, "%lx-%llx-%llx", static_cast<unsigned long>(::getpid()),
                static_cast<unsigned long long>(now),
                static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(&here) >> 4));
  return text;
}

inline std::uint64_t process_id() { return static_cast<std::uint64_t>(::getpid()); }

// --- memory

inline std::size_t page_size() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

enum class Sharing : std::uint8_t { shared, copied };

/// The first `size` bytes of what is open, read-only; nullptr, and then `error` says why.
inline const std::byte* map(int descriptor, std::size_t size, Sharing sharing, int& error) {
  void* address =
      ::mmap(nullptr, size, PROT_READ, sharing == Sharing::shared ? MAP_SHARED : MAP_PRIVATE, descriptor, 0);
  error = address == MAP_FAILED ? errno : 0;
  return address == MAP_FAILED ? nullptr : static_cast<const std::byte*>(address);
}
inline void unmap(const std::byte* address, std::size_t size) { ::munmap(const_cast<std::byte*>(address), size); }

/// A page that is zero again in a process that fork() made; nullptr where the system has none.
inline std::byte* map_wiped_page() {
#if defined(MADV_WIPEONFORK)
  const std::size_t size = page_size();
  void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  if (::madvise(address, size, MADV_WIPEONFORK) == 0) return static_cast<std::byte*>(address);
  ::munmap(address, size);
#endif
  return nullptr;
}

enum class Advice : std::uint8_t {
  will_need,  ///< the pages will be used soon
  drop,       ///< the process need not keep them
  populate,   ///< bring them in now; an error where they cannot be read
};

/// `begin` on a page's start.
inline int advise(const std::byte* begin, std::size_t size, Advice advice) {
  int number = MADV_WILLNEED;
  if (advice == Advice::drop) number = MADV_DONTNEED;
  if (advice == Advice::populate) {
#if defined(MADV_POPULATE_READ)
    number = MADV_POPULATE_READ;
#else
    return 0;
#endif
  }
  const int error = ::madvise(const_cast<std::byte*>(begin), size, number) == 0 ? 0 : errno;
  return advice == Advice::populate && error == EINVAL ? 0 : error;  // older kernels do not know it
}

/// That reads will jump around, so that the system reads nothing ahead.
inline void expect_random_reads([[maybe_unused]] int descriptor) {
#if defined(POSIX_FADV_RANDOM)
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM);
#endif
}

/// Asks the system to forget what its page cache has of what is open.
inline void drop_cache([[maybe_unused]] int descriptor) {
#if defined(POSIX_FADV_DONTNEED)
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
#endif
}

}  // namespace os

/// A hint that memory is worth larger pages, where the system has them: fewer page faults, fewer misses when addresses
/// are translated. The memory is still taken only as it is touched.
inline void use_huge_pages([[maybe_unused]] std::span<std::byte> memory) {
#if defined(MADV_HUGEPAGE)
  const auto page = static_cast<std::uintptr_t>(os::page_size());
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::size_t before = static_cast<std::size_t>((page - address % page) % page);
  if (memory.size() > before) ::madvise(memory.data() + before, memory.size() - before, MADV_HUGEPAGE);
#endif
}

}  // namespace PLE_ABI
}  // namespace ple
