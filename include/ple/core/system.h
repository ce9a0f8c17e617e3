// SPDX-License-Identifier: Apache-2.0
// Everything the library asks of the operating system. A port to another system replaces this file.
#pragma once

#if !defined(__unix__) && !defined(__APPLE__)
#error "ple/core/system.h knows POSIX systems only; a port adds this one file"
#endif

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <span>
#include <string>

#include "ple/core/error.h"

namespace ple {

static_assert(std::endian::native == std::endian::little, "model files are little-endian, and so must the machine be");

/// A whole file, mapped read-only: pages come in when they are touched and may leave again at any time.
class MappedFile {
 public:
  /// Errors: ErrorCode::file if the file cannot be opened, is not a regular file, or cannot be mapped.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path) {
    return std::shared_ptr<const MappedFile>(new MappedFile(path));
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail(ErrorCode::file, path.string(), ": cannot open: ", std::strerror(errno));
    const auto give_up = [&](const std::string& what) {
      ::close(descriptor);
      fail(ErrorCode::file, path.string(), ": ", what);
    };
    struct stat status = {};
    if (::fstat(descriptor, &status) != 0) give_up(std::string("cannot read its size: ") + std::strerror(errno));
    if (!S_ISREG(status.st_mode)) give_up("is not a regular file");
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size > std::numeric_limits<std::size_t>::max()) give_up("is too large for this machine's addresses");
    if (size > 0) {
      void* address = ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_SHARED, descriptor, 0);
      if (address == MAP_FAILED) give_up(std::string("cannot map: ") + std::strerror(errno));
      bytes_ = {static_cast<const std::byte*>(address), static_cast<std::size_t>(size)};
    }
    ::close(descriptor);
  }

  std::span<const std::byte> bytes_;
};

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

}  // namespace ple
