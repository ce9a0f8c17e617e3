// SPDX-License-Identifier: Apache-2.0
// What a session needs from a model, whatever the model's types: one virtual call per forward pass.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "ple/core/config.h"
#include "ple/core/error.h"
#include "ple/core/executor.h"
#include "ple/core/os.h"
#include "ple/core/token.h"
#include "ple/dtype/traits.h"
#include "ple/table/row_store.h"
#include "ple/tensor/rows.h"

namespace ple::inline PLE_ABI {

/// Most tokens of one pass: more gain nothing, and each takes memory.
inline constexpr std::size_t most_tokens_at_once = std::size_t{1} << 16;

class Adapter;  // model/adapter.h

/// An adapter that a session uses. `scale` multiplies what it adds.
struct SessionAdapter {
  std::shared_ptr<const Adapter> adapter;
  float scale = 1;
};

/// Options of a session, and of the state that a model keeps for it.
struct SessionOptions {
  std::size_t context = 0;                    ///< most positions; 0: 4096, or the model's limit if that is less
  std::size_t chunk = 128;                    ///< most tokens per pass, up to most_tokens_at_once
  std::size_t threads = 0;                    ///< of the pool; 0: one per hardware thread, or 1 for a state
  Dtype kv_cache_dtype = Dtype::f32;          ///< f32, bf16, f16 or q8_0: K and V are rounded to it when written
  std::uint64_t kv_cache_limit = 0;           ///< most bytes of K and V for the whole context; 0: no limit
  Executor* executor = nullptr;               ///< runs the session instead of a pool; must outlive it. States ignore it
  std::size_t keep = 0;                       ///< positions kept beyond a sliding window, for truncate() to go back to
  std::vector<SessionAdapter> adapters = {};  ///< what they add is summed up

  std::size_t context_of(std::size_t max_position_embeddings) const {
    return context ? context : (std::min)(std::size_t{4096}, max_position_embeddings);
  }
  std::size_t tasks() const { return threads <= 1 ? 1 : 4 * threads; }  ///< of an executor with so many threads
};
using StateOptions = SessionOptions;  ///< Old name; goes with the next version.

/// What a model remembers of one text: K and V, the position, and workspace.
struct ModelState {
  SessionOptions options;
  std::size_t position = 0;             ///< of the next token; setting it to 0 forgets the text
  const void* type = nullptr;           ///< one address per state type: a model knows its own states without RTTI
  std::uint64_t adapters_identity = 0;  ///< differs for other adapters or scales; 0: none
  ModelState() = default;
  explicit ModelState(const SessionOptions& o, const void* type_of_state = nullptr) : options(o), type(type_of_state) {}
  virtual ~ModelState() = default;
  virtual std::size_t kv_cache_bytes() const = 0;

  /// For saved sessions. Puts the state where it was after `tokens`, but for K and V: for_each_cached writes these.
  /// Errors, also of the next two: ErrorCode::not_supported where a model cannot.
  virtual void resume(std::span<const Token> /*tokens*/) { cannot_be_saved(); }
  /// Calls f with runs of bytes: all K and V that later tokens see, in an order set by model and position alone.
  virtual void for_each_cached(const std::function<void(std::span<std::byte>)>& /*f*/) { cannot_be_saved(); }
  virtual std::string_view cache_type() const { cannot_be_saved(); }  ///< dtype of these bytes, such as "f32"

  /// The earliest position that truncate() can go back to; the current one if the model cannot go back.
  virtual std::size_t truncatable_to() const { return rewindable_from(); }
  virtual std::size_t rewindable_from() const { return position; }  ///< Old name; goes with the next version.
  /// Goes back to the state after `tokens`: the first truncatable_to() or more of those read.
  virtual void truncate(std::span<const Token> tokens) { rewind(tokens); }
  virtual void rewind(std::span<const Token> /*tokens*/) {  ///< Old name; goes with the next version.
    fail(ErrorCode::not_supported, "this model's sessions cannot go back");
  }

