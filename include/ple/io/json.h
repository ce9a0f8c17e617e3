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

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/file.h"
#include "ple/core/json.h"
#include "ple/io/folder_contents.h"

namespace ple::inline PLE_ABI {

/// The whole of a small file. Errors: ErrorCode::file; ErrorCode::limit for more than `most` bytes.
inline std::string read_text_file(const std::filesystem::path& path, std::uint64_t most = JsonLimits().bytes) {
  const auto file = File::open(path);
  if (file->size() > most) {
    fail(ErrorCode::limit, file->name(), ": has ", file->size(), " bytes, more than JsonLimits::bytes, which is ",
         most);
  }
  std::string text(static_cast<std::size_t>(file->size()), '\0');
  file->read_all(0, std::as_writable_bytes(std::span(text)), "text");
  return text;
}

/// Errors: those of read_text_file and parse_json; ErrorCode::malformed for a pointer of Git LFS.
inline Json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {}) {
  const std::string text = read_text_file(path, limits.bytes);
  refuse_lfs_pointer(std::as_bytes(std::span(text)), path.string());
  return parse_json(text, path.string(), limits);
}

/// An object's fields. A field that is null counts as absent. Errors: ErrorCode::config, naming source, field and
/// values.
class JsonFields {
 public:
  JsonFields(const Json& object, std::string source, std::string prefix = "")
      : object_(&object), source_(std::move(source)), prefix_(std::move(prefix)) {
    if (!object.is_object())
      fail(ErrorCode::config, source_, ": ", prefix_, " is ", object.brief(), ", expected an object");
  }

  JsonFields(const Json&& object, std::string source, std::string prefix = "") = delete;  // the object must outlive it

  const std::string& source() const { return source_; }
  std::string full_name(std::string_view name) const { return prefix_ + std::string(name); }

  const Json* find(std::string_view name) const {
    const Json* field = object_->find(name);
    return field == nullptr || field->is_null() ? nullptr : field;
  }

  /// The object in field `name`.
  std::optional<JsonFields> object(std::string_view name) const {
    const Json* field = find(name);
    if (!field) return std::nullopt;
    if (!field->is_object()) wrong(name, *field, "an object");
    return JsonFields(*field, source_, full_name(name) + ".");
  }

  /// A whole number from 0 to `most`, perhaps written as 10.0; without a default the field must be there.
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

  bool boolean(std::string_view name, std::optional<bool> otherwise = std::nullopt) const {
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
    fail(ErrorCode::config, source_, ": ", full_name(name), " is ", found.brief(), ", expected ", expected...);
  }

 private:
  template <class T>
  T required(std::string_view name, const std::optional<T>& otherwise) const {
    if (!otherwise) fail(ErrorCode::config, source_, ": ", full_name(name), " is missing");
    return *otherwise;
  }

  const Json* object_;
  std::string source_, prefix_;
};

}  // namespace ple::inline PLE_ABI
