// SPDX-License-Identifier: Apache-2.0
// core/os.h for Windows. It declares the system's functions itself, because <windows.h> defines about a hundred common
// names as macros, in every file that includes ple. Source: learn.microsoft.com/windows/win32.
#pragma once

#if defined(_WIN32)

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <system_error>

#include "ple/core/config.h"
#include "ple/core/os.h"

struct _BY_HANDLE_FILE_INFORMATION;
struct _OVERLAPPED;
struct _SECURITY_ATTRIBUTES;

extern "C" {
__declspec(dllimport) void* __stdcall CreateFileW(const wchar_t*, unsigned long, unsigned long, _SECURITY_ATTRIBUTES*,
                                                  unsigned long, unsigned long, void*);
__declspec(dllimport) int __stdcall CloseHandle(void*);
__declspec(dllimport) unsigned long __stdcall GetLastError();
__declspec(dllimport) unsigned long __stdcall GetFileType(void*);
__declspec(dllimport) int __stdcall GetFileInformationByHandle(void*, _BY_HANDLE_FILE_INFORMATION*);
__declspec(dllimport) int __stdcall ReadFile(void*, void*, unsigned long, unsigned long*, _OVERLAPPED*);
__declspec(dllimport) int __stdcall WriteFile(void*, const void*, unsigned long, unsigned long*, _OVERLAPPED*);
__declspec(dllimport) int __stdcall FlushFileBuffers(void*);
__declspec(dllimport) int __stdcall MoveFileExW(const wchar_t*, const wchar_t*, unsigned long);
__declspec(dllimport) unsigned long __stdcall GetCurrentProcessId();
__declspec(dllimport) void* __stdcall CreateFileMappingW(void*, _SECURITY_ATTRIBUTES*, unsigned long, unsigned long,
                                                         unsigned long, const wchar_t*);
__declspec(dllimport) void* __stdcall MapViewOfFile(void*, unsigned long, unsigned long, unsigned long,
                                                    unsigned long long);
__declspec(dllimport) int __stdcall UnmapViewOfFile(const void*);
}

