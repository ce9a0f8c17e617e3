// SPDX-License-Identifier: Apache-2.0
// What a decoder keeps for one text: K and V, and the workspace for a chunk.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/arena.h"
#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/memory.h"
#include "ple/core/token.h"
#include "ple/model/adapter.h"
#include "ple/model/kv_caches.h"
#include "ple/model/language_model.h"
#include "ple/nn/kv_cache.h"
#include "ple/nn/low_rank.h"
#include "ple/nn/products.h"
#include "ple/table/adapted_rows.h"
#include "ple/table/ple_table.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// Identifies a model, whatever its address. A copy is another model, and so is a model after an assignment of one.
class ModelTag {
 public:
  ModelTag() = default;
  ModelTag(const ModelTag&) : ModelTag() {}
  ModelTag(ModelTag&&) = default;
  ModelTag& operator=(const ModelTag& other) {
    if (this != &other) tag_ = std::make_shared<const char>();
    return *this;
  }
  ModelTag& operator=(ModelTag&&) = default;
  ~ModelTag() = default;

  const std::shared_ptr<const char>& get() const { return tag_; }

 private:
  std::shared_ptr<const char> tag_ = std::make_shared<const char>();
};

/// What a state's workspace depends on, besides the configuration. All of it can change while a state lives.
struct WorkspaceSizes {
  std::size_t ids_per_token = 1, history = 0;  ///< of the table's keys
  std::size_t kept_tokens = 0;                 ///< rows of a cut-down vocabulary; 0: not cut down
  std::size_t widest_integer_row = 0;          ///< values per row, in matrices of integer types; 0: none
  std::size_t widest_bf16_row = 0;
  bool operator==(const WorkspaceSizes&) const = default;
};

namespace detail {

/// Errors: ErrorCode::argument; limit.
template <class Model>
void check_state_options(const Model& model, const SessionOptions& options) {
  if (options.chunk == 0 || options.chunk > most_tokens_at_once) {
    fail(ErrorCode::argument, "a state for ", options.chunk, " tokens at once, expected 1 to ", most_tokens_at_once);
  }
  if (options.context > model.config.max_position_embeddings) {
    fail(ErrorCode::argument, "context is ", options.context, ", expected 1 to ", model.config.max_position_embeddings,
         ", the model's max_position_embeddings");
  }
  // Does not overflow: a layer adds at most 2^61, and the first sum above the limit or the address space ends the loop.
  constexpr auto addresses = static_cast<std::uint64_t>((std::numeric_limits<std::ptrdiff_t>::max)());
  const std::uint64_t limit = options.kv_cache_limit;
  std::uint64_t bytes = 0;
  for (std::size_t l = 0; l < model.blocks.size(); ++l) {
    bytes += kv_cache_bytes(model.config, l, options);
    if (bytes <= (limit > 0 ? (std::min)(limit, addresses) : addresses)) continue;
    fail(ErrorCode::limit, "K and V of ", options.context, " positions take ", bytes, " bytes in the first ", l + 1,
         " layers, more than ",
         limit > 0 ? "kv_cache_limit, which is " : "a machine can address: ", limit > 0 ? limit : addresses);
  }
}

}  // namespace detail

/// Model: the Decoder that made the state.
template <class Model>
struct DecoderState final : ModelState {
  using Layer = typename Model::Layer;
  static constexpr char type_of_state = 0;

