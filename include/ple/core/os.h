// SPDX-License-Identifier: Apache-2.0
// All calls to the operating system except io_uring (core/io_uring.h), as small functions: declared here, defined in
// core/os_posix.h and core/os_windows.h. A port adds one such file.
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

static_assert(std::endian::native == std::endian::little, "model files are little-endian, so the machine must be, too");

/// Identifies a file whatever its names: paths and descriptors lead to the same file if these are equal.
struct FileIdentity {
  std::uint64_t device = 0, number = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

/// Functions that can fail return 0 or the system's error number; those that return a descriptor or a count return the
/// negative error number. Calls that a signal interrupts are repeated.
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

/// Of an open file, and of what a path leads to after following links.
inline int get_status(int descriptor, FileStatus& status);
inline int get_status(const std::filesystem::path& path, FileStatus& status);

/// Does not wait for a pipe's other end, nor make a terminal the controlling one.
inline int open_to_read(const std::filesystem::path& path);

/// Reopens an open file for direct I/O, past the page cache. ENOTSUP where the system cannot.
inline int reopen_direct(int descriptor);

/// Creates a file to write and read back. Fails if the name is taken, even by a link.
inline int create_new(const std::filesystem::path& path, unsigned permissions);

inline void close(int descriptor);

/// May read fewer bytes than asked for; 0 at the end of the file.
inline std::int64_t read_at(int descriptor, std::uint64_t offset, std::span<std::byte> into);

inline std::int64_t write_some(int descriptor, std::span<const std::byte> bytes);

inline int sync(int descriptor);  ///< returns once the data is on the disk

/// Sets the permissions of `like` and, as far as this process may, its owner and group.
inline int set_access(int descriptor, const FileStatus& like);

/// Renames `from` to `to` in one step, replacing a file there.
inline int replace(const std::filesystem::path& from, const std::filesystem::path& to);

/// Returns once the folder's names are on the disk, where the system can tell.
inline void sync_folder(const std::filesystem::path& folder);

inline int check_writable(const std::filesystem::path& folder);  ///< whether files can be created in the folder

inline std::uint64_t process_id();

/// A name that no other process and no later call is likely to get.
inline std::string unlikely_name() {
  const auto now = static_cast<unsigned long long>(std::chrono::steady_clock::now().time_since_epoch().count());
  int here = 0;  // its address tells threads apart
  char text[64];
  std::snprintf(text, sizeof text, "%llx-%llx-%llx", static_cast<unsigned long long>(process_id()), now,
                static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(&here) >> 4));
  return text;
}

inline std::size_t page_size();

enum class Sharing : std::uint8_t { shared, copied };

/// Maps the first `size` bytes of an open file, read-only. On failure returns nullptr and sets `error`.
inline const std::byte* map(int descriptor, std::size_t size, Sharing sharing, int& error);
inline void unmap(const std::byte* address, std::size_t size);

inline std::byte* map_wiped_page();  ///< a page that fork() zeroes in the child; nullptr where the system has none

enum class Advice : std::uint8_t {
  will_need,  ///< the pages will be used soon
  drop,       ///< the pages need not stay in memory
  populate,   ///< load the pages now; an error if they cannot be read
};

inline int advise(const std::byte* begin, std::size_t size, Advice advice);  ///< `begin` must be the start of a page

/// Tells the system that reads are random, so that it reads nothing ahead.
inline void expect_random_reads(int descriptor);

inline void drop_cache(int descriptor);  ///< asks the system to drop the open file's pages from its cache

}  // namespace os

/// Asks for huge pages, where the system has them: fewer page faults and TLB misses. Memory is still taken as touched.
inline void use_huge_pages(std::span<std::byte> memory);

}  // namespace ple::inline PLE_ABI

#include "ple/core/os_posix.h"    // empty on other systems
#include "ple/core/os_windows.h"  // empty on other systems

#if !defined(__unix__) && !defined(__APPLE__) && !defined(_WIN32)
#error "ple/core/os.h supports POSIX and Windows; a port adds one file"
#endif
