// SPDX-License-Identifier: Apache-2.0
// What a forward pass has to do, counted on the model itself: its matrices, the rows of its table, its attention.
#pragma once

#include <ple/dtype/integers.h>
#include <ple/model/parameter.h>
#include <ple/nn/cached_attention.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace bench {

struct Work {
  std::uint64_t weight_bytes = 0;           ///< read, if each matrix is read once, but for what follows
  std::uint64_t sparse_bytes = 0;           ///< left out by sparse feed-forwards
  std::uint64_t integer_multiply_adds = 0;  ///< with weights whose products are computed in integers
  std::uint64_t float_multiply_adds = 0;    ///< with other weights, and of attention

  Work& operator+=(const Work& other) {
    weight_bytes += other.weight_bytes;
    sparse_bytes += other.sparse_bytes;
    integer_multiply_adds += other.integer_multiply_adds;
    float_multiply_adds += other.float_multiply_adds;
    return *this;
  }
};

/// The shares of a feed-forward's up or down that are read and multiplied where `sparsity` of each token's gate is 0,
/// here and there without order: as nn/sparse_mlp.h has it.
struct SparseShares {
  double bytes = 1, products = 1;

  SparseShares(double sparsity, ple::Parameter parameter, ple::Dtype dtype, std::size_t tokens) {
    if (sparsity == 0 || (parameter != ple::Parameter::up && parameter != ple::Parameter::down)) return;
    if (!ple::is_integer_type(dtype)) {
      bytes = 1 - std::pow(sparsity, static_cast<double>(tokens));
      products = 1 - sparsity;
    } else if (tokens == 1) {  // tiles of rows, or blocks of columns, in which nothing counts
      const std::size_t together =
          parameter == ple::Parameter::up ? ple::rows_per_tile : ple::integer_format(dtype).sub_block;
      bytes = products = 1 - std::pow(sparsity, static_cast<double>(together));
    }
  }
};

/// Of one chunk: `tokens` of text from position `first` on, the last `wanted` of them with logits. Layers that share
/// another's K and V compute the wanted ones alone. Norms, RoPE, softmax and other sums along a row are left out, and
/// sums over streams.
template <class Model>
Work work_of(Model& model, std::size_t first, std::size_t tokens, std::size_t wanted) {
  using ple::Parameter;
  const std::size_t first_shared = model.config.first_shared_layer();
  const auto positions_of = [&](std::size_t layer) { return layer < first_shared ? tokens : wanted; };
  Work work;
  model.parameters([&]<class V>(Parameter parameter, std::size_t layer, V& values) {
    if constexpr (requires { values.dtype(), values.cols(); }) {
      // Rows of the matrix, times positions that are multiplied with each.
      std::uint64_t products = values.rows() * positions_of(layer), rows = products > 0 ? values.rows() : 0;
      switch (parameter) {
        case Parameter::token_embedding:  // if it is the head; else a token takes one row
          products = model.config.tie_word_embeddings ? values.rows() * wanted : 0;
          rows = model.config.tie_word_embeddings && wanted > 0 ? values.rows() : tokens;
          break;
        case Parameter::head:
          products = values.rows() * wanted;
          rows = wanted > 0 ? values.rows() : 0;
          break;
        case Parameter::ple_context_projection:  // some rows for each layer; none that the table makes needless
          products = rows = 0;
          for (std::size_t l = 0; l < model.blocks.size(); ++l) {
            if (!model.table.has(l) || model.table.folded() || positions_of(l) == 0) continue;
            products += values.rows() / model.blocks.size() * positions_of(l);
            rows += values.rows() / model.blocks.size();
          }
          break;
        case Parameter::altup_projection:  // `layer` is a stream here
          products = values.rows() * tokens;
          rows = values.rows();
          break;
        case Parameter::altup_unembedding:
          products = values.rows() * wanted;
          rows = wanted > 0 ? values.rows() : 0;
          break;
        case Parameter::altup_router: products *= 2; break;  // before the layer, and after
        case Parameter::ple_gate:
        case Parameter::ple_output:
          if (!model.table.has(layer)) products = rows = 0;
          break;
        default: break;
      }
      double sparsity = 0;
      if constexpr (requires { model.blocks[layer].mlp.sparsity; }) {
        if (ple::is_of_layer(parameter)) sparsity = static_cast<double>(model.blocks[layer].mlp.sparsity);
      }
      const SparseShares shares(sparsity, parameter, values.dtype(), positions_of(layer));
      const auto part = [](double share, std::uint64_t all) {
        return share == 1 ? all : static_cast<std::uint64_t>(share * static_cast<double>(all));
      };
      const std::uint64_t bytes = rows * ple::bytes_of(values.dtype(), values.cols());
      work.weight_bytes += part(shares.bytes, bytes);
      work.sparse_bytes += bytes - part(shares.bytes, bytes);
      (ple::is_integer_type(values.dtype()) ? work.integer_multiply_adds : work.float_multiply_adds) +=
          part(shares.products, products * values.cols());
    }
  });
  if (model.has_ple()) work.weight_bytes += tokens * model.table.layout().row_bytes();
  for (std::size_t l = 0; l < model.blocks.size(); ++l) {
    const auto& attention = model.blocks[l].attention;
    for (std::size_t t = tokens - positions_of(l); t < tokens; ++t) {
      const std::uint64_t end = first + t + 1, seen = std::min(end, attention.window);
      const std::uint64_t pieces = (end - 1) / ple::attention_piece + 1 - (end - seen) / ple::attention_piece;
      // with K, then with V, then to add up the pieces
      work.float_multiply_adds += attention.heads * attention.head_dim * (2 * seen + pieces);
    }
  }
  return work;
}

/// Of a prompt from position 0 on, read in chunks; its last token's logits are wanted. weight_bytes: of all chunks.
template <class Model>
Work work_of_prompt(Model& model, std::size_t tokens, std::size_t chunk) {
  Work work;
  for (std::size_t first = 0; first < tokens; first += chunk) {
    const std::size_t count = std::min(chunk, tokens - first);
    work += work_of(model, first, count, first + count == tokens ? 1 : 0);
  }
  return work;
}

}  // namespace bench
