// SPDX-License-Identifier: Apache-2.0
// What a decoder keeps for one text: K and V, and the room it computes a chunk in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "ple/core/arena.h"
#include "ple/core/config.h"
#include "ple/core/executor.h"
#include "ple/core/memory.h"
#include "ple/core/token.h"
#include "ple/model/language_model.h"
#include "ple/nn/kv_cache.h"
#include "ple/nn/linear.h"
#include "ple/table/ple_table.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// Threads of somebody else, memory of a state.
class ExecutorWithScratch final : public Executor {
 public:
  ExecutorWithScratch(Executor& threads, std::span<std::byte> scratch) : threads_(&threads), scratch_(scratch) {}
  std::size_t concurrency() const override { return threads_->concurrency(); }
  void run(std::size_t count, TaskRef task) override { threads_->run(count, task); }
  std::span<std::byte> scratch() override { return scratch_; }

 private:
  Executor* threads_;
  std::span<std::byte> scratch_;
};

/// Tells models apart, whatever address they have: a copy is another model, and so is one that another was assigned to.
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

/// What the room of a state depends on, besides the configuration: all of it can change while a state lives.
struct RoomSizes {
  std::size_t ids_per_token = 1, history = 0;  ///< of the table's keys
  std::size_t kept_tokens = 0;                 ///< that a cut-down vocabulary has; 0: it has all
  std::size_t widest_integer_row = 0;          ///< of the matrices of integer types; 0: there is none
  std::size_t widest_bf16_row = 0;
  bool operator==(const RoomSizes&) const = default;
};

/// The state of a Decoder. Model: that decoder.
template <class Model>
struct DecoderState final : ModelState {
  using Layer = typename Model::Layer;
  static constexpr char type_of_state = 0;

  const Model* model;
  std::shared_ptr<const char> tag;  // the model's when it made this
  RoomSizes sizes;
  std::vector<KvCache> caches;  // by layer; empty ones for layers that share another's
  typename Layer::Workspace workspace;
  AlignedVector<float> memory;
  AlignedVector<std::byte> scratch;
  Rows hidden, wanted_embedding, per_layer, context, kept_logits;
  std::size_t ahead;                   // tokens whose rows are asked for before their turn
  RowSelection rows, rows_ahead;       // of this chunk, and of those
  std::vector<Token> recent;           // the last tokens read, as many as the table's keys look back to
  std::vector<Token> text;             // those, and the chunk
  std::vector<std::size_t> positions;  // of several texts, and their caches of a layer
  std::vector<KvCache*> texts_caches;
  std::size_t written = 0;  // K and V below this position were written, perhaps by a pass that failed
  std::size_t resumed = 0;  // K and V below it came from a saved session, which has no more than what was still seen

  DecoderState(const Model& m, std::shared_ptr<const char> t, const SessionOptions& o, const RoomSizes& s)
      : ModelState(o, &type_of_state), model(&m), tag(std::move(t)), sizes(s), workspace(m.config, o) {
    const auto& c = m.config;
    std::size_t cache_bytes = 0;
    for (std::size_t l = 0; l < c.num_layers(); ++l) cache_bytes += Layer::cache_bytes(c, l, o) + alignment;
    Arena arena(cache_bytes);
    for (std::size_t l = 0; l < c.num_layers(); ++l) caches.push_back(Layer::make_cache(c, l, o, arena));
    const std::size_t d = c.hidden_size, packed = c.num_layers() * c.hidden_size_per_layer_input;
    const RowsRequest all[] = {{&hidden, o.chunk, m.streams.streams() * d},
                               {&wanted_embedding, o.chunk, d},
                               {&per_layer, o.chunk, packed},
                               {&context, o.chunk, packed},
                               {&kept_logits, o.chunk, sizes.kept_tokens}};
    memory = allocate_rows(all);
    using B = typename Model::B;
    std::size_t scratch_bytes = B::multiplies_bf16() ? rounded_bytes(o.chunk, sizes.widest_bf16_row) : 0;
    if constexpr (Matrix<typename Model::T>::may_be_integers) {
      if (sizes.widest_integer_row > 0) {
        scratch_bytes =
            (std::max)(scratch_bytes, IntegerScratch<B>(o.chunk, sizes.widest_integer_row).bytes(o.parts()));
      }
    }
    scratch.resize(scratch_bytes);
    ahead = std::max<std::size_t>(o.chunk, 1024);
    if (m.has_ple()) {
      rows = m.table.make_selection(o.chunk);
      rows_ahead = m.table.make_selection(ahead);
    }
    positions.reserve(o.chunk);
    texts_caches.reserve(o.chunk);
    recent.reserve(sizes.history);
    text.reserve(sizes.history + ahead);
  }
  /// The tokens, after those before them that the table's keys look at.
  std::span<const Token> with_history(std::span<const Token> tokens) {
    if (position == 0) recent.clear();
    text.assign(recent.begin(), recent.end());
    text.insert(text.end(), tokens.begin(), tokens.end());
    return text;
  }
  /// A pass is about to write K and V of the next `count` positions.
  void will_write(std::size_t count) {
    if (position == 0) written = resumed = 0;
    written = (std::max)(written, position + count);
  }
  void remember(std::span<const Token> tokens) {
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
  /// Has read what `other`, made with the same options, has read.
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
      const std::size_t window = Layer::positions_seen(model->config, l);
      const std::size_t oldest = (std::max)(caches[l].oldest(written), resumed - (std::min)(window, resumed));
      // The token at a position sees a window that ends with itself.
      if (oldest > 0) from = (std::max)(from, oldest + window - 1);
    }
    return (std::min)(from, position);
  }
  void truncate(std::span<const Token> tokens) override {
    position = tokens.size();
    const auto last = tokens.last((std::min)(sizes.history, tokens.size()));
    recent.assign(last.begin(), last.end());
  }
  void for_each_cached(const std::function<void(std::span<std::byte>)>& f) override {
    for (std::size_t l = 0; l < caches.size(); ++l) {
      if (caches[l].slots() == 0) continue;
      const std::size_t count = (std::min)(position, Layer::positions_seen(model->config, l));
      caches[l].for_each_cached(position - count, count, f);
    }
  }
  std::string_view cache_type() const override { return name_of(options.kv_cache_dtype); }
};

}  // namespace ple::inline PLE_ABI