  const Model* model;
  std::shared_ptr<const char> tag;  // the model's tag when it made this
  WorkspaceSizes sizes;
  std::vector<KvCache> caches;  // by layer; empty where a layer shares another's
  typename Layer::Workspace workspace;
  AlignedVector<float> memory;
  AlignedVector<std::byte> product_workspace;  // Context::workspace
  Rows hidden, projected, per_layer, kept_logits;
  std::size_t ahead;                          // most tokens whose rows prefetch() requests
  RowSelection rows;                          // of the next tokens: a pass's or prefetched ones
  std::vector<Token> selected;                // the tokens of `rows`
  std::size_t selected_at = 0;                // position of the first of them
  std::shared_ptr<const char> selected_from;  // the table's version
  std::vector<Token> recent;                  // the last tokens read: as many as RowKeys::history
  std::vector<Token> text;                    // the recent tokens, then the chunk
  RowSelection batch_rows;                    // of a batch's tokens
  std::vector<std::size_t> positions;         // of a batch's texts; next, their caches of a layer
  std::vector<KvCache*> batch_caches;
  AdaptedWeights adapters;                          // of SessionOptions::adapters
  std::vector<const AdaptedWeights*> row_adapters;  // a batch's texts', or this text's
  AlignedVector<float> adapter_workspace;
  AdaptedRows adapted_rows;                            // of the adapters too
  std::vector<const AdaptedRows*> token_adapted_rows;  // a batch's texts', or this text's
  std::size_t written = 0;  // K and V below this position were written, perhaps by a pass that failed
  std::size_t resumed = 0;  // below it, K and V came from a saved session, which holds only what was still seen

