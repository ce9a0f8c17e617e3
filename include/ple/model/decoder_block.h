// SPDX-License-Identifier: Apache-2.0
// What a family's layer must have for a decoder to stack it.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>

#include "ple/core/config.h"
#include "ple/core/context.h"
#include "ple/core/function_ref.h"
#include "ple/model/language_model.h"
#include "ple/nn/positions.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

using PerLayerRows = FunctionRef<Rows()>;  ///< Old name; goes with the next version.

/// One layer of a decoder. Config describes the whole model. Workspace is what a layer computes in, and what all layers
/// share for a chunk, such as the angles of its positions. per_layer_input() returns the layer's per-layer input, [T,
/// p], or nothing if pruned. A layer calls it late, since rows may come from a disk. Beside what the concept asks for,
/// a block names its Dtype and Simd, and parameters(f) calls f(Parameter, weights) for everything that files hold of
/// it.
template <class Block>
concept DecoderBlock = std::constructible_from<Block, const typename Block::Config&, std::size_t> &&
    std::constructible_from<typename Block::Workspace, const typename Block::Config&, const SessionOptions&> &&
    requires(const Block block, const typename Block::Config config, typename Block::Workspace workspace,
             const Context& context, const Positions& cached, std::span<const std::size_t> positions, Rows rows,
             FunctionRef<Rows()> per_layer_input, std::size_t n) {
  requires std::constructible_from<typename Block::Streams, const typename Block::Config&>;
  workspace.start(n, n);
  workspace.start(positions);
  block.forward(context, workspace, n, rows, per_layer_input, cached);
};

/// Streams of a family whose layers work on the embedding itself. Others make several streams, side by side: `expand`
/// gets the embedding in the first, `unembed` leaves there what the head reads.
struct OneStream {
  OneStream() = default;
  template <class Config>
  explicit OneStream(const Config&) {}
  static constexpr std::size_t streams() { return 1; }
  void expand(const Context&, Rows) const {}
  template <class Workspace>
  void unembed(const Context&, const Workspace&, Rows) const {}
  template <class F>
  void parameters(F&&) {}
};

}  // namespace ple::inline PLE_ABI
