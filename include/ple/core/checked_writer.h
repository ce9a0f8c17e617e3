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
#include "ple/core/os.h"
#include "ple/core/output_file.h"

namespace ple::inline PLE_ABI {

/// Called with what is being done, how much of it is done, and how much there is; false cancels.
using WriteProgress = std::function<bool(const char* what, std::uint64_t done, std::uint64_t total)>;

/// A file that is written beside its place, under a name of its own that ends in ".partial", and takes its name only
/// once all of it is on the disk and was read back. Whatever fails before, a file that had the name stays as it was,
/// and nothing else is left behind; where the process is killed, only the partial file is. Of several that write one
/// file at once, the last to finish has it, whole. The new file has the permissions of the old one.
class CheckedWriter {
 public:
  /// `inputs`: files that must not be written over. Errors: those of check_output_path; ErrorCode::file, as of all that
  /// follows.
  explicit CheckedWriter(std::filesystem::path path, std::span<const FileIdentity> inputs = {})
      : path_(std::move(path)), inputs_(inputs.begin(), inputs.end()), place_(check_output_path(path_, inputs)) {
    buffer_.reserve(piece);
    partial_ = partial_path();
    // Never more open than the file it replaces, even for a moment.
    out_.emplace(partial_, path_.string(), place_.old ? place_.old->permissions & 0666u : 0666u);
  }
  CheckedWriter(const CheckedWriter&) = delete;
  CheckedWriter& operator=(const CheckedWriter&) = delete;
  ~CheckedWriter() {
    if (has_name_ || process_ != os::process_id()) return;  // in a copy that fork() made it is not ours
    out_.reset();
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
  /// ErrorCode::cancelled; those of check_output_path, should something else have come to the place.
  void finish(const WriteProgress& progress) {
    flush();
    out_->sync();
    const std::uint64_t size = out_->size();
    std::uint64_t checksum = first;
    buffer_.resize(piece);
    for (std::uint64_t at = 0; at < size; at += piece) {
      const auto part = std::span(buffer_).first(static_cast<std::size_t>(std::min<std::uint64_t>(piece, size - at)));
      out_->read_all(at, part);
      checksum = added(checksum, part);
      report(progress, "bytes read back", at + part.size(), size);
    }
    if (checksum != checksum_)
      fail(ErrorCode::file, path_.string(), ": the disk reads back other bytes than were written");
    take_name();
  }

 private:
  static constexpr std::size_t piece = std::size_t{4} << 20;
  static constexpr std::uint64_t first = 0xcbf29ce484222325u;

  /// Beside the place, where it can take the name in one step.
  std::filesystem::path partial_path() const {
    constexpr std::size_t most = 150;  // of the 255 bytes that a name may have
    const std::string name = place_.path.filename().string();
    return place_.folder() / ((name.size() > most ? "ple" : name) + "." + os::unlikely_name() + ".partial");
  }

  void flush() {
    if (process_ != os::process_id()) {
      fail(ErrorCode::file, path_.string(), ": cannot write: fork() made a copy of this process after it was begun");
    }
    out_->write(buffer_);
    checksum_ = added(checksum_, buffer_);
    buffer_.clear();
  }

  void take_name() {
    const OutputPlace place = check_output_path(path_, inputs_);
    os::FileStatus status;
    if (os::get_status(partial_, status) != 0 || status.identity != out_->identity())
      fail(ErrorCode::file, path_.string(), ": cannot write: somebody removed or replaced what was written so far");
    if (place.path != place_.path)
      fail(ErrorCode::file, path_.string(), ": cannot write: leads to another place than when it was begun");
    if (place.old) out_->set_access(*place.old);
    out_.reset();  // closed first: not every system renames what is open
    if (const int error = os::replace(partial_, place_.path)) {
      fail(ErrorCode::file, path_.string(), ": cannot take the place of an older file: ", os::text_of(error));
    }
    has_name_ = true;
    os::sync_folder(place_.folder());
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
  std::vector<FileIdentity> inputs_;
  OutputPlace place_;
  std::filesystem::path partial_;
  std::optional<OutputFile> out_;  // nothing: all is written
  bool has_name_ = false;
  std::uint64_t process_ = os::process_id();
  std::vector<std::byte> buffer_;
  std::uint64_t checksum_ = first;
};

}  // namespace ple::inline PLE_ABI
