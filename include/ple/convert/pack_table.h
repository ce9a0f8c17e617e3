// SPDX-License-Identifier: Apache-2.0
// Writes a model's PLE table into a file of its own, in another form; checkpoint/packed_table.h describes the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ple/checkpoint/packed_table.h"
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

struct PackOptions {
  std::vector<std::optional<Dtype>> dtypes = {};  ///< of each layer; nothing: the layer is pruned away
  bool fold = false;             ///< store whole per-layer inputs, so that no token needs the context projection
  std::vector<Token> kept = {};  ///< the tokens that keep their rows; none: all
  std::optional<Token> substitute = {};  ///< with `kept`: replaces all others, which otherwise are an error
};

/// Writes `model`'s table to `path`, which is replaced only once all was read back. Errors: ErrorCode::argument, also
/// if the model lies in `path`; config, file; not_supported for a type that cannot be written; cancelled by `progress`.
template <class Block, class Table>
void pack_table(const Decoder<Block, Table>& model, PackOptions options, const std::filesystem::path& path,
                Executor& executor, const WriteProgress& progress = {}) {
  const auto refuse = [](const auto&... parts) { fail(ErrorCode::argument, "pack_table: ", parts...); };
  const std::size_t layers = model.config.num_layers(), p = model.config.hidden_size_per_layer_input;
  const std::size_t vocab_size = model.config.vocab_size_per_layer_input, d = model.config.hidden_size;
  if (p == 0) refuse("the model has no PLE table");
  if (model.table.vocabulary() || model.table.folded())
    refuse("the model's table was packed already: start from the original");
  if (options.dtypes.size() != layers) refuse("types of ", options.dtypes.size(), " layers, expected ", layers);
  std::vector<Token> tokens = options.kept;
  for (std::size_t token = 0; options.kept.empty() && token < vocab_size; ++token)
    tokens.push_back(static_cast<Token>(token));
  const std::size_t limit = (std::min)(vocab_size, model.config.vocab_size);
  std::vector<bool> seen(vocab_size, false);
  for (const Token token : options.kept) {
    if (token < 0 || static_cast<std::size_t>(token) >= limit) refuse("token ", token, ", expected 0 to ", limit - 1);
    if (seen[static_cast<std::size_t>(token)]) refuse("token ", token, " is listed twice");
    seen[static_cast<std::size_t>(token)] = true;
  }
  if (options.substitute &&
      (options.kept.empty() || *options.substitute < 0 || static_cast<std::size_t>(*options.substitute) >= limit ||
       !seen[static_cast<std::size_t>(*options.substitute)])) {
    refuse("the substitute ", *options.substitute, " is not among the tokens that keep their rows");
  }

  if (!options.kept.empty() && values_per_block(model.embedding.dtype()) > 1) {
    fail(ErrorCode::not_supported, "pack_table: a cut-down vocabulary takes the token embedding with it, which is ",
         name_of(model.embedding.dtype()), ", expected f32, bf16 or f16");
  }
  const RowLayout layout = packed_layout(options.dtypes, p);
  const std::optional<Dtype> only = layout.only_dtype();
  const bool plain = only && values_per_block(*only) == 1;
  layout.require_encodable();
  SafetensorsHeader header;
  header.metadata("format", std::string(packed_table_format));
  header.metadata("layers", std::to_string(layers));
  header.metadata("width", std::to_string(p));
  header.metadata("vocab_size", std::to_string(vocab_size));
  header.metadata("dtypes", layout.text());
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

  CheckedWriter writer(path, model.files());
  const std::string head = header.bytes();
  writer.write(head.data(), head.size());
  constexpr std::size_t chunk = 256;
  RowSelection selection = model.table.make_selection(chunk);
  Rows h0, context, values;
  const RowsRequest requests[] = {{&h0, chunk, options.fold ? d : 0},
                                  {&context, chunk, options.fold ? layers * p : 0},
                                  {&values, chunk, layers * p}};
  const AlignedVector<float> memory = allocate_rows(requests);
  AlignedVector<std::byte> encoded(chunk * layout.row_bytes());
  for (std::size_t done = 0; done < tokens.size(); done += chunk) {
    const std::span<const Token> some = std::span(tokens).subspan(done, (std::min)(chunk, tokens.size() - done));
    const Rows out = values.slice(0, some.size());
    if (options.fold) {
      model.per_layer_inputs(executor, some, selection, h0.slice(0, some.size()), context.slice(0, some.size()), out);
    } else {
      model.table.select(some, some.size(), model.config.pad_token(), selection);
      model.table.gather_stored(executor, selection, 0, 0, layers, out);
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
  if (options.fold) {
    const Token pad = model.config.pad_token();
    model.table.select(std::span(&pad, 1), 1, pad, selection);
    model.table.gather(executor, selection, 0, 0, layers, values.slice(0, 1));
    writer.write(values.data, layers * p * sizeof(float));
  }
  writer.finish(progress);
}

}  // namespace ple::inline PLE_ABI
