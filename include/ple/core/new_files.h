// SPDX-License-Identifier: Apache-2.0
// Replaces files that mean something only together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/os.h"

namespace ple::inline PLE_ABI {

/// New files for a folder, written as NAME.new: each whole and on the disk. replace_together() gives them their names.
/// No system renames several files in one step, so first the old ones become NAME.old, the first name first: without
/// that file readers open nothing, and so never an old file beside a new one. It also gets its new contents last. Then
/// the old ones go. A process that is killed between these renames leaves either the old files or the new ones, or
/// both, whole, under one of the three names; the next NewFiles of this folder goes on from there. After an error the
/// folder is as before.
class NewFiles {
 public:
  NewFiles(std::filesystem::path folder, std::vector<std::string> names)
      : folder_(std::move(folder)), names_(std::move(names)) {}
  NewFiles(const NewFiles&) = delete;
  NewFiles& operator=(const NewFiles&) = delete;
  ~NewFiles() {
    if (process_ != os::process_id()) return;
    for (const std::string& name : names_) remove(path(name));
  }

  /// Where to write one.
  std::filesystem::path path(const std::string& name) const { return folder_ / (name + ".new"); }

  /// Errors: ErrorCode::file.
  void replace_together() const {
    std::vector<std::string> set_aside;
    std::error_code error;
    std::size_t named = names_.size();  // those from here on
    try {
      for (const std::string& name : names_) {
        if (!std::filesystem::exists(folder_ / name, error)) continue;
        rename(folder_ / name, old_path(name));
        set_aside.push_back(name);
      }
      for (; named > 0; --named) rename(path(names_[named - 1]), folder_ / names_[named - 1]);
    } catch (const Error&) {
      for (std::size_t i = named; i < names_.size(); ++i) remove(folder_ / names_[i]);
      for (std::size_t i = set_aside.size(); i-- > 0;) {  // the first name last
        static_cast<void>(os::replace(old_path(set_aside[i]), folder_ / set_aside[i]));
      }
      throw;
    }
    os::sync_folder(folder_);
    for (const std::string& name : names_) remove(old_path(name));
  }

 private:
  std::filesystem::path old_path(const std::string& name) const { return folder_ / (name + ".old"); }
  static void rename(const std::filesystem::path& from, const std::filesystem::path& to) {
    if (const int error = os::replace(from, to)) {
      fail(ErrorCode::file, from.string(), ": cannot rename to ", to.string(), ": ", os::text_of(error));
    }
  }
  static void remove(const std::filesystem::path& path) {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }

  std::filesystem::path folder_;
  std::vector<std::string> names_;
  std::uint64_t process_ = os::process_id();
};

}  // namespace ple::inline PLE_ABI
