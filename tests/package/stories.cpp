// SPDX-License-Identifier: Apache-2.0
// The program of which tests/package/story.cpp is several files: each tells its story, if this CPU can.
#include <iostream>
#include <string>

std::string plain(const char* path);
std::string chosen(const char* path);
std::string native(const char* path);
#ifdef __x86_64__
std::string v3(const char* path);
#endif

int main(int, char** argv) {
  std::cout << plain(argv[1]) << "\n" << chosen(argv[1]) << "\n" << native(argv[1]) << "\n";
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) std::cout << v3(argv[1]) << "\n";
#endif
}
