// SPDX-License-Identifier: Apache-2.0
// What a computation needs: threads, a workspace, adapters. The caller makes a Context and passes it down.
#pragma once

#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"

namespace ple::inline PLE_ABI {

struct RowAdapters;  // nn/low_rank.h

/// Where only threads are needed, pass an Executor: it converts.
struct Context {
  Executor& threads;
  /// Aligned to a cache line. Each product overwrites it: one user at a time. A model's state has one that is large
  /// enough (product_workspace in nn/products.h).
  std::span<std::byte> workspace;
  const RowAdapters* adapters = nullptr;  ///< what products add, for the rows of a pass

  // NOLINTNEXTLINE(google-explicit-constructor): what needs no workspace is called with an executor
  Context(Executor& t, std::span<std::byte> w = {}, const RowAdapters* a = nullptr)
      : threads(t), workspace(w), adapters(a) {}

  /// Always the first bytes. Errors: ErrorCode::argument if it has fewer.
  std::span<std::byte> take(std::size_t bytes) const {
    if (bytes > workspace.size()) {
      fail(ErrorCode::argument, "Context: the workspace has ", workspace.size(), " bytes, expected ", bytes);
    }
    return workspace.first(bytes);
  }
};

}  // namespace ple::inline PLE_ABI
