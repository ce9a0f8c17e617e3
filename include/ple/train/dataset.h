// SPDX-License-Identifier: Apache-2.0
// Chats and texts to learn from, of a JSON Lines file or a plain text.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/json.h"
#include "ple/core/token.h"
#include "ple/formats/json_field.h"
#include "ple/text/chat_format.h"
#include "ple/text/tokenizer.h"
#include "ple/train/chat_text.h"
#include "ple/train/line_reader.h"
#include "ple/train/training_text.h"

namespace ple::inline PLE_ABI {

/// Exceeding one is ErrorCode::limit, before memory is taken for it.
struct DatasetLimits {
  std::uint64_t line_bytes = std::uint64_t{16} << 20;  ///< of each line of a JSON Lines file
  std::size_t lines = std::size_t{1} << 24;            ///< empty ones too
  std::uint64_t text_bytes = std::uint64_t{1} << 30;   ///< of a plain text
};

enum class DatasetFormat {
  by_name,     ///< a file called *.txt is a plain text, any other JSON Lines
  json_lines,  ///< {"messages": [{"role": ..., "content": ...}, ...]} or {"text": ...} in each line
  plain_text,  ///< one text, cut into windows
};

struct DatasetOptions {
  std::size_t max_length = 2048;  ///< tokens of a text; what is longer is cut off
  /// Texts of lines are cut into windows of max_length, as a plain text is, instead of cut off. Chats never are: an
  /// answer without its question teaches nothing.
  bool windows = false;
  /// A {"text"} ends with <eos>: a model that never saw one would not learn to stop. A plain text, of which the file
  /// may be a part, does not.
  bool end_texts = true;
  /// Special tokens spelled in a {"text"} become tokens, for texts that were rendered from chats. Not for texts of
  /// strangers.
  bool parse_special = false;
  bool as_prompted = false;  ///< see chat_text()
  DatasetFormat format = DatasetFormat::by_name;
  DatasetLimits limits = {};
};

/// Texts in the file's order, each with a token that counts, and what became of the file.
struct Dataset {
  std::vector<TrainingText> texts = {};
  std::size_t chats = 0, plain = 0;  ///< conversations and texts that were read
  std::size_t cut = 0;               ///< of these, cut off at max_length
  std::size_t cut_tokens = 0;        ///< tokens that were cut off, those of `unlearnt` too
  std::size_t unlearnt = 0;          ///< left out: nothing in the first max_length tokens counts
};

namespace detail {

class DatasetReader {
 public:
  DatasetReader(const Tokenizer& tokenizer, const std::optional<ChatFormat>& format, const DatasetOptions& options)
      : tokenizer_(tokenizer), format_(format), options_(options), prefix_(tokenizer.prefix()) {
    const std::size_t least = (std::max)(prefix_.size(), std::size_t{1}) + 1;
    if (options.max_length < least) {
      fail(ErrorCode::argument, "DatasetOptions::max_length is ", options.max_length, ", expected ", least,
           " or more: the first token does not count");
    }
  }

  Dataset read(const std::filesystem::path& path) {
    const bool is_plain = options_.format == DatasetFormat::plain_text ||
                          (options_.format == DatasetFormat::by_name && path.extension() == ".txt");
    is_plain ? read_plain(path) : read_lines(path);
    if (data_.chats + data_.plain == 0) fail(ErrorCode::malformed, path.string(), ": has no text to learn from");
    if (data_.texts.empty()) {
      fail(ErrorCode::argument, path.string(), ": none of its ", data_.chats + data_.plain,
           " texts has a token that counts among the first ", options_.max_length, ", DatasetOptions::max_length");
    }
    return std::move(data_);
  }

 private:
  void read_lines(const std::filesystem::path& path) {
    LineReader lines(path, options_.limits.line_bytes, options_.limits.lines);
    for (std::string line; lines.next(line);) {
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      const std::string source = lines.where();
      const Json json = parse_json(line, source, {.bytes = options_.limits.line_bytes});
      add_line(JsonField(json, source, "", ErrorCode::malformed));
    }
  }

