// SPDX-License-Identifier: Apache-2.0
// What a forward pass has to do, counted on the model itself: its matrices, the rows of its table, its attention.
#pragma once

#include <ple/model/parameter.h>
#include <ple/nn/cached_attention.h>
#include <ple/packing/packed_columns.h>
#include <ple/packing/packed_rows.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace bench {

struct Work {
  std::uint64_t weight_bytes = 0;           ///< read, if each matrix is read once, but for what follows
  std::uint64_t sparse_bytes = 0;           ///< left out by sparse feed-forwards
  std::uint64_t cached_values = 0;          ///< of K and V, read once by each layer that attends over them
  std::uint64_t integer_multiply_adds = 0;  ///< with weights whose products are computed in integers
  std::uint64_t bf16_multiply_adds = 0;     ///< with weights and activations in bf16, where the CPU multiplies these
  std::uint64_t float_multiply_adds = 0;    ///< with other weights, and of attention

  Work& operator+=(const Work& other) {
    weight_bytes += other.weight_bytes;
    sparse_bytes += other.sparse_bytes;
    cached_values += other.cached_values;
    integer_multiply_adds += other.integer_multiply_adds;
    bf16_multiply_adds += other.bf16_multiply_adds;
    float_multiply_adds += other.float_multiply_adds;
    return *this;
  }
};

/// The shares of a feed-forward's up or down that are read and multiplied where `sparsity` of each token's gate is 0,
/// here and there without order: as nn/sparse_mlp.h has it.
struct SparseShares {
  double bytes = 1, products = 1;

  template <class Mlp>
  SparseShares(const Mlp& mlp, ple::Parameter parameter, std::size_t tokens) {
    if constexpr (requires { mlp.sparsity; }) {
      const bool up = parameter == ple::Parameter::up && mlp.up_by_rows(),
                 down = parameter == ple::Parameter::down && mlp.down_by_columns();
      if (!up && !down) return;
      const auto unread = [&](double columns) {
        return std::pow(static_cast<double>(mlp.sparsity), static_cast<double>(tokens) * columns);
      };
      bytes = 1 - unread(1);
      products = 1 - static_cast<double>(mlp.sparsity);
      const auto& matrix = up ? mlp.up.weight : mlp.down.weight;
      if (!ple::is_integer_type(matrix.dtype())) return;
      // Integers take other bytes than in the file; down's numbers are read where any of a block's columns counts.
      double read = 0;
      if (up) {
        const ple::PackedRowLayout layout(matrix.dtype(), matrix.cols());
        read = bytes * static_cast<double>(layout.row_bytes * matrix.rows());
      } else {
        const ple::PackedColumnLayout layout(matrix.dtype(), matrix.rows(), matrix.cols());
        const auto sub_block = static_cast<double>(layout.format->sub_block);
        read = static_cast<double>(layout.sub_blocks) *
               (static_cast<double>(layout.scale_bytes) * (1 - unread(sub_block)) +
                sub_block * static_cast<double>(layout.column_bytes) * bytes);
      }
      bytes = read / static_cast<double>(ple::bytes_of(matrix.dtype(), matrix.rows() * matrix.cols()));
    }
  }
};

/// Of the experts' rows: the share that is read if each token goes to some of them, whichever, and the share of all
/// products that a token is part of.
struct ExpertShares {
  double rows = 1, products = 1;

  template <class Config>
  ExpertShares(const Config& config, ple::Parameter parameter, std::size_t tokens) {
    if constexpr (requires { config.num_experts; }) {
      if (ple::part_of(parameter) != ple::ParameterPart::experts) return;
      products = static_cast<double>(config.top_k_experts) / static_cast<double>(config.num_experts);
      rows = tokens == 1 ? products : 1 - std::pow(1 - products, static_cast<double>(tokens));
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
      const std::size_t l = ple::is_of_layer(parameter) ? layer : 0;
      const SparseShares shares(model.blocks[l].mlp, parameter, positions_of(layer));
      const auto part = [](double share, std::uint64_t all) {
        return share == 1 ? all : static_cast<std::uint64_t>(std::llround(share * static_cast<double>(all)));
      };
      const ExpertShares experts(model.config, parameter, positions_of(layer));
      products = part(experts.products, products);
      const std::uint64_t bytes = part(experts.rows, rows) * ple::bytes_of(values.dtype(), values.cols());
      work.weight_bytes += part(shares.bytes, bytes);
      work.sparse_bytes += bytes - part(shares.bytes, bytes);
      const bool bf16 = values.dtype() == ple::Dtype::bf16 && Model::B::multiplies_bf16() && shares.products == 1;
      (ple::is_integer_type(values.dtype()) ? work.integer_multiply_adds
       : bf16                               ? work.bf16_multiply_adds
              : work.float_multiply_adds) += part(shares.products, products * values.cols());
    }
  });
  if (model.has_ple()) work.weight_bytes += tokens * model.table.layout().row_bytes();
  for (std::size_t l = 0; l < model.blocks.size(); ++l) {
    const auto& attention = model.blocks[l].attention;
    if (const std::size_t count = positions_of(l); count > 0) {
      const std::uint64_t end = first + tokens, seen = std::min<std::uint64_t>(end, attention.window + count - 1);
      work.cached_values += 2 * attention.kv_heads * attention.head_dim * seen;
    }
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