namespace ple::inline PLE_ABI {
namespace os {

namespace detail {

/// BY_HANDLE_FILE_INFORMATION.
struct FileInformation {
  std::uint32_t attributes, times[6], volume, size_high, size_low, links, index_high, index_low;
};

/// OVERLAPPED: where to read.
struct Place {
  std::uintptr_t internal[2];
  std::uint32_t offset_low, offset_high;
  void* event;
};

/// A descriptor is the number of a handle: only 32 bits of it count, on 64-bit Windows too.
inline void* handle_of(int descriptor) { return reinterpret_cast<void*>(static_cast<std::intptr_t>(descriptor)); }

inline int last_error() {
  const std::error_condition condition =
      std::system_category().default_error_condition(static_cast<int>(::GetLastError()));
  return condition.category() == std::generic_category() && condition.value() != 0 ? condition.value() : EIO;
}

constexpr unsigned long generic_read = 0x80000000, generic_write = 0x40000000, read_attributes = 0x80;
constexpr unsigned long create_new = 1, open_existing = 3, also_folders = 0x02000000, of_disk = 1;

/// Others may still read, write, rename and delete the file, as on POSIX.
inline int open(const std::filesystem::path& path, unsigned long access, unsigned long how, unsigned long flags) {
  void* handle = ::CreateFileW(path.c_str(), access, 1 | 2 | 4, nullptr, how, flags, nullptr);
  const auto number = static_cast<int>(reinterpret_cast<std::intptr_t>(handle));
  return number == -1 ? -last_error() : number;
}

}  // namespace detail

inline int get_status(int descriptor, FileStatus& status) {
  status = {};
  void* handle = detail::handle_of(descriptor);
  detail::FileInformation information = {};
  if (::GetFileInformationByHandle(handle, reinterpret_cast<_BY_HANDLE_FILE_INFORMATION*>(&information)) == 0) {
    const int error = detail::last_error();
    return error != EBADF && ::GetFileType(handle) > detail::of_disk ? 0 : error;  // a device, a pipe
  }
  constexpr std::uint32_t read_only = 0x1, folder = 0x10, device = 0x40;
  status.kind = (information.attributes & folder) != 0   ? FileKind::folder
                : (information.attributes & device) != 0 ? FileKind::other
                                                         : FileKind::regular;
  status.size = std::uint64_t{information.size_high} << 32 | information.size_low;
  status.identity = {information.volume, std::uint64_t{information.index_high} << 32 | information.index_low};
  status.permissions = (information.attributes & read_only) != 0 ? 0444 : 0666;
  return 0;
}
inline int get_status(const std::filesystem::path& path, FileStatus& status) {
  const int descriptor = detail::open(path, detail::read_attributes, detail::open_existing, detail::also_folders);
  if (descriptor < 0) return -descriptor;
  const int error = get_status(descriptor, status);
  close(descriptor);
  return error;
}

inline int open_to_read(const std::filesystem::path& path) {
  return detail::open(path, detail::generic_read, detail::open_existing, 0);
}

inline int reopen_direct(int) { return -ENOTSUP; }

inline int create_new(const std::filesystem::path& path, unsigned) {
  return detail::open(path, detail::generic_read | detail::generic_write, detail::create_new, 0);
}

inline void close(int descriptor) { ::CloseHandle(detail::handle_of(descriptor)); }

inline std::int64_t read_at(int descriptor, std::uint64_t offset, std::span<std::byte> into) {
  detail::Place place = {};
  place.offset_low = static_cast<std::uint32_t>(offset);
  place.offset_high = static_cast<std::uint32_t>(offset >> 32);
  const auto wanted = static_cast<unsigned long>((std::min)(into.size(), std::size_t{1} << 30));
  unsigned long n = 0;
  if (::ReadFile(detail::handle_of(descriptor), into.data(), wanted, &n, reinterpret_cast<_OVERLAPPED*>(&place)) != 0)
    return n;
  constexpr unsigned long end_of_file = 38;
  return ::GetLastError() == end_of_file ? 0 : -detail::last_error();
}

inline std::int64_t write_some(int descriptor, std::span<const std::byte> bytes) {
  const auto wanted = static_cast<unsigned long>((std::min)(bytes.size(), std::size_t{1} << 30));
  unsigned long n = 0;
  const bool written = ::WriteFile(detail::handle_of(descriptor), bytes.data(), wanted, &n, nullptr) != 0;
  return written ? std::int64_t{n} : -detail::last_error();
}

inline int sync(int descriptor) {
  return ::FlushFileBuffers(detail::handle_of(descriptor)) != 0 ? 0 : detail::last_error();
}

inline int set_access(int, const FileStatus&) { return ENOTSUP; }  // a new file takes its folder's access list

inline int replace(const std::filesystem::path& from, const std::filesystem::path& to) {
  constexpr unsigned long replace_existing = 1, write_through = 8;
  return ::MoveFileExW(from.c_str(), to.c_str(), replace_existing | write_through) != 0 ? 0 : detail::last_error();
}

inline void sync_folder(const std::filesystem::path&) {}

inline int check_writable(const std::filesystem::path& folder) {  // access lists are checked only at creation
  FileStatus status;
  return get_status(folder, status);
}

inline std::uint64_t process_id() { return ::GetCurrentProcessId(); }

inline std::size_t page_size() { return 4096; }

inline const std::byte* map(int descriptor, std::size_t size, Sharing, int& error) {
  constexpr unsigned long read_only = 2, map_to_read = 4;
  error = 0;
  void* mapping = ::CreateFileMappingW(detail::handle_of(descriptor), nullptr, read_only, 0, 0, nullptr);
  void* address = mapping != nullptr ? ::MapViewOfFile(mapping, map_to_read, 0, 0, size) : nullptr;
  if (address == nullptr) error = detail::last_error();
  if (mapping != nullptr) ::CloseHandle(mapping);  // the view keeps the mapping alive
  return static_cast<const std::byte*>(address);
}
inline void unmap(const std::byte* address, std::size_t) { ::UnmapViewOfFile(address); }

inline std::byte* map_wiped_page() { return nullptr; }  // there is no fork()

inline int advise(const std::byte*, std::size_t, Advice) { return 0; }
inline void expect_random_reads(int) {}
inline void drop_cache(int) {}

}  // namespace os

inline void use_huge_pages(std::span<std::byte>) {}

}  // namespace ple::inline PLE_ABI

#endif