  void add_line(const JsonField& line) {
    const Json *messages = line.find("messages"), *text = line.find("text");
    if ((messages != nullptr) == (text != nullptr)) {
      fail(ErrorCode::malformed, line.source(), ": has ", messages ? "both" : "neither",
           messages ? " 'messages' and 'text', expected one of them" : " 'messages' nor 'text'");
    }
    if (messages) {
      add_chat(line);
    } else {
      const std::string plain = line.text("text");
      if (plain.empty()) fail(ErrorCode::malformed, line.source(), ": text is empty");
      add_text(line.source(), plain, options_.windows, options_.end_texts, options_.parse_special);
    }
  }

  void add_chat(const JsonField& line) {
    const std::string& source = line.source();
    refuse(line, {"tools", "functions"});
    std::vector<ChatMessage> messages;
    bool is_answered = false;
    for (const JsonField& each : line["messages"].items()) {
      refuse(each, {"tool_calls", "function_call", "weight"});
      ChatMessage& message = messages.emplace_back();
      message.role = role_of(each);
      message.content = each.text("content");
      if (message.role != ChatRole::model) continue;
      is_answered = true;
      if (is_empty_answer(message.content)) fail(ErrorCode::malformed, each.where(), ".content: the answer is empty");
    }
    if (messages.empty()) fail(ErrorCode::malformed, source, ": messages is empty");
    if (!is_answered) fail(ErrorCode::malformed, source, ": none of ", messages.size(), " messages is the assistant's");
    if (!format_) fail(ErrorCode::missing, source, ": has messages, but no chat format was given to render them");
    add_whole(chat_of(messages, source));
    ++data_.chats;
  }

  TrainingText chat_of(std::span<const ChatMessage> messages, const std::string& source) const {
    try {
      return chat_text(tokenizer_, *format_, messages, options_.as_prompted);
    } catch (const Error& error) {  // such as turns out of order: which chat it was says only the line
      const bool is_of_line = error.code() == ErrorCode::argument;
      fail(is_of_line ? ErrorCode::malformed : error.code(), source, ": ", std::string_view(error.what()));
    }
  }

  bool is_empty_answer(std::string_view content) const {
    if (!format_ || !format_->removes_thoughts) return ChatFormat::trim(content).empty();
    return format_->without_thoughts(content).empty();
  }

  static ChatRole role_of(const JsonField& message) {
    const std::string role = message.text("role");
    if (role == "system") return ChatRole::system;
    if (role == "user") return ChatRole::user;
    if (role == "assistant" || role == "model") return ChatRole::model;
    fail(ErrorCode::malformed, message.where(), ".role is '", std::string_view(role).substr(0, 40),
         "', expected system, user, assistant or model");
  }

  /// What would change the text or what counts in it must not be passed over in silence.
  static void refuse(const JsonField& object, std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) {
      const Json* field = object.find(name);
      if (!field || ((field->is_array() || field->is_object()) && field->items().empty())) continue;
      fail(ErrorCode::not_supported, object.source(), ": ", object.full_name(name), " is not supported");
    }
  }

  void read_plain(const std::filesystem::path& path) {
    const auto file = InputFile::open(path);
    if (file->size() > options_.limits.text_bytes) {
      fail(ErrorCode::limit, file->name(), ": has ", file->size(),
           " bytes, more than DatasetLimits::text_bytes, which is ", options_.limits.text_bytes);
    }
    std::string text(static_cast<std::size_t>(file->size()), '\0');
    file->read_all(0, std::as_writable_bytes(std::span(text)), "text");
    if (const std::size_t good = utf8_prefix(text); good != text.size()) {
      const std::string_view before = std::string_view(text).substr(0, good);
      const auto number = std::count(before.begin(), before.end(), '\n') + 1;
      const std::string_view line = std::string_view(text).substr(before.rfind('\n') + 1);  // npos + 1 is 0
      require_utf8(line, file->name() + ": line " + std::to_string(number));
    }
    if (text.starts_with(byte_order_mark)) text.erase(0, byte_order_mark.size());
    std::size_t kept = 0;  // CR LF becomes LF, which is what models know
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
      text[kept++] = text[i];
    }
    text.resize(kept);
    if (!text.empty()) add_text(file->name(), text, /*windows=*/true, /*ends=*/false, /*parse_special=*/false);
  }

