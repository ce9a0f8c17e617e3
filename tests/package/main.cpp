// SPDX-License-Identifier: Apache-2.0
// A user's program, built in every way in which users get ple: opens a model that is not there and reads the error.
#include <ple/ple.h>

#include <cstdio>
#include <string>

#ifdef TWO_FILES
std::string second_file();
#endif

std::string open_missing_model() {
  try {
    ple::Checkpoint::open("no-such-model");
  } catch (const ple::Error& error) {
    return error.what();
  }
  return "no error";
}

int main() {
  const std::string message = open_missing_model();
  std::printf("ple %d.%d.%d: %s\n", PLE_VERSION_MAJOR, PLE_VERSION_MINOR, PLE_VERSION_PATCH, message.c_str());
  if (message.find("no-such-model") == std::string::npos) return 1;
#ifdef TWO_FILES
  if (second_file() != message) return 1;
#endif
  return 0;
}
