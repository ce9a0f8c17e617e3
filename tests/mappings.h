// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace ple::testing {

/// While it lives, files cannot be mapped, as on file systems over a network or in user space: those without shared
/// mappings, or those without any.
class NoMappings {
 public:
  enum class Kind { none, shared, all };
  explicit NoMappings(Kind kind);
  NoMappings(const NoMappings&) = delete;
  NoMappings& operator=(const NoMappings&) = delete;
  ~NoMappings();
};

}  // namespace ple::testing
