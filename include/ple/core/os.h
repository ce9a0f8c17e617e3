// SPDX-License-Identifier: Apache-2.0
// Everything the library asks of the operating system, but for io_uring (core/io_uring.h), as small functions: what
// they are for here, what they do in core/os_posix.h or core/os_windows.h. A port to another system is one more such
// file.
#pragma once

#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>

#include "ple/core/config.h"

namespace ple::inline PLE_ABI {

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

/// Of what is open, and of what a path leads to, links followed.
inline int get_status(int descriptor, FileStatus& status);
inline int get_status(const std::filesystem::path& path, FileStatus& status);

/// Never waits, as opening a pipe does for its other end, and never makes a terminal this process's.
inline int open_to_read(const std::filesystem::path& path);

/// What is open already, read past the page cache. ENOTSUP where the system cannot.
inline int reopen_direct(int descriptor);

/// A file to write and to read back, which must be new: a link of that name is not followed.
inline int create_new(const std::filesystem::path& path, unsigned permissions);

inline void close(int descriptor);

/// Fewer bytes than asked for may come; 0 at the file's end.
inline std::int64_t read_at(int descriptor, std::uint64_t offset, std::span<std::byte> into);

inline std::int64_t write_some(int descriptor, std::span<const std::byte> bytes);

/// Returns once everything is on the disk.
inline int sync(int descriptor);

/// Gives what is open the permissions of `like` and, as far as this process may, its owner and group.
inline int set_access(int descriptor, const FileStatus& like);

/// Gives `from` the name `to`, in one step, in place of a file that has it already.
inline int replace(const std::filesystem::path& from, const std::filesystem::path& to);

/// The names in a folder are on the disk when it returns, where the system can say so.
inline void sync_folder(const std::filesystem::path& folder);

/// Whether files can be made in a folder.
inline int check_writable(const std::filesystem::path& folder);

inline std::uint64_t process_id();

/// Letters that no other process, and no later call of this one, is likely to get.
inline std::string unlikely_name() {
  const auto now = static_cast<unsigned long long>(std::chrono::steady_clock::now().time_since_epoch().count());
  int here = 0;  // its address tells threads apart
  char text[64];
  std::snprintf(text, sizeof text, "%llx-%llx-%llx", static_cast<unsigned long long>(process_id()), now,
                static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(&here) >> 4));
  return text;
}

// --- memory

inline std::size_t page_size();

enum class Sharing : std::uint8_t { shared, copied };

/// The first `size` bytes of what is open, read-only; nullptr, and then `error` says why.
inline const std::byte* map(int descriptor, std::size_t size, Sharing sharing, int& error);
inline void unmap(const std::byte* address, std::size_t size);

/// A page that is zero again in a process that fork() made; nullptr where the system has none.
inline std::byte* map_wiped_page();

enum class Advice : std::uint8_t {
  will_need,  ///< the pages will be used soon
  drop,       ///< the process need not keep them
  populate,   ///< bring them in now; an error where they cannot be read
};

/// `begin` on a page's start.
inline int advise(const std::byte* begin, std::size_t size, Advice advice);

/// That reads will jump around, so that the system reads nothing ahead.
inline void expect_random_reads(int descriptor);

/// Asks the system to forget what its page cache has of what is open.
inline void drop_cache(int descriptor);

}  // namespace os

/// A hint that memory is worth larger pages, where the system has them: fewer page faults, fewer misses when addresses
/// are translated. The memory is still taken only as it is touched.
inline void use_huge_pages(std::span<std::byte> memory);

}  // namespace ple::inline PLE_ABI

#include "ple/core/os_posix.h"    // nothing elsewhere
#include "ple/core/os_windows.h"  // nothing elsewhere

#if !defined(__unix__) && !defined(__APPLE__) && !defined(_WIN32)
#error "ple/core/os.h knows POSIX and Windows; a port adds one file"
#endif
