// SPDX-License-Identifier: Apache-2.0
// A program that gets ple from a package: needs ple's headers, Highway's and the package's version, and compiles fast.
#include <ple/core/error.h>
#include <ple/simd/default_backend.h>
#include <ple/version.h>

#include <cstdio>
#include <string>

int main() {
  const std::string version = std::to_string(PLE_VERSION_MAJOR) + "." + std::to_string(PLE_VERSION_MINOR) + "." +
                              std::to_string(PLE_VERSION_PATCH);
  std::printf("ple %s with kernels for %s\n", version.c_str(), ple::DefaultBackend::name());
#ifdef PLE_PACKAGE_VERSION
  if (version != PLE_PACKAGE_VERSION) {
    std::printf("the package says %s\n", PLE_PACKAGE_VERSION);
    return 1;
  }
#endif
  try {
    ple::fail(ple::ErrorCode::argument, "one ", 1);
  } catch (const ple::Error& error) {
    return std::string(error.what()) == "one 1" ? 0 : 1;
  }
}
