// SPDX-License-Identifier: Apache-2.0
// What a family's layer has to be, for a decoder to be a stack of it.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ple/core/arena.h"
#include "ple/core/config.h"
#include "ple/core/executor.h"
#include "ple/core/function_ref.h"
#include "ple/model/language_model.h"
#include "ple/nn/kv_cache.h"
#include "ple/nn/places.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// Gives a layer's slice of the rows of a pass, [T, p], or none if it was pruned; to be called when they are needed,
/// for they may come from a disk.
using PerLayerRows = FunctionRef<Rows()>;

/// One layer of a decoder. Its Config describes the whole model; its Workspace is the room it computes in, and holds
/// what all layers share for one chunk (the angles of its positions, say).
template <class Block>
concept DecoderBlock = std::constructible_from<Block, const typename Block::Config&, std::size_t> &&
    std::constructible_from<typename Block::Workspace, const typename Block::Config&, const SessionOptions&> &&
    requires(const Block block, const typename Block::Config config, typename Block::Workspace workspace,
             Executor& executor, const Places& places, std::span<const std::size_t> positions, Rows rows,
             PerLayerRows per_layer_rows, const SessionOptions& options, std::size_t n, Arena& arena) {
  { Block::make_cache(config, n, options, arena) } -> std::same_as<KvCache>;
  requires std::constructible_from<typename Block::Streams, const typename Block::Config&>;
  { Block::cache_bytes(config, n, options) } -> std::same_as<std::uint64_t>;
  { Block::positions_seen(config, n) } -> std::same_as<std::size_t>;
  workspace.start(n, n);
  workspace.start(positions);
  block.forward(executor, workspace, n, rows, per_layer_rows, places);
};

/// What the layers of most families work on: the embedding itself. Others make several streams of it, which lie side by
/// side: `expand` gets the embedding in the first, and `mean` leaves there what the head sees.
struct OneStream {
  OneStream() = default;
  template <class Config>
  explicit OneStream(const Config&) {}
  static constexpr std::size_t streams() { return 1; }
  void expand(Executor&, Rows) const {}
  template <class Workspace>
  void mean(Executor&, const Workspace&, Rows) const {}
  template <class F>
  void parameters(F&&) {}
};

}  // namespace ple::inline PLE_ABI
