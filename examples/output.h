// SPDX-License-Identifier: Apache-2.0
// Files that a program writes.
#pragma once

#include <ple/core/checked_writer.h>
#include <ple/core/output_file.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace examples {

/// A file that is written at the end of the work: whole, or not at all. What is wrong with its place, or that it is one
/// of the files that the work reads, is said when this is made: before the work.
class Output {
 public:
  Output(std::string path, const std::vector<std::filesystem::path>& inputs)
      : path_(std::move(path)), inputs_(ple::identities_of(inputs)) {
    ple::check_output_path(path_, inputs_);
  }

  const std::string& path() const { return path_; }

  void write(std::string_view bytes) const {
    ple::CheckedWriter writer(path_, inputs_);
    writer.write(bytes.data(), bytes.size());
    writer.finish({});
  }

 private:
  std::string path_;
  std::vector<ple::FileIdentity> inputs_;
};

}  // namespace examples
