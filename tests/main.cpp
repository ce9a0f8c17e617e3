// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <locale>
#include <stdexcept>

int main(int argc, char** argv) {
  // As programs with windows do: then the C library may write numbers with a comma.
  try {
    std::locale::global(std::locale(""));
  } catch (const std::runtime_error&) {  // the machine does not have the locale that it is set to
  }
  return doctest::Context(argc, argv).run();
}