  DecoderState(const Model& m, std::shared_ptr<const char> t, const SessionOptions& o, const WorkspaceSizes& s)
      : ModelState(o, &type_of_state), model(&m), tag(std::move(t)), sizes(s), workspace(m.config, o) {
    const auto& c = m.config;
    std::size_t cache_bytes = 0;
    for (std::size_t l = 0; l < c.num_layers(); ++l) cache_bytes += ple::kv_cache_bytes(c, l, o) + alignment;
    Arena arena(cache_bytes);
    for (std::size_t l = 0; l < c.num_layers(); ++l) caches.push_back(make_kv_cache(c, l, o, arena));
    const std::size_t d = c.hidden_size, packed = c.num_layers() * c.hidden_size_per_layer_input;
    const RowsRequest all[] = {{&hidden, o.chunk, m.streams.streams() * d},
                               {&per_layer, o.chunk, packed},
                               {&projected, o.chunk, packed},
                               {&kept_logits, o.chunk, sizes.kept_tokens}};
    memory = allocate_rows(all);
    std::size_t bytes = ple::product_workspace<typename Model::T, typename Model::B>(
        o.chunk, o.tasks(), sizes.widest_integer_row, sizes.widest_bf16_row);
    if constexpr (requires(const Layer& layer) { layer.workspace_bytes(o.chunk); }) {
      for (const Layer& layer : m.blocks) bytes = (std::max)(bytes, layer.workspace_bytes(o.chunk));
    }
    product_workspace.resize(bytes);
    ahead = std::max<std::size_t>(o.chunk, 1024);
    if (m.has_ple()) {
      rows = m.table.make_selection(ahead);
      batch_rows = m.table.make_selection(o.chunk);
      selected.reserve(ahead);
    }
    adapters = detail::bind_adapters(m, o.adapters, adapters_identity);
    if (!adapters.empty()) need_adapter_workspace(o.chunk, adapters.most_rank());
    adapted_rows = detail::bind_adapted_rows(m, o.adapters);
    row_adapters.reserve(o.chunk);
    token_adapted_rows.reserve(o.chunk);
    positions.reserve(o.chunk);
    batch_caches.reserve(o.chunk);
    recent.reserve(sizes.history);
    text.reserve(sizes.history + ahead);
  }
  /// The tokens, after the earlier ones that the table's keys depend on.
  std::span<const Token> with_history(std::span<const Token> tokens) {
    if (position == 0) recent.clear();
    text.assign(recent.begin(), recent.end());
    text.insert(text.end(), tokens.begin(), tokens.end());
    return text;
  }
  /// Selects the next tokens' rows. Returns whether exactly these were selected before, and so requested already.
  bool select_rows(std::span<const Token> tokens) {
    if (!model->has_ple()) return true;
    const std::size_t count = tokens.size();
    if (selected_at == position && selected_from == model->table.version() && count <= selected.size() &&
        std::equal(tokens.begin(), tokens.end(), selected.begin())) {
      if (count == selected.size()) return true;
      rows.ids.resize(count * sizes.ids_per_token);  // keeps the first of them
      selected.resize(count);
      return false;
    }
    forget_rows();
    model->table.select(with_history(tokens), count, model->config.pad_token(), rows);
    selected.assign(tokens.begin(), tokens.end());
    selected_at = position;
    selected_from = model->table.version();
    return false;
  }
  void forget_rows() {
    selected.clear();
    rows.ids.clear();
  }
  void need_adapter_workspace(std::size_t tokens, std::size_t rank) {
    const std::size_t size = RowAdapters::most_products * tokens * rank;
    if (adapter_workspace.size() < size) adapter_workspace.resize(size);
  }
  /// Those of row_adapters. nullopt: no row has any.
  std::optional<RowAdapters> adapters_of_rows() {
    std::size_t rank = 0;
    for (const AdaptedWeights* weights : row_adapters) rank = (std::max)(rank, weights ? weights->most_rank() : 0);
    if (rank == 0) return std::nullopt;
    return RowAdapters{row_adapters, adapter_workspace, rank};
  }
  /// Those of token_adapted_rows; empty: no text has any.
  std::span<const AdaptedRows* const> adapted_rows_of_tokens() const {
    const auto has = [](const AdaptedRows* adapted) { return !adapted->empty(); };
    if (std::none_of(token_adapted_rows.begin(), token_adapted_rows.end(), has)) return {};
    return token_adapted_rows;
  }
  /// Call before a pass writes K and V of the next `count` positions.
  void will_write(std::size_t count) {
    if (position == 0) written = resumed = 0;
    written = (std::max)(written, position + count);
  }
  void remember(std::span<const Token> tokens) {
    forget_rows();
    const std::size_t history = sizes.history;
    if (history == 0) return;
    text.assign(recent.begin(), recent.end());
    text.insert(text.end(), tokens.begin(), tokens.end());
    recent.assign(text.end() - static_cast<std::ptrdiff_t>((std::min)(history, text.size())), text.end());
  }
  std::size_t kv_cache_bytes() const override {
    std::size_t bytes = 0;
    for (const KvCache& cache : caches) bytes += cache.bytes();
    return bytes;
  }
  void resume(std::span<const Token> tokens) override {
    truncate(tokens);
    written = resumed = position;
  }
  /// Takes over what `other`, a state with the same options, has read.
  void copy_text(const DecoderState& other) {
    position = other.position;
    recent = other.recent;
    written = other.written;
    resumed = other.resumed;
    for (std::size_t l = 0; l < caches.size(); ++l) {
      if (caches[l].slots() == 0) continue;
      const std::size_t oldest = (std::min)(caches[l].oldest(written), position);
      caches[l].copy_positions(other.caches[l], oldest, position - oldest);
    }
  }
  std::size_t truncatable_to() const override {
    std::size_t from = 0;
    for (std::size_t l = 0; l < caches.size() && position > 0; ++l) {
      if (caches[l].slots() == 0) continue;
      const std::size_t window = positions_seen(model->config, l);
      const std::size_t oldest = (std::max)(caches[l].oldest(written), resumed - (std::min)(window, resumed));
      // A token's window ends with the token itself.
      if (oldest > 0) from = (std::max)(from, oldest + window - 1);
    }
    return (std::min)(from, position);
  }
  void truncate(std::span<const Token> tokens) override {
    forget_rows();
    position = tokens.size();
    const auto last = tokens.last((std::min)(sizes.history, tokens.size()));
    recent.assign(last.begin(), last.end());
  }
  void for_each_cached(const std::function<void(std::span<std::byte>)>& f) override {
    for (std::size_t l = 0; l < caches.size(); ++l) {
      if (caches[l].slots() == 0) continue;
      const std::size_t count = (std::min)(position, positions_seen(model->config, l));
      caches[l].for_each_cached(position - count, count, f);
    }
  }
  std::string_view cache_type() const override { return name_of(options.kv_cache_dtype); }
};

}  // namespace ple::inline PLE_ABI
