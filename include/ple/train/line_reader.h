// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/text/utf8.h"

namespace ple::inline PLE_ABI {
namespace detail {

inline constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

/// Errors: ErrorCode::malformed, naming the byte.
inline void require_utf8(std::string_view text, const std::string& source) {
  const std::size_t good = utf8_prefix(text);
  if (good == text.size()) return;
  fail(ErrorCode::malformed, source, ": byte ", good, " is ",
       static_cast<unsigned>(static_cast<unsigned char>(text[good])), ", which is not UTF-8 there");
}

/// Reads a text file line by line, in memory for one line. A byte order mark is skipped. The CR of a
/// CR LF stays: to JSON it is a space.
class LineReader {
 public:
  /// Errors: those of InputFile::open.
  LineReader(const std::filesystem::path& path, std::uint64_t most_bytes, std::size_t most_lines)
      : file_(InputFile::open(path)), most_bytes_(most_bytes), most_lines_(most_lines) {}

  /// The next line, without its end; false at the end of the file. Errors: ErrorCode::file; limit for a longer line or
  /// more lines; malformed if it is not UTF-8.
  bool next(std::string& line) {
    line.clear();
    if (begin_ == end_ && !fill()) return false;
    if (number_++ == most_lines_)
      fail(ErrorCode::limit, file_->name(), ": has more lines than DatasetLimits::lines, which is ", most_lines_);
    bool ended = false;
    while (!ended && (begin_ < end_ || fill())) {
      const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
      const std::size_t length = rest.find('\n');
      ended = length != std::string_view::npos;
      const std::string_view part = rest.substr(0, length);
      if (part.size() > most_bytes_ - line.size()) {
        fail(ErrorCode::limit, where(), ": is longer than DatasetLimits::line_bytes, which is ", most_bytes_);
      }
      line += part;
      begin_ += part.size() + (ended ? 1 : 0);
    }
    if (number_ == 1 && line.starts_with(byte_order_mark)) line.erase(0, byte_order_mark.size());
    require_utf8(line, where());
    return true;
  }

  const std::string& name() const { return file_->name(); }
  std::size_t number() const { return number_; }  ///< of the last line, counted from 1
  std::string where() const { return name() + ": line " + std::to_string(number_); }

 private:
  bool fill() {
    if (const int wrong = file_->check_descriptor()) unreadable(wrong);
    const ReadResult result = file_->read(offset_, std::as_writable_bytes(std::span(buffer_)));
    if (result.error != 0) unreadable(result.error);
    offset_ += result.bytes;
    begin_ = 0;
    end_ = result.bytes;
    return end_ > 0;
  }
  [[noreturn]] void unreadable(int error) const {
    fail(ErrorCode::file, name(), ": cannot read at byte ", offset_, ": ", read_error_text(error));
  }

  std::shared_ptr<const InputFile> file_;
  std::uint64_t most_bytes_;
  std::size_t most_lines_;
  std::vector<char> buffer_ = std::vector<char>(std::size_t{64} << 10);
  std::size_t begin_ = 0, end_ = 0;  // what is left in the buffer
  std::uint64_t offset_ = 0;         // of what comes after the buffer
  std::size_t number_ = 0;
};

}  // namespace detail
}  // namespace ple::inline PLE_ABI
