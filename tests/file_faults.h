// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace ple::testing {

/// For doctest::skip: mappings cannot be made to fail.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool mappings_always_work = true;
#else
inline constexpr bool mappings_always_work = false;
#endif

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

/// While it lives, positioned reads fail with this error number, as of a disk that is broken.
class FailingReads {
 public:
  explicit FailingReads(int error);
  FailingReads(const FailingReads&) = delete;
  FailingReads& operator=(const FailingReads&) = delete;
  ~FailingReads();
};

}  // namespace ple::testing
