// SPDX-License-Identifier: Apache-2.0
// How fast the machine reads memory now: for who measures another program and asks in between.
#include "bench/machine.h"

#include "examples/arguments.h"

#include <fmt/core.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

namespace {

constexpr const char* usage =
    "usage: bench_machine FILE [--threads N]\n"
    "\n"
    "Answers each line it reads with one of JSON: the bytes a second that N threads (default: all) read of memory\n"
    "now, and of FILE's mapping.\n";

void run(examples::Arguments& arguments) {
  const std::string file = arguments.first("FILE");
  const auto threads =
      arguments.number<std::size_t>("--threads", std::max(1u, std::thread::hardware_concurrency()), 1, 1024);
  arguments.done();
  bench::MachineMeter meter(threads, file);
  for (std::string line; std::getline(std::cin, line);) {
    const bench::Machine machine = meter.measure_memory();
    fmt::print("{{\"machine_read\":{:.6g},\"machine_mapped_read\":{:.6g}}}\n", machine.read, machine.mapped_read);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