  void add_text(const std::string& source, std::string_view text, bool windows, bool ends, bool parse_special) {
    std::vector<Token> tokens = tokenizer_.encode(text, {.add_special = false, .parse_special = parse_special});
    const bool has_prefix =
        tokens.size() >= prefix_.size() && std::equal(prefix_.begin(), prefix_.end(), tokens.begin());
    if (!has_prefix) tokens.insert(tokens.begin(), prefix_.begin(), prefix_.end());  // a rendered chat has its <bos>
    if (ends) end_text(source, tokens);
    ++data_.plain;
    if (windows) return add_windows(tokens);
    TrainingText whole;
    whole.learnt.assign(tokens.size(), 1);
    whole.tokens = std::move(tokens);
    add_whole(std::move(whole));
  }

  void end_text(const std::string& source, std::vector<Token>& tokens) const {
    const std::string name = format_ ? format_->eos : ChatFormat().eos;
    const auto eos = tokenizer_.token_to_id(name);
    if (!eos) {
      fail(ErrorCode::missing, source, ": the tokenizer has no '", name,
           "' to end texts with: DatasetOptions::end_texts is true, expected false");
    }
    if (tokens.empty() || tokens.back() != *eos) tokens.push_back(*eos);
  }

  /// Each begins with <bos>, like a text of its own, and each token is learnt in one of them.
  void add_windows(std::span<const Token> tokens) {
    std::size_t begin = prefix_.size();
    while (begin < tokens.size()) {
      // Without <bos>, a window's first token is the last of the window before, and is learnt there.
      if (prefix_.empty() && begin > 0) --begin;
      const std::size_t end = (std::min)(tokens.size(), begin + options_.max_length - prefix_.size());
      TrainingText window;
      window.tokens.assign(prefix_.begin(), prefix_.end());
      window.tokens.insert(window.tokens.end(), tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                           tokens.begin() + static_cast<std::ptrdiff_t>(end));
      window.learnt.assign(window.tokens.size(), 1);
      add_whole(std::move(window));
      begin = end;
    }
  }

  void add_whole(TrainingText text) {
    const std::size_t size = text.tokens.size();
    if (size > options_.max_length) {
      text.tokens.resize(options_.max_length);
      text.learnt.resize(options_.max_length);
      data_.cut_tokens += size - options_.max_length;
    }
    if (!text.learnt.empty()) text.learnt.front() = 0;
    if (text.learnt_count() == 0) {
      ++data_.unlearnt;
      return;
    }
    if (size > options_.max_length) ++data_.cut;
    data_.texts.push_back(std::move(text));
  }

  const Tokenizer& tokenizer_;
  const std::optional<ChatFormat>& format_;
  const DatasetOptions& options_;
  std::span<const Token> prefix_;
  Dataset data_;
};

}  // namespace detail

/// Reads chats and texts for a model's tokenizer. `format`, that of chat_format(), renders chats; a file of texts needs
/// none. Ends at the first line that is wrong. Errors: ErrorCode::file; limit; malformed, which names file, line and
/// place; not_supported for tools and weights of messages; missing if there are chats but no format, or if the
/// tokenizer lacks a token; argument if max_length is too small, for every text or for any.
inline Dataset read_dataset(const std::filesystem::path& path, const Tokenizer& tokenizer,
                            const std::optional<ChatFormat>& format, const DatasetOptions& options = {}) {
  return detail::DatasetReader(tokenizer, format, options).read(path);
}

}  // namespace ple::inline PLE_ABI
