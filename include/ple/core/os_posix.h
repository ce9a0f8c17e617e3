// SPDX-License-Identifier: Apache-2.0
// core/os.h for POSIX: Linux, macOS, BSD.
#pragma once

#if defined(__unix__) || defined(__APPLE__)

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "ple/core/config.h"
#include "ple/core/os.h"

namespace ple::inline PLE_ABI {
namespace os {

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

inline int open_to_read(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) return -errno;
  const int flags = ::fcntl(descriptor, F_GETFL);  // O_NONBLOCK makes io_uring refuse reads that wait for the disk
  if (flags >= 0) ::fcntl(descriptor, F_SETFL, flags & ~O_NONBLOCK);
  return descriptor;
}

inline int reopen_direct([[maybe_unused]] int descriptor) {
#if defined(__linux__)
  const std::string self = "/proc/self/fd/" + std::to_string(descriptor);  // works even if the name is gone
  const int direct = ::open(self.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  return direct < 0 ? -errno : direct;
#else
  return -ENOTSUP;
#endif
}

inline int create_new(const std::filesystem::path& path, unsigned permissions) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, permissions);
  return descriptor < 0 ? -errno : descriptor;
}

inline void close(int descriptor) { ::close(descriptor); }

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

inline int sync(int descriptor) {
  while (::fsync(descriptor) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

inline int set_access(int descriptor, const FileStatus& like) {
  FileStatus now;
  if (const int error = get_status(descriptor, now)) return error;
  unsigned permissions = like.permissions;
  if (now.group != like.group && ::fchown(descriptor, static_cast<::uid_t>(-1), static_cast<::gid_t>(like.group)) != 0)
    permissions &= ~070u;  // the old group's rights must not pass to another group
  if (now.owner != like.owner) {
    [[maybe_unused]] const int allowed =
        ::fchown(descriptor, static_cast<::uid_t>(like.owner), static_cast<::gid_t>(-1));
  }
  return ::fchmod(descriptor, static_cast<::mode_t>(permissions)) == 0 ? 0 : errno;
}

inline int replace(const std::filesystem::path& from, const std::filesystem::path& to) {
  return ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

inline void sync_folder(const std::filesystem::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

inline int check_writable(const std::filesystem::path& folder) {
  return ::access(folder.c_str(), W_OK | X_OK) == 0 ? 0 : errno;
}

inline std::uint64_t process_id() { return static_cast<std::uint64_t>(::getpid()); }

inline std::size_t page_size() { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

inline const std::byte* map(int descriptor, std::size_t size, Sharing sharing, int& error) {
  void* address =
      ::mmap(nullptr, size, PROT_READ, sharing == Sharing::shared ? MAP_SHARED : MAP_PRIVATE, descriptor, 0);
  error = address == MAP_FAILED ? errno : 0;
  return address == MAP_FAILED ? nullptr : static_cast<const std::byte*>(address);
}
inline void unmap(const std::byte* address, std::size_t size) { ::munmap(const_cast<std::byte*>(address), size); }

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
  return advice == Advice::populate && error == EINVAL ? 0 : error;  // unknown to older kernels
}

inline void expect_random_reads([[maybe_unused]] int descriptor) {
#if defined(POSIX_FADV_RANDOM)
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM);
#endif
}

inline void drop_cache([[maybe_unused]] int descriptor) {
#if defined(POSIX_FADV_DONTNEED)
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
#endif
}

}  // namespace os

inline void use_huge_pages([[maybe_unused]] std::span<std::byte> memory) {
#if defined(MADV_HUGEPAGE)
  const auto page = static_cast<std::uintptr_t>(os::page_size());
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::size_t before = static_cast<std::size_t>((page - address % page) % page);
  if (memory.size() > before) ::madvise(memory.data() + before, memory.size() - before, MADV_HUGEPAGE);
#endif
}

}  // namespace ple::inline PLE_ABI

#endif