 private:
  [[noreturn]] static void cannot_be_saved() {
    fail(ErrorCode::not_supported, "this model's sessions cannot be saved");
  }
};

/// Computing never changes a model: any number of states, each on its own thread, may use it at once.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;

  virtual std::size_t vocab_size() const = 0;
  virtual std::size_t max_position_embeddings() const = 0;

  /// Tokens are 0 to token_limit() - 1, except those for which check_has_row() throws ErrorCode::argument.
  virtual std::size_t token_limit() const { return vocab_size(); }
  virtual void check_has_row(Token /*token*/) const {}

  /// Errors: ErrorCode::argument for a token that the model cannot read; the message begins with `who`.
  template <class... Who>
  void check_token(Token token, const Who&... who) const {
    if (token < 0 || static_cast<std::size_t>(token) >= token_limit()) {
      fail(ErrorCode::argument, who..., ": token ", token, ", expected 0 to ", token_limit() - 1);
    }
    check_has_row(token);
  }

  virtual std::unique_ptr<ModelState> make_state(const SessionOptions& options) const = 0;  ///< for use with this model
  virtual bool takes_adapters() const { return false; }  ///< whether make_state heeds SessionOptions::adapters

  /// A new state that has read the same. Errors: those of make_state; ErrorCode::argument for another model's state.
  virtual std::unique_ptr<ModelState> copy_state(ModelState& /*state*/) const {
    fail(ErrorCode::not_supported, "this model's sessions cannot be copied");
  }

  /// Reads at most options.chunk tokens and writes the logits of the last logits.rows (0 or more): [rows, vocab_size].
  /// Each soft_token takes the next row of `soft`, [soft tokens, d], as the embedding that the first layer gets.
  /// Errors: ErrorCode::argument; ErrorCode::file if a file can no longer be read. After an error `logits` and the
  /// position are as they were, and the state can go on from there.
  virtual void forward(ModelState& state, Executor& executor, std::span<const Token> tokens, Rows logits,
                       Rows soft = {}) const = 0;

  /// Reads one token of each of several texts and writes the logits that follow: [texts, vocab_size], bit for bit those
  /// of `forward`. A model may read its weights once for all. `workspace` is a state to compute in, with a chunk of at
  /// least as many tokens; its own text is not touched. Errors: as above, and no text has read its token. Only this
  /// default differs: it reads text after text, so those before the failed one have read theirs and have logits.
  virtual void forward_each(ModelState& workspace, Executor& executor, std::span<ModelState* const> states,
                            std::span<const Token> tokens, Rows logits) const {
    static_cast<void>(workspace);
    for (std::size_t i = 0; i < states.size(); ++i) {
      forward(*states[i], executor, tokens.subspan(i, 1), logits.slice(i, 1));
    }
  }

  /// A hint that the state reads these tokens next: it requests what they need from files. Never waits, never throws.
  virtual void prefetch(ModelState& state, std::span<const Token> tokens) const {
    static_cast<void>(state), static_cast<void>(tokens);
  }
  /// Old name; goes with the next version.
  void will_read(ModelState& state, std::span<const Token> tokens) const { prefetch(state, tokens); }

  virtual TableCounters table_counters() const { return {}; }     ///< what its PLE table has done since it was opened
  virtual std::vector<FileIdentity> files() const { return {}; }  ///< files with its weights: do not overwrite them
  virtual std::size_t hidden_size() const = 0;                    ///< width of an embedding

  /// Differs for models that compute different things, as far as model/identity.h can tell. Reads a few weights.
  /// Errors: ErrorCode::file if a file can no longer be read; not_supported where a model has none.
  virtual std::uint64_t identity() const { fail(ErrorCode::not_supported, "this model has no identity"); }
};

}  // namespace ple::inline PLE_ABI
