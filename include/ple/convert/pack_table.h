// SPDX-License-Identifier: Apache-2.0
// Writes a model's PLE table into a file of its own, in another form; checkpoint/packed_table.h describes the file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ple/checkpoint/packed_table.h"
#include "ple/convert/rows_to_pack.h"
#include "ple/core/checked_writer.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/core/number_text.h"
#include "ple/core/parallel.h"
#include "ple/formats/safetensors_header.h"
#include "ple/model/decoder.h"
#include "ple/table/encode_row.h"

namespace ple::inline PLE_ABI {

namespace detail {

/// The rank of each layer's basis, 0 without one. Errors: ErrorCode::argument.
inline std::vector<std::size_t> ranks_of(const RowBases& bases, std::size_t layers, std::size_t width) {
  if (bases.empty()) return {};
  if (bases.size() != layers)
    fail(ErrorCode::argument, "pack_table: bases of ", bases.size(), " layers, expected ", layers);
  std::vector<std::size_t> ranks(layers, 0);
  for (std::size_t l = 0; l < layers; ++l) {
    if (!bases[l]) continue;
    ranks[l] = bases[l]->size() / width;
    if (!bases[l]->empty() && bases[l]->size() % width == 0) continue;
    fail(ErrorCode::argument, "pack_table: layer ", l, ": a basis of ", bases[l]->size(),
         " values, expected a multiple of ", width);
  }
  return ranks;
}

/// out: of layers with a basis, the products of values with its rows; of others, the values. [rows, layers * p]
template <Backend B>
void to_coefficients(Executor& executor, const RowLayout& layout, const RowBases& bases, Rows values, Rows out) {
  const std::size_t p = layout.width();
  parallel_for(executor, layout.layers(), 1, [&](std::size_t begin, std::size_t end, std::size_t) {
    for (std::size_t l = begin; l < end; ++l) {
      if (layout.rank(l) > 0) {
        const float *basis = bases[l]->data(), *x = values.data + l * p;
        B::matmul(basis, p, layout.rank(l), p, x, values.stride, values.rows, out.data + l * p, out.stride);
      } else {
        for (std::size_t t = 0; t < values.rows; ++t) std::copy_n(values.row(t) + l * p, p, out.row(t) + l * p);
      }
    }
  });
}

}  // namespace detail

/// Writes `model`'s table to `path`, which is replaced only once all was read back. Errors: ErrorCode::argument, also
/// if the model lies in `path`; config, file; not_supported for a type that cannot be written; cancelled by `progress`.
template <class Block, class Table>
void pack_table(const Decoder<Block, Table>& model, PackOptions options, const std::filesystem::path& path,
                Executor& executor, const WriteProgress& progress = {}) {
  const std::vector<Token> tokens = detail::tokens_to_pack(model, options);
  const std::size_t layers = model.config.num_layers(), p = model.config.hidden_size_per_layer_input;
  const std::size_t vocab_size = model.config.vocab_size_per_layer_input, d = model.config.hidden_size;
  if (options.dtypes.size() != layers)
    fail(ErrorCode::argument, "pack_table: types of ", options.dtypes.size(), " layers, expected ", layers);
  if (!options.kept.empty() && values_per_block(model.embedding.dtype()) > 1) {
    fail(ErrorCode::not_supported, "pack_table: a cut-down vocabulary takes the token embedding with it, which is ",
         name_of(model.embedding.dtype()), ", expected f32, bf16 or f16");
  }
  const RowLayout layout = packed_layout(options.dtypes, p, detail::ranks_of(options.bases, layers, p));
  const bool ranked = layout.sum_of_ranks() > 0;
  const std::optional<Dtype> only = layout.only_dtype();
  const bool plain = only && values_per_block(*only) == 1;
  layout.require_encodable();
  SafetensorsHeader header;
  header.metadata("format", std::string(ranked ? ranked_table_format : packed_table_format));
  header.metadata("layers", std::to_string(layers));
  header.metadata("width", std::to_string(p));
  header.metadata("vocab_size", std::to_string(vocab_size));
  header.metadata("dtypes", layout.text());
  if (ranked) header.metadata("ranks", layout.ranks_text());
  header.metadata("scale", number_text(options.fold ? 1.0f : model.table.scale()));
  header.metadata("folded", options.fold ? "true" : "false");
  if (options.substitute) header.metadata("substitute", std::to_string(*options.substitute));
  header.tensor("ple_table", plain ? safetensors_name(*only) : "U8",
                {tokens.size(), plain ? layers * p : layout.row_bytes()}, tokens.size() * layout.row_bytes());
  const std::size_t embedding_row = bytes_of(model.embedding.dtype(), d);
  if (!options.kept.empty()) {
    header.tensor("token_embedding", safetensors_name(model.embedding.dtype()), {tokens.size(), d},
                  tokens.size() * embedding_row);
    header.tensor("kept_tokens", "I32", {tokens.size()}, tokens.size() * sizeof(Token));
  }
  if (options.fold) header.tensor("pad_identity", "F32", {layers * p}, layers * p * sizeof(float));
  if (ranked) header.tensor("bases", "F32", {layout.sum_of_ranks(), p}, layout.sum_of_ranks() * p * sizeof(float));

  CheckedWriter writer(path, model.files());
  const std::string head = header.bytes();
  writer.write(head.data(), head.size());
  detail::RowsToPack rows(model, options.fold);
  Rows coefficients;
  const RowsRequest requests[] = {{&coefficients, rows.most, ranked ? layers * p : 0}};
  const AlignedVector<float> memory = allocate_rows(requests);
  AlignedVector<std::byte> encoded(rows.most * layout.row_bytes());
  for (std::size_t done = 0; done < tokens.size(); done += rows.most) {
    const auto some = std::span(tokens).subspan(done, (std::min)(rows.most, tokens.size() - done));
    Rows out = rows.get(executor, some);
    if (ranked) {
      const Rows products = coefficients.slice(0, some.size());
      detail::to_coefficients<typename Block::Simd>(executor, layout, options.bases, out, products);
      out = products;
    }
    for_each_row(executor, some.size(), out.cols * 8,
                 [&](std::size_t t) { encode_row(layout, out.row(t), encoded.data() + t * layout.row_bytes()); });
    writer.write(encoded.data(), some.size() * layout.row_bytes());
    writer.report(progress, "rows written", done + some.size(), tokens.size());
  }
  if (!options.kept.empty()) {
    for (const Token token : tokens) {
      writer.write(model.embedding.data() + static_cast<std::size_t>(token) * embedding_row, embedding_row);
    }
    writer.write(tokens.data(), tokens.size() * sizeof(Token));
  }
  if (options.fold) writer.write(rows.pad_identity(executor).data, layers * p * sizeof(float));
  for (std::size_t l = 0; l < layers; ++l) {
    if (layout.rank(l) > 0) writer.write(options.bases[l]->data(), options.bases[l]->size() * sizeof(float));
  }
  writer.finish(progress);
}

}  // namespace ple::inline PLE_ABI
