// SPDX-License-Identifier: Apache-2.0
// JSON files: read with limits, and field by field with errors that name file, field and both values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
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
#include "ple/formats/folder_contents.h"

namespace ple::inline PLE_ABI {

/// All of a small file. Errors: ErrorCode::file; limit for more than `most` bytes.
inline std::string read_text_file(const std::filesystem::path& path, std::uint64_t most = JsonLimits().bytes) {
  const auto file = InputFile::open(path);
  if (file->size() > most) {
    fail(ErrorCode::limit, file->name(), ": has ", file->size(), " bytes, more than JsonLimits::bytes, which is ",
         most);
  }
  std::string text(static_cast<std::size_t>(file->size()), '\0');
  file->read_all(0, std::as_writable_bytes(std::span(text)), "text");
  return text;
}

/// Errors: those of read_text_file and parse_json; ErrorCode::malformed for a Git LFS pointer.
inline Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {}) {
  const std::string text = read_text_file(path, limits.bytes);
  refuse_lfs_pointer(std::as_bytes(std::span(text)), path.string());
  return parse_json(text, path.string(), limits);
}

/// A JSON value that knows its file and its place there, for errors of class `code` that name both and what was
/// expected. A null field counts as absent. The value must outlive this.
class JsonField {
 public:
  JsonField(const Json& value, std::string source, std::string path = "", ErrorCode code = ErrorCode::config)
      : value_(&value), source_(std::move(source)), path_(std::move(path)), code_(code) {}
  JsonField(const Json&& value, std::string source, std::string path = "", ErrorCode code = ErrorCode::config) = delete;

  const std::string& source() const { return source_; }
  std::string where() const { return path_.empty() ? source_ : source_ + ": " + path_; }
  std::string full_name(std::string_view name) const {
    return path_.empty() ? std::string(name) : (path_ + ".").append(name);
  }

  // As a value.
  const Json& value() const { return *value_; }
  std::vector<JsonField> items() const {
    if (!value_->is_array()) unexpected("an array");
    std::vector<JsonField> result;
    for (const Json& item : value_->items())
      result.emplace_back(item, source_, path_ + "[" + std::to_string(result.size()) + "]", code_);
    return result;
  }
  /// The view lives as long as the value, not as this.
  std::string_view text() const {
    if (!value_->is_string()) unexpected("a string");
    return value_->text();
  }
  bool boolean() const {
    if (!value_->is_boolean()) unexpected("true or false");
    return value_->boolean();
  }
  /// A number from 0 to `last`.
  std::int64_t integer(std::int64_t last) const {
    if (!value_->is_natural() || value_->natural() > static_cast<std::uint64_t>(last))
      fail(code_, where(), " is ", value_->brief(), ", expected a whole number from 0 to ", last);
    return static_cast<std::int64_t>(value_->natural());
  }

  // As an object. A field without a default must exist.
  const Json* find(std::string_view name) const {
    if (!value_->is_object()) unexpected("an object");
    const Json* field = value_->find(name);
    return field == nullptr || field->is_null() ? nullptr : field;
  }
  /// Whether this is an object that has it.
  bool has(std::string_view name) const { return value_->is_object() && find(name) != nullptr; }
  /// Errors: also ErrorCode::missing.
  JsonField operator[](std::string_view name) const {
    if (!value_->is_object()) unexpected("an object");
    const Json* field = value_->find(name);
    if (field == nullptr) fail(ErrorCode::missing, where(), " has no '", name, "'");
    return {*field, source_, full_name(name), code_};
  }
  std::optional<JsonField> object(std::string_view name) const {
    const Json* field = find(name);
    if (!field) return std::nullopt;
    if (!field->is_object()) wrong(name, *field, "an object");
    return JsonField(*field, source_, full_name(name), code_);
  }
  /// A whole number from 0 to `most`, perhaps written as 10.0.
  std::size_t count(std::string_view name, std::optional<std::size_t> otherwise = std::nullopt,
                    std::size_t most = std::size_t{1} << 31) const {
    const Json* field = find(name);
    if (!field) return required(name, otherwise);
    const auto number = field->whole();
    if (!number || *number > most) wrong(name, *field, "a whole number from 0 to ", most);
    return static_cast<std::size_t>(*number);
  }
  double number(std::string_view name, std::optional<double> otherwise = std::nullopt) const {
    const Json* field = find(name);
    if (!field) return required(name, otherwise);
    if (!field->is_number()) wrong(name, *field, "a number");
    return field->number();
  }
  bool boolean(std::string_view name, std::optional<bool> otherwise) const {
    const Json* field = find(name);
    if (!field) return required(name, otherwise);
    if (!field->is_boolean()) wrong(name, *field, "true or false");
    return field->boolean();
  }
  std::string text(std::string_view name, const std::optional<std::string>& otherwise = std::nullopt) const {
    const Json* field = find(name);
    if (!field) return required(name, otherwise);
    if (!field->is_string()) wrong(name, *field, "a string");
    return std::string(field->text());
  }

  template <class... Expected>
  [[noreturn]] void wrong(std::string_view name, const Json& found, const Expected&... expected) const {
    fail(code_, source_, ": ", full_name(name), " is ", this->found(found), ", expected ", expected...);
  }

 private:
  /// A configuration's values are quoted; in other files, which may be large, the type says enough.
  std::string found(const Json& value) const {
    return code_ == ErrorCode::config ? value.brief() : std::string(value.type_name());
  }
  template <class... Expected>
  [[noreturn]] void unexpected(const Expected&... expected) const {
    fail(code_, where(), " is ", found(*value_), ", expected ", expected...);
  }
  template <class T>
  T required(std::string_view name, const std::optional<T>& otherwise) const {
    if (!otherwise) fail(code_, source_, ": ", full_name(name), " is missing");
    return *otherwise;
  }

  const Json* value_;
  std::string source_, path_;
  ErrorCode code_;
};

}  // namespace ple::inline PLE_ABI
