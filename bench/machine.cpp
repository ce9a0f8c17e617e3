// SPDX-License-Identifier: Apache-2.0
// What the machine can do at most, now: for who measures another program and asks in between.
#include "bench/machine.h"

#include "examples/arguments.h"

#include <cstdio>
#include <thread>

namespace {

constexpr const char* usage =
    "usage: bench_machine FILE [--threads N]\n"
    "\n"
    "Prints a line of JSON for each line it reads: the bytes a second that N threads (default: all) read of memory "
    "and\n"
    "of FILE's mapping, and the multiply-adds a second of bytes, bf16 and f32 ('products'), or only the former\n"
    "('memory').\n";

void run(examples::Arguments& arguments) {
  const std::string file = arguments.first("FILE");
  const auto threads = arguments.number<std::size_t>("--threads", std::max(1u, std::thread::hardware_concurrency()));
  arguments.done();
  bench::MachineMeter meter(threads, file);
  char line[64];
  while (std::fgets(line, sizeof line, stdin) != nullptr) {
    const bench::Machine memory = meter.measure_memory();
    fmt::print("{{\"machine_read\":{:.6g},\"machine_mapped_read\":{:.6g}", memory.read, memory.mapped_read);
    if (std::string_view(line).starts_with("products")) {
      const bench::Machine products = meter.measure_products();
      fmt::print(
          ",\"machine_int8_multiply_adds\":{:.6g},\"machine_bf16_multiply_adds\":{:.6g},"
          "\"machine_f32_multiply_adds\":{:.6g}",
          products.int8, products.bf16, products.f32);
    }
    fmt::print("}}\n");
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) { return examples::run(usage, argc, argv, run); }
