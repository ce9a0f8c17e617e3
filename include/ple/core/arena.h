// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <utility>

#include "ple/core/config.h"
#include "ple/core/memory.h"
#include "ple/core/os.h"

namespace ple::inline PLE_ABI {

/// Memory for many things of similar lifetime, one behind the other, in huge pages where the system has them. Separate
/// mappings are read more slowly: each 4 KiB of them needs an address translation.
class Arena {
 public:
  /// Blocks double from `block_bytes` to 256 MiB, so that few block ends are lost. Untouched memory costs nothing.
  explicit Arena(std::size_t block_bytes) : block_bytes_(block_bytes) {}

  /// Uninitialised, aligned to a cache line. The block lives as long as anything in it. Errors: std::bad_alloc.
  std::shared_ptr<std::byte> allocate(std::size_t bytes) {
    if (bytes > (std::numeric_limits<std::size_t>::max)() - alignment) throw std::bad_array_new_length();
    const std::size_t taken = (bytes + alignment - 1) / alignment * alignment;
    if (taken > left_) {
      const std::size_t size = (std::max)(taken, block_bytes_), align = size < large_page ? alignment : large_page;
      const auto free = [align](std::byte* block) { ::operator delete (block, std::align_val_t{align}); };
      block_.reset(static_cast<std::byte*>(::operator new (size, std::align_val_t{align})), free);
      if (align == large_page) use_huge_pages(std::span(block_.get(), size));
      next_ = block_.get();
      left_ = size;
      block_bytes_ = (std::min)(2 * block_bytes_, (std::max)(block_bytes_, most_block_bytes));
    }
    left_ -= taken;
    return {block_, std::exchange(next_, next_ + taken)};
  }

 private:
  static constexpr std::size_t large_page = std::size_t{2} << 20, most_block_bytes = std::size_t{256} << 20;

  std::size_t block_bytes_, left_ = 0;
  std::shared_ptr<std::byte> block_;
  std::byte* next_ = nullptr;
};

}  // namespace ple::inline PLE_ABI
