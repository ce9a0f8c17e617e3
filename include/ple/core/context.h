// SPDX-License-Identifier: Apache-2.0
// What a computation runs in: threads, and memory to work in. Nothing of it is global: a caller makes it and passes it
// on.
#pragma once

#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"

namespace ple::inline PLE_ABI {

/// Where only threads are needed, an Executor will do.
struct Context {
  Executor& threads;
  /// Aligned to a cache line, reused by each product: only one caller at a time may use it. A model's state has one as
  /// large as its products need (product_workspace in nn/products.h).
  std::span<std::byte> workspace;

  // NOLINTNEXTLINE(google-explicit-constructor): what needs no workspace is called with an executor
  Context(Executor& t, std::span<std::byte> w = {}) : threads(t), workspace(w) {}

  /// The workspace's first bytes. Errors: ErrorCode::argument where it has fewer.
  std::span<std::byte> take(std::size_t bytes) const {
    if (bytes > workspace.size()) {
      fail(ErrorCode::argument, "Context: a workspace of ", workspace.size(), " bytes, expected ", bytes);
    }
    return workspace.first(bytes);
  }
};

}  // namespace ple::inline PLE_ABI
