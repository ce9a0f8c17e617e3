// SPDX-License-Identifier: Apache-2.0
// The second file of a program: includes all of ple again, here with the run-time choice of vectors.
#include <ple/dispatch.h>
#include <ple/ple.h>

#include <string>

std::string second_file() {
  std::string message = "no error";
  ple::with_best_backend([&]<ple::Backend Simd>() {
    try {
      ple::Checkpoint::open("no-such-model");
    } catch (const ple::Error& error) {
      message = error.what();
    }
  });
  return message;
}
