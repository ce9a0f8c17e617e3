// SPDX-License-Identifier: Apache-2.0
// Writes large files so that an incomplete one never has the final name.
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

/// Called with the current step, how much of it is done and how much there is. Returning false cancels.
using WriteProgress = std::function<bool(const char* what, std::uint64_t done, std::uint64_t total)>;

/// A file that is written beside its place, under a name that ends in ".partial". It takes its own name only once all
/// of it is on the disk and was read back. If anything fails before, an older file of that name stays as it was and
/// nothing else is left; only a killed process leaves the partial file. Of several writers of one file, the last to
/// finish has it, whole. The new file has the old one's permissions.
class CheckedWriter {
 public:
  /// `inputs`: files not to overwrite. Errors: those of check_output_path; ErrorCode::file, as of all that follows.
  explicit CheckedWriter(std::filesystem::path path, std::span<const FileIdentity> inputs = {})
      : path_(std::move(path)), inputs_(inputs.begin(), inputs.end()), place_(check_output_path(path_, inputs)) {
    buffer_.reserve(piece);
    partial_ = partial_path();
    // The permissions are never wider than those of the file it replaces, even for a moment.
    out_.emplace(partial_, path_.string(), place_.old ? place_.old->permissions & 0666u : 0666u);
  }
  CheckedWriter(const CheckedWriter&) = delete;
  CheckedWriter& operator=(const CheckedWriter&) = delete;
  ~CheckedWriter() {
    if (has_name_ || process_ != os::process_id()) return;  // after fork() the file is the parent's
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

  std::uint64_t size() const { return out_->size() + buffer_.size(); }

  /// Calls the progress function, if there is one. Errors: ErrorCode::cancelled if it returns false.
  void report(const WriteProgress& progress, const char* what, std::uint64_t done, std::uint64_t total) const {
    if (progress && !progress(what, done, total)) fail(ErrorCode::cancelled, path_.string(), ": writing was cancelled");
  }

  /// Reads everything back and gives the file its name. Errors: ErrorCode::file, also if other bytes are read back;
  /// ErrorCode::cancelled; those of check_output_path if the place has changed meanwhile.
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
      fail(ErrorCode::file, path_.string(), ": the bytes read back from the disk differ from those written");
    take_name();
  }

 private:
  static constexpr std::size_t piece = std::size_t{4} << 20;
  static constexpr std::uint64_t first = 0xcbf29ce484222325u;

  /// In the same folder, so that one rename gives the final name.
  std::filesystem::path partial_path() const {
    constexpr std::size_t most = 150;  // of the 255 bytes that a name may have
    const std::string name = place_.path.filename().string();
    return place_.folder() / ((name.size() > most ? "ple" : name) + "." + os::unlikely_name() + ".partial");
  }

  void flush() {
    if (process_ != os::process_id()) {
      fail(ErrorCode::file, path_.string(), ": cannot write: it was begun before fork() made this process");
    }
    out_->write(buffer_);
    checksum_ = added(checksum_, buffer_);
    buffer_.clear();
  }

  void take_name() {
    const OutputPlace place = check_output_path(path_, inputs_);
    os::FileStatus status;
    if (os::get_status(partial_, status) != 0 || status.identity != out_->identity())
      fail(ErrorCode::file, path_.string(), ": cannot write: its partial file was removed or replaced");
    if (place.path != place_.path)
      fail(ErrorCode::file, path_.string(), ": cannot write: its path leads elsewhere than when it was begun");
    if (place.old) out_->set_access(*place.old);
    out_.reset();  // closed first: not every system renames open files
    if (const int error = os::replace(partial_, place_.path)) {
      fail(ErrorCode::file, path_.string(), ": cannot rename the finished file to this name: ", os::text_of(error));
    }
    has_name_ = true;
    os::sync_folder(place_.folder());
  }

  /// FNV-1a over words of 8 bytes. Only the last piece may end with a shorter word.
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
  std::optional<OutputFile> out_;  // empty once all is written
  bool has_name_ = false;
  std::uint64_t process_ = os::process_id();
  std::vector<std::byte> buffer_;
  std::uint64_t checksum_ = first;
};

}  // namespace ple::inline PLE_ABI
