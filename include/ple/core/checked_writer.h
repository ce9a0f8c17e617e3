// SPDX-License-Identifier: Apache-2.0
// Writing large files such that there is never half a one under its name.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/system.h"

namespace ple {
inline namespace PLE_ABI {

/// Called with what is being done, how much of it is done, and how much there is; false cancels.
using WriteProgress = std::function<bool(const char* what, std::uint64_t done, std::uint64_t total)>;

/// A file that is written beside its place, as NAME.partial, and takes its name only once all of it is on the disk and
/// was read back. Whatever fails before, a file that had the name stays as it was, and nothing else is left behind.
class CheckedWriter {
 public:
  /// Errors: ErrorCode::file, as of all that follows.
  explicit CheckedWriter(std::filesystem::path path)
      : path_(std::move(path)), partial_(path_.string() + ".partial"), out_(std::in_place, partial_) {
    buffer_.reserve(piece);
  }
  CheckedWriter(const CheckedWriter&) = delete;
  CheckedWriter& operator=(const CheckedWriter&) = delete;
  ~CheckedWriter() {
    if (!out_) return;
    std::error_code ignored;
    std::filesystem::remove(partial_, ignored);
  }

  void write(const void* data, std::size_t bytes) {
    const auto* at = static_cast<const std::byte*>(data);
    while (bytes > 0) {
      const std::size_t some = (std::min)(bytes, piece - buffer_.size());
      buffer_.insert(buffer_.end(), at, at + some);
      at += some;
      bytes -= some;
      if (buffer_.size() == piece) flush();
    }
  }

  /// Bytes written so far.
  std::uint64_t size() const { return out_->size() + buffer_.size(); }

  /// Passes a step on to a caller's function, if there is one. Errors: ErrorCode::cancelled if it says so.
  void report(const WriteProgress& progress, const char* what, std::uint64_t done, std::uint64_t total) const {
    if (progress && !progress(what, done, total)) fail(ErrorCode::cancelled, path_.string(), ": writing was cancelled");
  }

  /// Reads everything back, and gives the file its name. Errors: ErrorCode::file also if it reads back other bytes;
  /// ErrorCode::cancelled.
  void finish(const WriteProgress& progress) {
    flush();
    out_->sync();
    const std::uint64_t size = out_->size();
    const auto file = File::open(partial_);
    if (file->size() != size) fail(ErrorCode::file, partial_, ": has ", file->size(), " bytes, expected ", size);
    std::uint64_t checksum = first;
    buffer_.resize(piece);
    for (std::uint64_t at = 0; at < size; at += piece) {
      const auto part = std::span(buffer_).first(static_cast<std::size_t>(std::min<std::uint64_t>(piece, size - at)));
      file->read_all(at, part, "reading back");
      checksum = added(checksum, part);
      report(progress, "bytes read back", at + part.size(), size);
    }
    if (checksum != checksum_) fail(ErrorCode::file, partial_, ": reads back other bytes than were written");
    replace_file(partial_, path_);
    out_.reset();
  }

 private:
  static constexpr std::size_t piece = std::size_t{4} << 20;
  static constexpr std::uint64_t first = 0xcbf29ce484222325u;

  void flush() {
    out_->write(buffer_);
    checksum_ = added(checksum_, buffer_);
    buffer_.clear();
  }

  /// FNV-1a over words of 8 bytes; all pieces but the last are made of whole ones.
  static std::uint64_t added(std::uint64_t sum, std::span<const std::byte> bytes) {
    constexpr std::uint64_t prime = 0x100000001b3u;
    while (!bytes.empty()) {
      std::uint64_t word = 0;
      const std::size_t size = (std::min)(bytes.size(), sizeof word);
      std::memcpy(&word, bytes.data(), size);
      sum = (sum ^ word) * prime;
      bytes = bytes.subspan(size);
    }
    return sum;
  }

  std::filesystem::path path_;
  std::string partial_;
  std::optional<OutputFile> out_;  // nothing: the file has its name
  std::vector<std::byte> buffer_;
  std::uint64_t checksum_ = first;
};

}  // namespace PLE_ABI
}  // namespace ple
