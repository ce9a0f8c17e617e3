// SPDX-License-Identifier: Apache-2.0
// Replaces operator new by one that counts, and fails when it is told to.
#include "allocations.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::size_t> count{0}, bytes{0}, live{0};
thread_local std::size_t until_failure = 0;  // 0: never
thread_local bool failed = false;

bool fails(std::size_t size) {
  ++count;
  bytes += size;
  if (until_failure == 0 || --until_failure > 0) return false;
  failed = true;
  return true;
}
void* counted(void* memory) {
  if (memory != nullptr) ++live;
  return memory;
}
void* allocate(std::size_t size) { return fails(size) ? nullptr : counted(std::malloc(size ? size : 1)); }
void* allocate(std::size_t size, std::align_val_t alignment) {
  if (fails(size)) return nullptr;
  const auto a = static_cast<std::size_t>(alignment);
  return size > ~std::size_t{0} - a ? nullptr : counted(std::aligned_alloc(a, (size + a - 1) / a * a));
}
void release(void* memory) {
  if (memory != nullptr) --live;
  std::free(memory);
}
void* or_throw(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

std::size_t ple::testing::allocations() { return count; }
std::size_t ple::testing::allocated_bytes() { return bytes; }
std::size_t ple::testing::live_allocations() { return live; }
void ple::testing::fail_allocation(std::size_t n) {
  until_failure = n;
  failed = false;
}
bool ple::testing::allocation_failed() {
  until_failure = 0;
  return failed;
}

// All of them, the ones that do not throw too: the sanitizers bring their own for those that are left out.
void* operator new(std::size_t size) { return or_throw(allocate(size)); }
void* operator new[](std::size_t size) { return or_throw(allocate(size)); }
void* operator new(std::size_t size, std::align_val_t a) { return or_throw(allocate(size, a)); }
void* operator new[](std::size_t size, std::align_val_t a) { return or_throw(allocate(size, a)); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return allocate(size); }
void* operator new(std::size_t size, std::align_val_t a, const std::nothrow_t&) noexcept { return allocate(size, a); }
void* operator new[](std::size_t size, std::align_val_t a, const std::nothrow_t&) noexcept { return allocate(size, a); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { release(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t, const std::nothrow_t&) noexcept { release(memory); }
void operator delete[](void* memory, std::align_val_t, const std::nothrow_t&) noexcept { release(memory); }
